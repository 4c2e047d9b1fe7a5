"""A device: what a program asks of Blindpost (protocol.md, all of it; architecture, the way of one message).

    card = RelayCard.read(Path("relay-card.toml"))
    Device.new(home, card, token, passphrase)          first device of an account
    Device.request(home, card, passphrase)             further device: request, approve, accept
    Device.open(home, passphrase)                      from then on

    async with Device.open(home, passphrase) as device:
        bo = "bo@globex.example"
        receipts = await device.send(device.compose(Kind.CHAT, b"hello", to=[bo]), [bo])
        for message in await device.receive(wait_s=10):
            ...

Entering the context starts the loop of client/engine.py, which connects, and connects again, until the context is left.
`send` puts the message durably into the outbox first, and then waits: whoever stops waiting (a timeout, a crash) has
not unsent it. Everything that waits takes a `wait_s` and raises `Unknown` when it is over: ask again, nothing happens
twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from msgspec.structs import replace

from client.attachments import CHUNKS_MAX
from client.content import NO_REPLY, Content, encode_content, wrap_own_copy
from client.content import Kind as ContentKind
from client.downloads import payload_of
from client.engine import Engine
from client.enrolment import approval_text, read_approval, read_request, request_fingerprint, request_text
from client.errors import Unknown
from client.home import create_home, open_home
from client.kept import kept_name
from client.link import DirectoryEvent
from client.message import Message, Notice, SentStatus
from client.outbox import expiry_of, put_renewals
from client.pins import PinnedAccount, Pins
from client.prekey_rows import put_upload
from client.records import AccountRow, DeviceRow, HeldReceipt, KeptRow, NoticeRow, Sent
from client.state import Settings, State, Surroundings
from client.store import Kind, Step, Store
from client.transport import MqttTransport, Transport
from keys.fingerprint import safety_number
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.vault import STANDARD, Cost
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.commands import LookUp, Withdraw
from wire.errors import FormatError
from wire.identity import DeviceEntry, SignedList, Token, check_account, read_activation, verify_signed_list
from wire.limits import AUDIENCE_MAX, EXPIRY_S_MAX, ID_BYTES, TOKENS_PER_ACK_MAX

__all__ = ["Device"]

T = TypeVar("T")
Fault = Callable[[str], None]


class Device:
    """One device of an account. Made by `new`, `request` or `open`; used inside `async with`.

    Args:
        store: its open store.
        settings: how it behaves.
        surroundings: clock and randomness.
        transport: how packets travel; without one, MQTT to the card's broker.
    """

    def __init__(
        self, store: Store, settings: Settings, surroundings: Surroundings, transport: Transport | None = None
    ) -> None:
        self._store = store
        self._settings = settings
        self._surroundings = surroundings
        self._state_at_rest = State(store, settings, surroundings)
        self._transport = transport or MqttTransport(self._state_at_rest.card.broker, store.home)
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        if store.rolled_back:
            self._begin_again()

    def __repr__(self) -> str:
        return f"Device(account={self.state.device.account!r}, device_key={self.state.keys.public.hex()})"

    # Making and opening a home

    @classmethod
    def new(
        cls,
        home: Path,
        card: RelayCard,
        token: Token,
        passphrase: bytes,
        *,
        settings: Settings | None = None,
        surroundings: Surroundings | None = None,
        transport: Transport | None = None,
        cost: Cost = STANDARD,
        fault: Fault | None = None,
    ) -> Self:
        """The first device of an account; it enrols by itself when it is first connected.

        Args:
            home: a folder that is no home yet.
            card: the relay's card.
            token: the activation token of the tenant.
            passphrase: opens the home later; kept nowhere.
            settings: how the device behaves.
            surroundings: clock and randomness.
            transport: how packets travel; without one, MQTT to the card's broker.
            cost: what one try of a passphrase costs.
            fault: for tests of crashes; see `Store`.

        Raises:
            FormatError: the token is malformed.
            HomeInvalid: the folder is a home already.
        """
        activation = read_activation(token)
        surroundings = surroundings or Surroundings()
        random = surroundings.random
        keys, account_key = DeviceKeys.generate(random), AccountKey.generate(random)
        signed = account_key.first_list(activation.account, [keys.entry])
        row = DeviceRow(card.to_toml(), keys.to_bytes(), activation.account, keys.mailbox, (token,), False, False)
        store = create_home(home, passphrase, random, cost, fault)
        now_s = int(surroundings.now())
        ring, upload = PrekeyRing.generate(keys, now_s, entropy=random)
        with store.step() as step:
            step.put(Kind.DEVICE, b"", encode(row))
            step.put(Kind.ACCOUNT, b"", encode(AccountRow(account_key.to_bytes())))
            _pin_own(store, step, signed, now_s)
            put_upload(step, ring, upload)
        return cls(store, settings or Settings(), surroundings, transport)

    @classmethod
    def request(
        cls,
        home: Path,
        card: RelayCard,
        passphrase: bytes,
        *,
        settings: Settings | None = None,
        surroundings: Surroundings | None = None,
        transport: Transport | None = None,
        cost: Cost = STANDARD,
        fault: Fault | None = None,
    ) -> Self:
        """A further device of an account, not approved yet; `request_text` is what to carry to the first device.

        Raises:
            HomeInvalid: the folder is a home already.
        """
        surroundings = surroundings or Surroundings()
        keys = DeviceKeys.generate(surroundings.random)
        row = DeviceRow(card.to_toml(), keys.to_bytes(), "", keys.mailbox, (), False, False)
        store = create_home(home, passphrase, surroundings.random, cost, fault)
        ring, upload = PrekeyRing.generate(keys, int(surroundings.now()), entropy=surroundings.random)
        with store.step() as step:
            step.put(Kind.DEVICE, b"", encode(row))
            put_upload(step, ring, upload)
        return cls(store, settings or Settings(), surroundings, transport)

    @classmethod
    def open(
        cls,
        home: Path,
        passphrase: bytes,
        *,
        settings: Settings | None = None,
        surroundings: Surroundings | None = None,
        transport: Transport | None = None,
        fault: Fault | None = None,
    ) -> Self:
        """Open a home.

        Raises:
            HomeInvalid: no home, or a damaged one.
            HomeInUse: another process holds it.
            WrongPassphrase: it does not open.
        """
        surroundings = surroundings or Surroundings()
        store = open_home(home, passphrase, surroundings.random, fault)
        try:
            return cls(store, settings or Settings(), surroundings, transport)
        except BaseException:
            store.abandon()
            raise

    # Life

    @property
    def state(self) -> State:
        """The loaded state; for modules of client/ only."""
        return self._engine.state if self._engine else self._state_at_rest

    @property
    def account(self) -> str:
        """The device's account.

        Raises:
            NotEnrolled: it has none yet.
        """
        return self.state.account

    @property
    def device_key(self) -> bytes:
        """The Ed25519 device key, 32 bytes; it names the device."""
        return self.state.keys.public

    @property
    def mailbox(self) -> bytes:
        """The device's mailbox, 16 bytes."""
        return self.state.keys.mailbox

    @property
    def engine(self) -> Engine:
        """The running loop.

        Raises:
            Unknown: the device is not running; enter its context first.
        """
        if self._engine is None:
            raise Unknown("device", "it is not running: use it inside `async with`")
        return self._engine

    async def __aenter__(self) -> Self:
        self._engine = Engine(self._store, self._settings, self._surroundings, self._transport)
        self._task = asyncio.create_task(self._engine.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine, task = self._engine, self._task
        assert engine is not None
        assert task is not None
        engine.close()
        try:
            await task
        finally:
            self._engine = self._task = None
            self.close()

    def close(self) -> None:
        """Let go of the home; the context does it by itself."""
        self._store.close()

    async def crash(self) -> None:
        """Stop without writing anything more, as a kill would; for tests of crashes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._engine = self._task = None
        self._store.abandon()

    def _begin_again(self) -> None:
        """The home was restored or copied: what another copy may have used is never used again here."""
        state = self._state_at_rest
        if not state.device.account:
            return
        with self._store.step() as step:
            accounts = state.sessions.mark_all_stale(step) - {state.account}
            put_renewals(state, step, sorted(accounts))
            if state.ring is not None:
                upload = state.ring.rotate(state.now_s)
                put_upload(step, state.ring, upload)
        self._state_at_rest = State(self._store, self._settings, self._surroundings)

    # Waiting

    async def linked(self, wait_s: float | None = None) -> None:
        """Wait until a link stands.

        Raises:
            Unknown: not within `wait_s` seconds; it says what went wrong last.
        """
        await self._until(lambda: self.engine.link.up, "link", wait_s)

    async def enrolled(self, wait_s: float | None = None) -> None:
        """Wait until the relay knows this device.

        Raises:
            Refused: the relay refused the enrolment.
            Unknown: not within `wait_s` seconds.
        """

        def is_enrolled() -> bool:
            if self.engine.enrolment.failure is not None:
                raise self.engine.enrolment.failure
            return self.engine.link.up and self.state.device.enrolled

        await self._until(is_enrolled, "enrol", wait_s)

    async def idle(self, wait_s: float | None = None) -> None:
        """Wait until the outbox is empty: every message, and every D and R notice, has its receipts.

        Raises:
            Unknown: not within `wait_s` seconds.
        """
        await self._until(lambda: not self.engine.outbox.outgoing, "send", wait_s)

    async def caught_up(self, quiet_s: float = 1.0, wait_s: float | None = None) -> None:
        """Wait until a link stands and nothing was delivered for `quiet_s` seconds.

        The relay does not say when its backlog is over; a chunk that is lost on the way comes again after 5 s, and is
        then taken by the next call.

        Raises:
            Refused: the relay refused the enrolment.
            Unknown: not within `wait_s` seconds.
        """

        async def wait() -> None:
            clock = asyncio.get_running_loop().time
            while True:
                await self.enrolled()
                left_s = self.engine.inbox.subscription.arrived_s + quiet_s - clock()
                if self.engine.inbox.subscription.is_answered and left_s <= 0:
                    return
                await asyncio.sleep(max(left_s, quiet_s / 4))

        await self._within(wait(), "receive", wait_s)

    async def _until(self, condition: Callable[[], bool], what: str, wait_s: float | None) -> None:
        async def wait() -> None:
            while not condition():
                await self.engine.changed.wait()

        await self._within(wait(), what, wait_s)

    async def _within(self, awaitable: Awaitable[T], what: str, wait_s: float | None) -> T:
        loop_task = self._task
        assert loop_task is not None, "the engine was asked for before"
        waiting = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({waiting, loop_task}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if loop_task.done():
                # Whoever waits must not wait for ever when the loop has failed.
                loop_task.result()
                raise Unknown(what, "the device was stopped")
        finally:
            waiting.cancel()
        last = self.engine.last_error
        raise Unknown(what, str(last) if last else f"no answer within {wait_s} s")

    # Sending

    def compose(
        self,
        kind: ContentKind,
        payload: bytes,
        to: Sequence[str] = (),
        reply_to: bytes = NO_REPLY,
        message_id: bytes | None = None,
    ) -> Content:
        """A message, written now.

        Args:
            kind: email, chat or ping.
            payload: by kind; an email without Bcc fields (client/mail.py).
            to: the accounts that may be shown as its recipients: To and Cc.
            reply_to: the message that it answers.
            message_id: 16 bytes; random if not given.
        """
        message_id = message_id or self.state.random(ID_BYTES)
        return Content(NO_REPLY, kind, message_id, self.state.now_ms, reply_to, tuple(to), payload)

    async def send(
        self,
        content: Content,
        to: Sequence[str],
        bcc: Sequence[str] = (),
        *,
        expiry_s: int | None = None,
        wait_s: float | None = None,
    ) -> tuple[HeldReceipt, ...]:
        """Send a message to every device of every recipient, and to the own other devices.

        Durable in the outbox before this first waits. Returns when the relay's receipts for all are in and verified.

        Args:
            content: from `compose`.
            to: recipients that may be shown.
            bcc: recipients that are shown to nobody but the own devices.
            expiry_s: how long the relay keeps it; at most 30 days.
            wait_s: how long to wait for receipts.

        Raises:
            FormatError: an address, or a limit; nothing is sent.
            NotEnrolled: this device has no account.
            Alarm: a recipient's account key or list is not to be believed; nothing goes to that account.
            Refused: the relay refused definitely; other recipients may have it (see `status`).
            Expired: the time ran out.
            Unknown: not all receipts within `wait_s`; the outbox goes on.
        """
        names = self.post(content, to, bcc, expiry_s=expiry_s)
        engine = self.engine
        receipts = engine.collect(content.message_id)
        futures = [engine.future_of(name) for name in names]
        engine.wake()
        try:
            await self._within(_all(futures), f"message {content.message_id.hex()}", wait_s)
            return tuple(receipts)
        finally:
            for name in names:
                engine.forget_future(name)
            engine.forget_collection(content.message_id)

    def post(
        self, content: Content, to: Sequence[str], bcc: Sequence[str] = (), *, expiry_s: int | None = None
    ) -> tuple[bytes, ...]:
        """Put a message durably into the outbox and do not wait; `status` tells what became of it.

        Raises:
            FormatError, NotEnrolled, Alarm: as `send`.
        """
        engine, state = self.engine, self.state
        recipients = tuple(dict.fromkeys(check_account(address) for address in (*to, *bcc)))
        if not 1 <= len(recipients) <= AUDIENCE_MAX:
            raise FormatError("recipients", f"are {len(recipients)}", AUDIENCE_MAX)
        lifetime_s = state.settings.expiry_s if expiry_s is None else expiry_s
        if not 0 < lifetime_s <= EXPIRY_S_MAX:
            raise FormatError("expiry_s", f"is {lifetime_s}", EXPIRY_S_MAX)
        encode_content(content)
        for account in recipients:
            if (blocked := engine.outbox.blocked(account)) is not None:
                raise blocked
        others = [account for account in recipients if account != state.account]
        expiry = expiry_of(state.now_s, lifetime_s)
        names = []
        with self._store.step() as step:
            if others:
                names.append(engine.outbox.add(step, content, others, expiry))
            if len(state.own.entries) > 1:
                own = wrap_own_copy(content, recipients, NO_REPLY)
                names.append(engine.outbox.add(step, own, [state.account], expiry))
            sent = Sent(content.kind, recipients, content.sent_ms, tuple(names), False, (), ())
            step.put(Kind.SENT, content.message_id, encode(sent))
            if len(others) < len(recipients):
                self._keep_for_self(step, content)
        engine.wake()
        return tuple(names)

    def _keep_for_self(self, step: Step, content: Content) -> None:
        """A message to oneself is here already."""
        state = self.state
        name = kept_name(state.account, content.message_id)
        row = KeptRow(
            state.account,
            state.keys.public,
            content.kind,
            content.message_id,
            content.sent_ms,
            content.reply_to,
            content.audience,
            (),
            False,
            content.payload,
            0,
            len(content.payload),
            state.now_ms,
            state.next_order(),
            taken=False,
            read=False,
        )
        step.put(Kind.KEPT, name, encode(row))
        self.engine.inbox.untaken[name] = (row.order, content.kind)
        self.engine.arrived.set()

    def status(self, message_id: bytes) -> SentStatus | None:
        """What became of a message that this device sent, or None if it sent none of that id."""
        value = self._store.get(Kind.SENT, message_id)
        if value is None:
            return None
        sent = decode(Sent, value, "sent")
        return SentStatus(
            message_id,
            ContentKind(sent.kind),
            sent.recipients,
            sent.sent_ms,
            receipted=not sent.pending and not sent.failed,
            failed=sent.failed,
            delivered_to=sent.delivered_to,
            read_by=sent.read_by,
        )

    def receipts_of(self, message_id: bytes) -> tuple[HeldReceipt, ...]:
        """The receipts that are kept for a message."""
        return tuple(held for held in self.state.evidence.held() if held.message_id == message_id)

    async def withdraw(self, message_id: bytes, wait_s: float | None = None) -> int:
        """Take a message back wherever nobody has fetched it yet; returns for how many envelopes it was asked.

        Raises:
            Unknown: no answer within `wait_s` seconds; ask again.
        """
        engine = self.engine
        pairs = engine.submits.withdraw(engine.outbox.names_of(message_id))
        with self._store.step() as step:
            engine.outbox.withdraw(step, message_id)
        pairs += [(held.mailbox, held.token) for held in self.receipts_of(message_id)]
        by_mailbox: dict[bytes, list[bytes]] = {}
        for mailbox, token in pairs:
            by_mailbox.setdefault(mailbox, []).append(token)
        asked = []
        for mailbox, all_tokens in by_mailbox.items():
            for start in range(0, len(all_tokens), TOKENS_PER_ACK_MAX):
                tokens = tuple(all_tokens[start : start + TOKENS_PER_ACK_MAX])
                asked.append(engine.ask("withdraw", _withdraw(mailbox, tokens)))
        await self._within(_all(asked), "withdraw", wait_s)
        with self._store.step() as step:
            for held in self.receipts_of(message_id):
                self.state.evidence.keep(step, replace(held, withdrawn=True))
        return len(pairs)

    # Receiving

    async def receive(
        self,
        wait_s: float = 0.0,
        *,
        take: bool = True,
        messages_max: int = 256,
        kinds: Collection[ContentKind] = frozenset(ContentKind),
    ) -> list[Message]:
        """Messages that have arrived and were not taken yet, in the order of their arrival.

        Args:
            wait_s: how long to wait for the first one, in seconds.
            take: mark them as taken before they are returned, so that they are never returned again; without it, call
                `mark_taken` once they are safe (a crash between the two returns them again; they are named by sender
                and message id).
            messages_max: how many at most.
            kinds: leave messages of other kinds where they are.
        """
        if wait_s > 0:
            with suppress(Unknown):
                await self._within(self._arrival(kinds), "receive", wait_s)
        names = self._untaken(kinds)
        messages = [message for message in map(self._message, names[:messages_max]) if message is not None]
        if take:
            self.mark_taken(messages)
        return messages

    async def _arrival(self, kinds: Collection[ContentKind]) -> None:
        while not self._untaken(kinds):
            self.engine.arrived.clear()
            await self.engine.arrived.wait()

    def _untaken(self, kinds: Collection[ContentKind]) -> list[bytes]:
        untaken = self.engine.inbox.untaken
        return sorted((name for name, (_order, kind) in untaken.items() if kind in kinds), key=untaken.__getitem__)

    def mark_taken(self, messages: Iterable[Message]) -> None:
        """These are safe with the program; `receive` returns them no more. They stay kept."""
        with self._store.step() as step:
            for message in messages:
                name = kept_name(message.account, message.message_id)
                value = self._store.get(Kind.KEPT, name)
                if value is not None:
                    step.put(Kind.KEPT, name, encode(replace(decode(KeptRow, value, "kept"), taken=True)))
        for message in messages:
            self.engine.inbox.untaken.pop(kept_name(message.account, message.message_id), None)

    def mark_read(self, messages: Iterable[Message]) -> None:
        """The person has read these: senders get an R notice, once."""
        by_account: dict[str, list[bytes]] = {}
        with self._store.step() as step:
            for message in messages:
                name = kept_name(message.account, message.message_id)
                value = self._store.get(Kind.KEPT, name)
                row = decode(KeptRow, value, "kept") if value is not None else None
                if row is None or row.read or row.own_copy or row.account == self.state.account:
                    continue
                step.put(Kind.KEPT, name, encode(replace(row, read=True)))
                by_account.setdefault(row.account, []).append(row.message_id)
            for account, message_ids in by_account.items():
                self.engine.inbox.notify(step, ContentKind.READ, account, message_ids)
        self.engine.wake()

    def kept(self) -> list[Message]:
        """Every message that is kept, taken or not, in the order of arrival. Large payloads are read as well."""
        rows = [(decode(KeptRow, value, "kept").order, name) for name, value in self._store.items(Kind.KEPT)]
        return [message for message in map(self._message, [name for _order, name in sorted(rows)]) if message]

    def message_ids(self, digits: str) -> list[bytes]:
        """Ids of messages that were kept or sent here and begin with these hexadecimal digits, as people quote them."""
        kept = {name[-ID_BYTES:] for name, _value in self._store.items(Kind.KEPT)}
        sent = {name for name, _value in self._store.items(Kind.SENT)}
        return sorted(message_id for message_id in kept | sent if message_id.hex().startswith(digits))

    def erase(self, messages: Iterable[Message]) -> None:
        """Erase kept messages from this home."""
        with self._store.step() as step:
            for message in messages:
                name = kept_name(message.account, message.message_id)
                value = self._store.get(Kind.KEPT, name)
                if value is None:
                    continue
                for index in range(min(decode(KeptRow, value, "kept").pieces, CHUNKS_MAX)):
                    step.delete(Kind.PIECE, name + index.to_bytes(4, "big"))
                step.delete(Kind.KEPT, name)

    def _message(self, name: bytes) -> Message | None:
        value = self._store.get(Kind.KEPT, name)
        if value is None:
            return None
        row = decode(KeptRow, value, "kept")
        return Message(
            row.account,
            row.device_key,
            ContentKind(row.kind),
            row.message_id,
            row.sent_ms,
            row.reply_to,
            row.audience,
            row.recipients,
            row.own_copy,
            payload_of(self.state, name, row),
            row.received_ms,
            row.read,
        )

    # People

    async def look_up(self, account: str, wait_s: float | None = None) -> PinnedAccount:
        """Ask the relay for an account's device list, check it, pin it at first contact.

        Raises:
            Refused: no such account, or this device may not ask.
            Alarm: the list is not to be believed.
            Unknown: no answer within `wait_s` seconds.
        """
        check_account(account)
        future = self.engine.ask(f"look up {account}", lambda ref: LookUp(ref, account, want_bundles=False))
        answer = await self._within(future, f"look up {account}", wait_s)
        assert isinstance(answer, DirectoryEvent), "a look-up is answered by a directory"
        outbox = self.engine.outbox
        if not outbox.on_list(account, answer.signed_list):
            blocked = outbox.blocked(account)
            assert blocked is not None, "a list that is not believed blocks its account"
            raise blocked
        known = self.state.pins.get(account)
        assert known is not None, "a list that is believed is pinned"
        return known

    def safety_number(self, account: str) -> str:
        """The 60 digits to compare with that person, out of band; then `mark_compared`.

        Raises:
            Unknown: nothing is known of that account yet: look it up, or write to it, first.
        """
        known = self.state.pins.get(check_account(account))
        if known is None:
            raise Unknown(f"safety number of {account}", "this account was never looked up")
        return safety_number(self.state.account, self.state.own.pin.account_key, account, known.pin.account_key)

    def mark_compared(self, account: str) -> None:
        """The safety number was compared and is right."""
        with self._store.step() as step:
            self.state.pins.mark_compared(step, account)

    def trust_new_key(self, account: str) -> None:
        """The person accepts that this account's key changed: its next key is pinned, and what waits goes on."""
        known = self.state.pins.get(account)
        with self._store.step() as step:
            if known is not None:
                self.state.sessions.drop(step, account, {entry.device_key for entry in known.entries})
            self.state.pins.forget(step, account)
        self.engine.outbox.unblock(account)
        self.engine.inbox.resolve_all()
        self.engine.wake()

    # Several devices

    def request_text(self) -> str:
        """The request of this device, to be carried to the account's first device."""
        return request_text(self.state.keys)

    def request_fingerprint(self) -> str:
        """25 digits, the same that `approve`'s caller sees with `fingerprint_of_request`."""
        return request_fingerprint(self.state.keys.entry)

    @staticmethod
    def fingerprint_of_request(text: str) -> str:
        """The digits of a request, to be compared before it is approved.

        Raises:
            FormatError, SignatureError: not a genuine request.
        """
        return request_fingerprint(read_request(text))

    async def approve(self, request: str, wait_s: float | None = None) -> str:
        """Certify a further device: publish the next list; returns the approval to carry back.

        Raises:
            FormatError, SignatureError: not a genuine request, or a device that is on the list in another form.
            NotEnrolled: the account key is not here.
            Unknown: the relay has not answered within `wait_s` seconds; the list is published when it does.
        """
        entry = read_request(request)
        if self.state.own.devices.entry_of(entry.device_key) == entry:
            signed = self.state.own_list
        else:
            signed = self.engine.enrolment.next_list([*self.state.own.entries, entry])
        await self._published(wait_s)
        return approval_text(signed)

    async def remove_device(self, device_key: bytes, wait_s: float | None = None) -> None:
        """Take a device off the account's list; its mailbox is closed.

        Raises:
            FormatError: no such device, or this one.
            NotEnrolled: the account key is not here.
            Unknown: the relay has not answered within `wait_s` seconds.
        """
        if device_key == self.state.keys.public:
            raise FormatError("device key", "is this device's own")
        rest: list[DeviceEntry] = [entry for entry in self.state.own.entries if entry.device_key != device_key]
        if len(rest) == len(self.state.own.entries):
            raise FormatError("device key", "is on no device of this account")
        self.engine.enrolment.next_list(rest)
        await self._published(wait_s)

    async def _published(self, wait_s: float | None) -> None:
        self.engine.outbox.touch(self.state.account)
        self.engine.wake()
        await self._until(lambda: self.engine.enrolment.list_is_published, "publish device list", wait_s)

    def accept(self, approval: str) -> str:
        """Take the approval of this device: pins the account; returns it. Prekeys follow when it is connected.

        Raises:
            FormatError: not an approval, or of another device.
            SignatureError, Alarm: the list is not to be believed.
        """
        signed = read_approval(approval)
        state = self.state
        fresh = Pins(self._store).check(signed, _account_of(signed))
        account = _account_of(signed)
        if fresh is None or fresh.devices.entry_of(state.keys.public) != state.keys.entry:
            raise FormatError("device approval", "does not name this device and its keys")
        if state.device.account not in {"", account}:
            raise FormatError("device approval", "is of another account")
        with self._store.step() as step:
            state.pins.adopt(step, fresh, state.now_s)
            state.put_device(step, replace(state.device, account=account))
        if self._engine is not None:
            self._engine.link.connect(asyncio.get_running_loop().time())
            self._engine.enrolment.sweep()
            self._engine.wake()
        return account

    # What the person must be told

    def notices(self) -> list[Notice]:
        """Alarms and failures that nobody was waiting for, oldest first."""
        rows = sorted(self._store.items(Kind.NOTICE))
        notices = [(name, decode(NoticeRow, value, "notice")) for name, value in rows]
        return [Notice(name, row.kind, row.text, row.message_id, row.accounts, row.time_s) for name, row in notices]

    def clear_notices(self, notices: Iterable[Notice]) -> None:
        """The person has been told."""
        with self._store.step() as step:
            for notice in notices:
                step.delete(Kind.NOTICE, notice.name)


async def _all(futures: "Iterable[asyncio.Future[T]]") -> None:
    await asyncio.gather(*futures)


def _withdraw(mailbox: bytes, tokens: tuple[bytes, ...]) -> Callable[[int], Withdraw]:
    return lambda ref: Withdraw(ref, mailbox, tokens)


def _account_of(signed: SignedList) -> str:
    return verify_signed_list(signed).account


def _pin_own(store: Store, step: Step, signed: SignedList, now_s: int) -> None:
    pins = Pins(store)
    fresh = pins.check(signed, _account_of(signed))
    assert fresh is not None, "a first list is new"
    pins.adopt(step, fresh, now_s)
