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

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client import kept, own_devices, own_record, people, receiving, sending
from client.beginning import make_first, make_further
from client.content import NO_REPLY, Content
from client.content import Kind as ContentKind
from client.engine import Engine
from client.enrolment import read_request, request_fingerprint, request_text
from client.home import Fault, open_home
from client.message import Message, Notice, SentStatus
from client.pins import PinnedAccount
from client.records import HeldReceipt
from client.running import Running
from client.state import Settings, State, Surroundings
from client.store import Store
from client.transport import Transport
from keys.vault import STANDARD, Cost
from wire.card import RelayCard
from wire.held import Held
from wire.identity import Token
from wire.limits import ID_BYTES

__all__ = ["Device"]


class Device:
    """One device of an account. Made by `new`, `request` or `open`; used inside `async with`.

    Args:
        store: its open store.
        settings: how it behaves.
        surroundings: clock and randomness.
        transport: how packets travel; without one, as the home says (client/route.py).
    """

    def __init__(
        self, store: Store, settings: Settings, surroundings: Surroundings, transport: Transport | None = None
    ) -> None:
        self._running = Running(store, settings, surroundings, transport)

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
            transport: how packets travel; without one, as the home says (client/route.py).
            cost: what one try of a passphrase costs.
            fault: for tests of crashes; see `Store`.

        Raises:
            FormatError: the token is malformed.
            HomeInvalid: the folder is a home already.
        """
        surroundings = surroundings or Surroundings()
        store = make_first(home, card, token, passphrase, surroundings, cost, fault)
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
        store = make_further(home, card, passphrase, surroundings, cost, fault)
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
        return self._running.state

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
        return self._running.engine

    async def __aenter__(self) -> Self:
        self._running.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.stop()

    def close(self) -> None:
        """Let go of the home; the context does it by itself."""
        self._running.store.close()

    async def crash(self) -> None:
        """Stop without writing anything more, as a kill would; for tests of crashes."""
        await self._running.crash()

    # Waiting

    async def linked(self, wait_s: float | None = None) -> None:
        """Wait until a link stands.

        Raises:
            Unknown: not within `wait_s` seconds; it says what went wrong last.
        """
        await self._running.until(lambda: self.engine.link.up, "link", wait_s)

    async def enrolled(self, wait_s: float | None = None) -> None:
        """Wait until the relay knows this device.

        Raises:
            Refused: the relay refused the enrolment.
            Unknown: not within `wait_s` seconds.
        """
        await self._running.until(self._running.is_enrolled, "enrol", wait_s)

    async def idle(self, wait_s: float | None = None) -> None:
        """Wait until the outbox is empty: every message, and every D and R notice, has its receipts.

        Raises:
            Unknown: not within `wait_s` seconds.
        """
        await self._running.until(lambda: not self.engine.outbox.outgoing, "send", wait_s)

    async def caught_up(self, quiet_s: float = 1.0, wait_s: float | None = None) -> None:
        """Wait until a link stands and nothing was delivered for `quiet_s` seconds.

        The relay does not say when its backlog is over; a chunk that is lost on the way comes again after 5 s, and is
        then taken by the next call.

        Raises:
            Refused: the relay refused the enrolment.
            Unknown: not within `wait_s` seconds.
        """
        await self._running.within(self._running.quiet(quiet_s), "receive", wait_s)

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
        return await sending.send(self._running, content, to, bcc, expiry_s, wait_s)

    def post(
        self, content: Content, to: Sequence[str], bcc: Sequence[str] = (), *, expiry_s: int | None = None
    ) -> tuple[bytes, ...]:
        """Put a message durably into the outbox and do not wait; `status` tells what became of it.

        Raises:
            FormatError, NotEnrolled, Alarm: as `send`.
        """
        return sending.post(self.engine, content, to, bcc, expiry_s)

    def status(self, message_id: bytes) -> SentStatus | None:
        """What became of a message that this device sent, or None if it sent none of that id."""
        return sending.status_of(self._running.store, message_id)

    def receipts_of(self, message_id: bytes) -> tuple[HeldReceipt, ...]:
        """The receipts that are kept for a message."""
        return sending.receipts_of(self.state, message_id)

    async def withdraw(self, message_id: bytes, wait_s: float | None = None) -> int:
        """Take a message back wherever nobody has fetched it yet; returns for how many envelopes it was asked.

        Raises:
            Unknown: no answer within `wait_s` seconds; ask again.
        """
        return await sending.withdraw(self._running, message_id, wait_s)

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
        return await receiving.receive(self._running, wait_s, take=take, messages_max=messages_max, kinds=kinds)

    def mark_taken(self, messages: Iterable[Message]) -> None:
        """These are safe with the program; `receive` returns them no more. They stay kept."""
        receiving.mark_taken(self._running, messages)

    def mark_read(self, messages: Iterable[Message]) -> None:
        """The person has read these: senders get an R notice, once."""
        receiving.mark_read(self._running, messages)

    def kept(self) -> list[Message]:
        """Every message that is kept, taken or not, in the order of arrival. Large payloads are read as well."""
        return kept.all_messages(self.state)

    def message_ids(self, digits: str) -> list[bytes]:
        """Ids of messages that were kept or sent here and begin with these hexadecimal digits, as people quote them."""
        return kept.message_ids(self._running.store, digits)

    def erase(self, messages: Iterable[Message]) -> None:
        """Erase kept messages from this home."""
        with self._running.store.step() as step:
            kept.erase(step, self._running.store, messages)

    # People

    async def look_up(self, account: str, wait_s: float | None = None) -> PinnedAccount:
        """Ask the relay for an account's device list, check it, pin it at first contact.

        Raises:
            Refused: no such account, or this device may not ask.
            Alarm: the list is not to be believed.
            Unknown: no answer within `wait_s` seconds.
        """
        return await people.look_up(self._running, account, wait_s)

    def safety_number(self, account: str) -> str:
        """The 60 digits to compare with that person, out of band; then `mark_compared`.

        Raises:
            Unknown: nothing is known of that account yet: look it up, or write to it, first.
        """
        return people.safety_number_of(self.state, account)

    def mark_compared(self, account: str) -> None:
        """The safety number was compared and is right."""
        with self._running.store.step() as step:
            self.state.pins.mark_compared(step, account)

    def trust_new_key(self, account: str) -> None:
        """The person accepts that this account's key changed: its next key is pinned, and what waits goes on."""
        people.trust_new_key(self._running, account)

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
        return await own_devices.approve(self._running, request, wait_s)

    async def remove_device(self, device_key: bytes, wait_s: float | None = None) -> None:
        """Take a device off the account's list; its mailbox is closed.

        Raises:
            FormatError: no such device, or this one.
            NotEnrolled: the account key is not here.
            Unknown: the relay has not answered within `wait_s` seconds.
        """
        await own_devices.remove(self._running, device_key, wait_s)

    def accept(self, approval: str) -> str:
        """Take the approval of this device: pins the account; returns it. Prekeys follow when it is connected.

        Raises:
            FormatError: not an approval, or of another device.
            SignatureError, Alarm: the list is not to be believed.
        """
        return own_devices.accept(self._running, approval)

    # What is held

    async def held_record(self, wait_s: float | None = None) -> Held:
        """All that the relay holds about this account, as an authority would get it (wire/held.py, docs/orders.md).

        Raises:
            NotEnrolled: this device has no account yet.
            Refused: this device may not ask, or the record is larger than 64 MiB.
            RecordFalse: what came is not a record of this account and device.
            Unknown: not within `wait_s` seconds; the relay gives an account one record each 10 s.
        """
        return await own_record.own_record(self._running, wait_s)

    # What the person must be told

    def notices(self) -> list[Notice]:
        """Alarms and failures that nobody was waiting for, oldest first."""
        return self.state.notices.held()

    def clear_notices(self, notices: Iterable[Notice]) -> None:
        """The person has been told."""
        with self._running.store.step() as step:
            self.state.notices.clear(step, notices)
