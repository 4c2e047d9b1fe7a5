"""Mail on its way in: open, keep, remember, and only then acknowledge (protocol.md sections 4.3, 5.3, 6.3 and 7).

    delivery ──▶ seen before: ack again (client/acks.py)
             ├─▶ a chunk of a manifest that is known ──▶ client/downloads.py
             ├─▶ opens in a session ──▶ by kind: kept, D and R noted, manifest, own copy     one step with the ratchet's
             └─▶ does not open (yet): client/unresolved.py, tried again when sessions or           move and 'seen'
                 manifests come, or the relay's answer about an account that is not known

How far delivery has come is client/subscription.py's, the rows of messages are client/kept.py's. Rules:

* plaintext, ratchet step and 'seen' mark are one step; the ack leaves after it. A crash before it gets the envelope
  again; a crash after it finds the mark, and acks again;
* a message is kept once, by sender account and message id, whatever envelopes carry it;
* what cannot be opened is never acked, because an ack needs the token inside it; delivery moves past it, and it stays
  at the relay until its expiry;
* the first message of an account that is not pinned is accepted only when the relay's directory shows the same account
  key for it; until then nothing moves, and what the directory does not confirm is left to its expiry;
* nothing that a peer writes is believed beyond its own account: own copies come from own devices only, D and R count
  for messages that were sent to that account.
"""

from hashlib import sha256

from msgspec.structs import replace

from client.acks import Acks
from client.chat import notice_ids, notice_payloads
from client.content import NO_REPLY, Content, decode_content, unwrap_own_copy
from client.content import Kind as ContentKind
from client.downloads import Downloads
from client.errors import Alarm, BodyChanged, FirstContactRefused
from client.first_contacts import FirstContacts
from client.kept import SHOWN_KINDS, Untaken, is_kept, kept_name, put_kept, read_untaken
from client.link import DeliveryEvent, DirectoryEvent, Link, RefusedEvent
from client.outbox import Outbox, expiry_of
from client.pins import PinnedAccount
from client.records import BodyPin, Sent
from client.sessions import ContactUnknown, Unopened
from client.state import State
from client.store import Kind, Step
from client.subscription import Subscription
from client.unresolved import UnresolvedMail
from wire.codec import decode, encode
from wire.commands import Delivered
from wire.errors import BlindpostError, FormatError, RefusalCode
from wire.identity import SignedList
from wire.limits import CLOCK_SKEW_S, ID_BYTES

__all__ = ["Inbox"]


class Inbox:
    """The incoming side of a device.

    Args:
        state: the device's state.
        link: where acks and subscriptions are asked.
        outbox: where D notices go.
    """

    def __init__(self, state: State, link: Link, outbox: Outbox) -> None:
        self._state = state
        self._outbox = outbox
        self.downloads = Downloads(state)
        self.untaken: Untaken = read_untaken(state.store)
        self._unresolved = UnresolvedMail(state)
        self._acks = Acks(state, link)
        self.subscription = Subscription(state, link, self._unresolved)
        self.contacts = FirstContacts(link, self._unresolved.contacts())
        self._confirm: dict[str, list[bytes]] = {}

    # Delivery

    def subscribe(self, now_s: float) -> None:
        """Ask for everything above the cursor; also the question whether the link still stands."""
        self.subscription.ask(now_s)

    def begin(self, now_s: float) -> None:
        """A new link stands: go on from the cursor, repeat acks that were not answered."""
        self.subscription.begin(now_s)
        self._acks.send_again()

    def on_done(self, ref: int) -> None:
        """An ack was answered: its row goes away with the next step."""
        self._acks.on_done(ref)

    def on_refused(self, event: RefusedEvent, now_s: float) -> bool:
        """A subscription was refused, or a look-up of an account that wrote first; False if it was none of these.

        Of a subscription it says that the account's list names this device no more.
        """
        account = self.contacts.answered(event.ref)
        if account is None:
            return self.subscription.on_refused(event)
        if event.code is RefusalCode.UNKNOWN_ACCOUNT:
            self._decide(account, None, now_s)
        return True

    def on_directory(self, event: DirectoryEvent, now_s: float) -> bool:
        """The answer about an account that wrote for the first time; False if that was not asked here."""
        account = self.contacts.answered(event.ref)
        if account is None:
            return False
        self._decide(account, event.signed_list, now_s)
        return True

    def on_delivery(self, event: DeliveryEvent, now_s: float) -> bool:
        """Take envelopes of the mailbox; whether there is anything new for the person.

        Raises:
            StoreFailed: nothing of it was kept; the relay delivers again.
        """
        if event.mailbox != self._state.keys.mailbox:
            return False
        before = len(self.untaken)
        acks: dict[bytes, bytes] = {}
        with self._state.store.step() as step:
            self._acks.forget_done(step)
            self._resolve_pinned(step, acks)
            for delivered in event.envelopes:
                self._deliver(step, delivered, acks)
            self._resolve(step, acks)
            self._send_confirmations(step)
        self._acks.send(acks)
        self.contacts.ask_due(now_s)
        self.subscription.move_on(now_s)
        return len(self.untaken) > before

    def _deliver(self, step: Step, delivered: Delivered, acks: dict[bytes, bytes]) -> None:
        envelope_id = delivered.envelope_id
        self.subscription.note(delivered.number)
        seen = self._acks.seen(step, envelope_id)
        if seen is not None:
            if seen.token != NO_REPLY:
                acks[envelope_id] = seen.token
            return
        if envelope_id in self._unresolved:
            return
        try:
            if not self._open(step, delivered.envelope_id, delivered.expiry, delivered.body, acks):
                self._unresolved.put(step, delivered)
        except ContactUnknown as unknown:
            self._unresolved.put(step, delivered, unknown.account, unknown.account_key)
            self.contacts.want(unknown.account)

    def _open(self, step: Step, envelope_id: bytes, expiry: int, body: bytes, acks: dict[bytes, bytes]) -> bool:
        """Open and keep; False if it stays unresolved.

        Raises:
            ContactUnknown: a first message of an account that is not pinned; nothing has moved.
        """
        pin = self._state.store.get(Kind.BODY_PIN, envelope_id)
        if pin is not None and decode(BodyPin, pin, "body pin").body_hash != sha256(body).digest():
            self._state.put_notice(step, BodyChanged(envelope_id))
            return False
        found = self.downloads.find(body)
        if found is not None:
            token = self._chunk(step, found, envelope_id, body)
            if token is not None:
                self._mark_seen(step, envelope_id, expiry, token, acks)
            return token is not None
        try:
            opened = self._state.sessions.open(step, body, envelope_id)
        except Unopened:
            return False
        except Alarm as alarm:
            # Anybody can send a false list of a known account: the pinned key stays in force, and it is told once.
            account = getattr(alarm, "account", "")
            self._state.put_notice_once(step, alarm, (account,) if account else ())
            return False
        try:
            content = decode_content(opened.content)
            if content.envelope_id != envelope_id:
                raise FormatError("token", "is not the one that names the envelope")
        except FormatError as error:
            # It authenticated, so a known device made it, wrongly. Without its token it cannot be acked.
            self._state.put_notice(step, error, accounts=(opened.account,))
            self._mark_seen(step, envelope_id, expiry, NO_REPLY, acks)
            return True
        self._mark_seen(step, envelope_id, expiry, content.token, acks)
        try:
            self._take(step, opened.account, opened.device_key, content, expiry, acks)
        except FormatError as error:
            self._state.put_notice(step, error, content.message_id, (opened.account,))
        return True

    def _mark_seen(self, step: Step, envelope_id: bytes, expiry: int, token: bytes, acks: dict[bytes, bytes]) -> None:
        self._acks.mark_seen(step, envelope_id, expiry, token)
        if token != NO_REPLY:
            acks[envelope_id] = token
        self._unresolved.forget(step, envelope_id)

    # By kind

    def _take(
        self, step: Step, account: str, device_key: bytes, content: Content, expiry: int, acks: dict[bytes, bytes]
    ) -> None:
        match content.kind:
            case ContentKind.MANIFEST:
                self._manifest(step, account, device_key, content, expiry, acks)
            case ContentKind.OWN_COPY:
                if account != self._state.account:
                    raise FormatError("own_copy", f"came from {account}, which is another account")
                inner, recipients = unwrap_own_copy(content)
                self._keep(step, account, device_key, inner, recipients=recipients, own_copy=True)
            case ContentKind.DELIVERED | ContentKind.READ:
                self._note(step, account, content)
            case ContentKind.RENEWAL:
                pass  # the session that it began is its whole meaning
            case _:
                self._keep(step, account, device_key, content)

    def _keep(
        self,
        step: Step,
        account: str,
        device_key: bytes,
        content: Content,
        *,
        recipients: tuple[str, ...] = (),
        own_copy: bool = False,
        pieces: int = 0,
        size: int | None = None,
    ) -> None:
        if content.kind not in SHOWN_KINDS:
            raise FormatError("kind", f"{content.kind.name.lower()} is not a message to be shown")
        name = kept_name(account, content.message_id)
        if self._is_kept(name):
            return
        row = put_kept(
            step,
            self._state,
            account,
            device_key,
            content,
            recipients=recipients,
            own_copy=own_copy,
            pieces=pieces,
            size=size,
        )
        self.untaken[name] = (row.order, content.kind)
        if content.kind in self._state.settings.delivered_kinds and not own_copy:
            self._confirm.setdefault(account, []).append(content.message_id)

    def _is_kept(self, name: bytes) -> bool:
        return name in self.untaken or is_kept(self._state.store, name)

    def _note(self, step: Step, account: str, content: Content) -> None:
        for message_id in notice_ids(content):
            value = step.changes.get((Kind.SENT, message_id)) or self._state.store.get(Kind.SENT, message_id)
            if value is None:
                continue
            sent = decode(Sent, value, "sent")
            if account not in sent.recipients:
                continue
            delivered, read = {*sent.delivered_to, account}, set(sent.read_by)
            if content.kind is ContentKind.READ:
                read.add(account)
            sent = replace(sent, delivered_to=tuple(sorted(delivered)), read_by=tuple(sorted(read)))
            step.put(Kind.SENT, message_id, encode(sent))

    def _send_confirmations(self, step: Step) -> None:
        """D notices, in the step that keeps what they confirm: they are sent if, and only if, it is kept."""
        confirm, self._confirm = self._confirm, {}
        for account, message_ids in confirm.items():
            self.notify(step, ContentKind.DELIVERED, account, message_ids)

    def notify(self, step: Step, kind: ContentKind, account: str, message_ids: list[bytes]) -> None:
        """Put D or R notices into the outbox, within a step."""
        state = self._state
        for payload in notice_payloads(message_ids):
            content = Content(NO_REPLY, kind, state.random(ID_BYTES), state.now_ms, NO_REPLY, (), payload)
            self._outbox.add(step, content, [account], expiry_of(state.now_s, state.settings.expiry_s))

    # Large messages

    def _manifest(
        self, step: Step, account: str, device_key: bytes, content: Content, expiry: int, acks: dict[bytes, bytes]
    ) -> None:
        name = kept_name(account, content.message_id)
        if self._is_kept(name):
            return
        self.downloads.begin(step, name, account, device_key, content, expiry)
        refetch = 0
        for slot in self.downloads.slots(name):
            found = self._unresolved.at_slot(slot)
            if found is None:
                continue
            envelope_id, waiting = found
            row = self._unresolved.row_of(step, envelope_id) if waiting.kept else None
            if row is not None:
                self._open(step, envelope_id, row.expiry, row.body, acks)
            else:
                # Beyond the bound its body was left to the relay: fetch it again.
                refetch = min(refetch or waiting.number, waiting.number)
                self._unresolved.forget(step, envelope_id)
        if refetch:
            self.subscription.fetch_again(step, refetch)

    def _chunk(self, step: Step, found: tuple[bytes, int], envelope_id: bytes, body: bytes) -> bytes | None:
        name, index = found
        try:
            token = self.downloads.take(step, name, index, envelope_id, body)
        except BlindpostError:
            return None
        if self.downloads.is_whole(name):
            try:
                whole = self.downloads.finish(step, name)
                self._keep(
                    step,
                    whole.account,
                    whole.device_key,
                    whole.content,
                    recipients=whole.recipients,
                    own_copy=whole.own_copy,
                    pieces=whole.pieces,
                    size=whole.size,
                )
            except FormatError as error:
                self._state.put_notice(step, error, name[-ID_BYTES:])
        return token

    # What does not open (yet)

    def _resolve(self, step: Step, acks: dict[bytes, bytes], *, everything: bool = False) -> None:
        """Try unresolved mail again whose session is known by now."""
        for envelope_id, waiting in self._unresolved.kept_here(everything=everything):
            if not everything and not self._state.sessions.knows(waiting.head):
                continue
            self._try_again(step, envelope_id, acks)

    def _try_again(self, step: Step, envelope_id: bytes, acks: dict[bytes, bytes]) -> None:
        row = self._unresolved.row_of(step, envelope_id)
        if row is None:
            return
        try:
            self._open(step, envelope_id, row.expiry, row.body, acks)
        except ContactUnknown as unknown:
            self._unresolved.wait_for(step, envelope_id, unknown.account, unknown.account_key)
            self.contacts.want(unknown.account)

    def resolve_all(self) -> None:
        """Try all unresolved mail again: the person trusts a new account key now."""
        acks: dict[bytes, bytes] = {}
        with self._state.store.step() as step:
            self._resolve(step, acks, everything=True)
            self._send_confirmations(step)
        self._acks.send(acks)

    # First contact

    def _decide(self, account: str, signed: SignedList | None, now_s: float) -> None:
        """What the relay says of an account decides about its first messages; `signed` is None where it has none."""
        acks: dict[bytes, bytes] = {}
        with self._state.store.step() as step:
            waiting = self._unresolved.of_contact(account)
            if self._state.pins.get(account) is None:
                listed = self._listed(account, signed)
                key = b"" if listed is None else listed.pin.account_key
                for envelope_id, first in waiting:
                    if first.contact_key != key:
                        self._unresolved.refuse(step, envelope_id)
                        self._state.put_notice_once(step, FirstContactRefused(account), (account,))
                if listed is not None and any(first.contact_key == key for _envelope_id, first in waiting):
                    self._state.pins.adopt(step, listed, self._state.now_s)
            self._resolve_pinned(step, acks)
            self._resolve(step, acks)
            self._send_confirmations(step)
        self._acks.send(acks)
        self.contacts.ask_due(now_s)
        self.subscription.move_on(now_s)

    def _listed(self, account: str, signed: SignedList | None) -> PinnedAccount | None:
        """What the relay's directory says of an account that is not pinned; None also where it is no list of it."""
        try:
            return None if signed is None else self._state.pins.check(signed, account)
        except BlindpostError:
            return None

    def _resolve_pinned(self, step: Step, acks: dict[bytes, bytes]) -> None:
        """Open the first messages that waited for accounts which are pinned by now, in their order."""
        for account in self._unresolved.contacts():
            if self._state.pins.get(account) is None:
                continue
            refetch = 0
            for envelope_id, first in self._unresolved.of_contact(account):
                if first.kept and not refetch:
                    self._unresolved.wait_for(step, envelope_id, "", b"")
                    self._try_again(step, envelope_id, acks)
                else:
                    # Its body was left to the relay: it is fetched again, and what comes after it too, in its order.
                    refetch = refetch or first.number
                    self._unresolved.forget(step, envelope_id)
            if refetch:
                self.subscription.fetch_again(step, refetch)

    # Time

    def tick(self, now_s: float) -> None:
        """Do what is due by time: move past a stuck window, take sessions for lost."""
        self.contacts.ask_due(now_s)
        self.subscription.tick(now_s)
        self._unresolved.tick()

    def next_deadline_s(self) -> float | None:
        """When `tick` has something to do, in monotonic seconds."""
        deadlines = (self.subscription.next_deadline_s(), self.contacts.next_deadline_s())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def sweep(self, step: Step) -> None:
        """Forget what is over: seen marks, unresolved mail, incomplete messages."""
        now_s = self._state.now_s
        self._acks.sweep(step)
        self._unresolved.sweep(step)
        for envelope_id, value in self._state.store.items(Kind.BODY_PIN):
            if decode(BodyPin, value, "body pin").expiry + CLOCK_SKEW_S < now_s:
                step.delete(Kind.BODY_PIN, envelope_id)
        for incomplete in self.downloads.expired(step):
            self._state.put_notice(step, incomplete, incomplete.message_id, (incomplete.account,))
