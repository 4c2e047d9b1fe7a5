"""Mail on its way in: open, keep, remember, and only then acknowledge (protocol.md sections 4.3, 5.3, 6.3 and 7).

    delivery ──▶ seen before: ack again
             ├─▶ a chunk of a manifest that is known ──▶ client/downloads.py
             ├─▶ opens in a session ──▶ by kind: kept, D and R noted, manifest, own copy     one step with the ratchet's
             └─▶ does not open (yet): unresolved, tried again when sessions or manifests come      move and 'seen'

Rules:

* plaintext, ratchet step and 'seen' mark are one step; the ack leaves after it. A crash before it gets the envelope
  again; a crash after it finds the mark, and acks again;
* a message is kept once, by sender account and message id, whatever envelopes carry it;
* what cannot be opened is never acked, because an ack needs the token inside it; delivery moves past it, and it stays
  at the relay until its expiry. The cursor that outlives a restart moves only over numbers that were all accounted for;
* mail that no session opened for a while makes sessions stale, so that the next messages start new ones: who sent it is
  not known, as the body names no sender. At most once an hour, so that junk costs little;
* nothing that a peer writes is believed beyond its own account: own copies come from own devices only, D and R count
  for messages that were sent to that account.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from client.chat import notice_ids, notice_payloads
from client.content import NO_REPLY, Content, decode_content, unwrap_own_copy
from client.content import Kind as ContentKind
from client.downloads import Downloads
from client.errors import Alarm, BodyChanged, NotEnrolled
from client.link import DeliveryEvent, Link, RefusedEvent
from client.outbox import Outbox, expiry_of
from client.records import AckPending, BodyPin, KeptRow, Seen, Sent, Unresolved
from client.sessions import Unopened, has_chunk_length
from client.state import State
from client.store import Kind, Step
from wire.codec import decode, encode
from wire.commands import Ack, Delivered, Subscribe
from wire.errors import BlindpostError, FormatError
from wire.limits import CLOCK_SKEW_S, ID_BYTES, SEEN_S, TOKENS_PER_ACK_MAX

__all__ = ["SHOWN_KINDS", "Inbox", "kept_name"]

SHOWN_KINDS: Final = frozenset({ContentKind.EMAIL, ContentKind.CHAT, ContentKind.PING})
# What is needed of an unresolved body to look for its session again: slot, header and EK.
_HEAD_BYTES: Final = 160
# Reordered mail resolves by itself within this time; afterwards sessions are taken for lost.
_LOST_AFTER_S: Final = 60
_RENEW_EVERY_S: Final = 3_600
# Redeliveries come after 5 s: what is not here after this is not under way any more.
_IDLE_S: Final = 12.0


def kept_name(account: str, message_id: bytes) -> bytes:
    """The name of a kept message's row: who sent it, and its id."""
    return account.encode("ascii") + b"\0" + message_id


@dataclass(slots=True)
class _Waiting:
    """An unresolved envelope, as far as memory holds it."""

    number: int
    expiry: int
    head: bytes
    body_bytes: int
    kept: bool
    since_s: int
    chunk: bool


class Inbox:
    """The incoming side of a device.

    Args:
        state: the device's state.
        link: where acks and subscriptions are asked.
        outbox: where D notices go.
    """

    def __init__(self, state: State, link: Link, outbox: Outbox) -> None:
        self._state = state
        self._link = link
        self._outbox = outbox
        self.downloads = Downloads(state)
        self.untaken: dict[bytes, tuple[int, ContentKind]] = {}
        for name, value in state.store.items(Kind.KEPT):
            row = decode(KeptRow, value, "kept")
            if not row.taken:
                self.untaken[name] = (row.order, ContentKind(row.kind))
        self._waiting: dict[bytes, _Waiting] = {}
        self._by_slot: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        for envelope_id, value in state.store.items(Kind.UNRESOLVED):
            row_ = decode(Unresolved, value, "unresolved")
            self._remember(envelope_id, row_.number, row_.expiry, row_.slot, row_.body)
        self._acks: dict[bytes, bytes] = {
            envelope_id: decode(AckPending, value, "ack").token for envelope_id, value in state.store.items(Kind.ACK)
        }
        self._acked: dict[int, tuple[bytes, ...]] = {}
        self._acks_done: list[bytes] = []
        self._confirm: dict[str, list[bytes]] = {}
        self._after = state.meta.cursor
        self._floor = state.meta.cursor
        self._numbers: set[int] = set()
        self._newest = 0
        self._subscription: int | None = None
        self._refetch = False
        self._told_removed = False
        self._renewed_s = 0
        self._asked_s = float("-inf")
        self._arrived_s = float("-inf")

    # Delivery

    def subscribe(self, now_s: float) -> None:
        """Ask for everything above the cursor; also the question whether the link still stands."""
        if self._subscription is not None:
            self._link.settle(self._subscription)
        mailbox, after, credit = self._state.keys.mailbox, self._after, self._state.settings.credit
        self._subscription = self._link.ask(lambda ref: Subscribe(ref, mailbox, after, credit))
        self._asked_s = now_s

    def begin(self, now_s: float) -> None:
        """A new link stands: go on from the cursor, repeat acks that were not answered."""
        self._after = self._state.meta.cursor
        self._arrived_s = now_s
        self.subscribe(now_s)
        self._send_acks(dict(self._acks))

    @property
    def arrived_s(self) -> float:
        """When something was delivered last, or asked for, in monotonic seconds."""
        return self._arrived_s

    def on_done(self, ref: int) -> None:
        """An ack was answered: its row goes away with the next step."""
        done = self._acked.pop(ref, ())
        self._acks_done.extend(done)
        for envelope_id in done:
            self._acks.pop(envelope_id, None)

    def on_refused(self, event: RefusedEvent) -> bool:
        """The subscription was refused: the account's list names this device no more. False if it was none of these."""
        if event.ref != self._subscription:
            return False
        error = NotEnrolled(f"the relay does not deliver to this device any more ({event.code.name.lower()})")
        if not self._told_removed:
            self._told_removed = True
            with self._state.store.step() as step:
                self._state.put_notice(step, error)
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
            self._forget_acked(step)
            for delivered in event.envelopes:
                self._deliver(step, delivered, acks)
            self._resolve(step, acks)
            self._send_confirmations(step)
        self._send_acks(acks)
        self._arrived_s = now_s
        self._move_on(now_s)
        return len(self.untaken) > before

    def _deliver(self, step: Step, delivered: Delivered, acks: dict[bytes, bytes]) -> None:
        envelope_id = delivered.envelope_id
        self._newest = max(self._newest, delivered.number)
        self._numbers.add(delivered.number)
        seen = self._seen(step, envelope_id)
        if seen is not None:
            if seen.token != NO_REPLY:
                acks[envelope_id] = seen.token
            return
        if envelope_id in self._waiting:
            return
        if not self._open(step, delivered.envelope_id, delivered.expiry, delivered.body, acks):
            self._put_unresolved(step, delivered)

    def _open(self, step: Step, envelope_id: bytes, expiry: int, body: bytes, acks: dict[bytes, bytes]) -> bool:
        """Open and keep; False if it stays unresolved."""
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
            self._state.put_notice(step, alarm)
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

    def _seen(self, step: Step, envelope_id: bytes) -> Seen | None:
        value = step.changes.get((Kind.SEEN, envelope_id)) or self._state.store.get(Kind.SEEN, envelope_id)
        return None if value is None else decode(Seen, value, "seen")

    def _mark_seen(self, step: Step, envelope_id: bytes, expiry: int, token: bytes, acks: dict[bytes, bytes]) -> None:
        forget_s = max(self._state.now_s, expiry) + SEEN_S
        step.put(Kind.SEEN, envelope_id, encode(Seen(token, forget_s)))
        if token != NO_REPLY:
            step.put(Kind.ACK, envelope_id, encode(AckPending(token)))
            acks[envelope_id] = token
        self._forget(step, envelope_id)

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
        if name in self.untaken or self._state.store.get(Kind.KEPT, name) is not None:
            return
        row = KeptRow(
            account,
            device_key,
            content.kind,
            content.message_id,
            content.sent_ms,
            content.reply_to,
            content.audience,
            recipients,
            own_copy,
            content.payload,
            pieces,
            len(content.payload) if size is None else size,
            self._state.now_ms,
            self._state.next_order(),
            taken=False,
            read=False,
        )
        step.put(Kind.KEPT, name, encode(row))
        self.untaken[name] = (row.order, content.kind)
        if content.kind in self._state.settings.delivered_kinds and not own_copy:
            self._confirm.setdefault(account, []).append(content.message_id)

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
        if name in self.untaken or self._state.store.get(Kind.KEPT, name) is not None:
            return
        self.downloads.begin(step, name, account, device_key, content, expiry)
        refetch = 0
        for slot in self.downloads.slots(name):
            envelope_id = self._by_slot.get(slot)
            if envelope_id is None:
                continue
            waiting = self._waiting[envelope_id]
            value = self._state.store.get(Kind.UNRESOLVED, envelope_id)
            unresolved = step.changes.get((Kind.UNRESOLVED, envelope_id)) or value
            if waiting.kept and unresolved is not None:
                body = decode(Unresolved, unresolved, "unresolved").body
                self._open(step, envelope_id, waiting.expiry, body, acks)
            else:
                # Beyond the bound its body was left to the relay: fetch it again.
                refetch = min(refetch or waiting.number, waiting.number)
                self._forget(step, envelope_id)
        if refetch:
            self._after = min(self._after, refetch - 1)
            self._floor = min(self._floor, refetch - 1)
            self._numbers = {number for number in self._numbers if number < refetch}
            self._put_cursor(step, min(self._state.meta.cursor, refetch - 1))
            self._refetch = True

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

    def _put_unresolved(self, step: Step, delivered: Delivered) -> None:
        body = delivered.body
        if self._waiting_bytes + len(body) > self._state.settings.unresolved_bytes_max:
            body = b""
        slot = delivered.body[:ID_BYTES]
        row = Unresolved(delivered.number, delivered.expiry, slot, body)
        step.put(Kind.UNRESOLVED, delivered.envelope_id, encode(row))
        self._remember(delivered.envelope_id, delivered.number, delivered.expiry, slot, body)

    def _remember(self, envelope_id: bytes, number: int, expiry: int, slot: bytes, body: bytes) -> None:
        # Of a body that is left to the relay only the slot is known: it may be a chunk, and blames no session.
        chunk = not body or has_chunk_length(len(body))
        head = body[:_HEAD_BYTES] or slot
        self._waiting[envelope_id] = _Waiting(number, expiry, head, len(body), bool(body), self._state.now_s, chunk)
        self._by_slot[slot] = envelope_id
        self._waiting_bytes += len(body)
        self._numbers.add(number)

    def _forget(self, step: Step, envelope_id: bytes) -> None:
        waiting = self._waiting.pop(envelope_id, None)
        if waiting is None:
            return
        self._by_slot.pop(waiting.head[:ID_BYTES], None)
        self._waiting_bytes -= waiting.body_bytes
        step.delete(Kind.UNRESOLVED, envelope_id)

    def _resolve(self, step: Step, acks: dict[bytes, bytes], *, everything: bool = False) -> None:
        """Try unresolved mail again whose session is known by now."""
        for envelope_id, waiting in list(self._waiting.items()):
            if not waiting.kept or (waiting.chunk and not everything):
                continue
            if not everything and not self._state.sessions.knows(waiting.head):
                continue
            key = (Kind.UNRESOLVED, envelope_id)
            value = step.changes.get(key) or self._state.store.get(*key)
            if value is not None:
                row = decode(Unresolved, value, "unresolved")
                self._open(step, envelope_id, row.expiry, row.body, acks)

    def resolve_all(self) -> None:
        """Try all unresolved mail again: the person trusts a new account key now."""
        acks: dict[bytes, bytes] = {}
        with self._state.store.step() as step:
            self._resolve(step, acks, everything=True)
            self._send_confirmations(step)
        self._send_acks(acks)

    # Acks and the cursor

    def _send_acks(self, acks: dict[bytes, bytes]) -> None:
        self._acks.update(acks)
        pairs = list(acks.items())
        mailbox = self._state.keys.mailbox
        for start in range(0, len(pairs), TOKENS_PER_ACK_MAX):
            part = pairs[start : start + TOKENS_PER_ACK_MAX]
            tokens = tuple(token for _envelope_id, token in part)
            ref = self._link.ask(lambda ref, tokens=tokens: Ack(ref, mailbox, tokens))  # type: ignore[misc]
            self._acked[ref] = tuple(envelope_id for envelope_id, _token in part)

    def _forget_acked(self, step: Step) -> None:
        done, self._acks_done = self._acks_done, []
        for envelope_id in done:
            step.delete(Kind.ACK, envelope_id)

    def _move_on(self, now_s: float) -> None:
        """Let delivery go past what cannot be acked, before it fills the credit."""
        while self._floor + 1 in self._numbers:
            self._floor += 1
            self._numbers.discard(self._floor)
        stuck = sum(self._after < waiting.number <= self._floor for waiting in self._waiting.values())
        if stuck and stuck >= self._state.settings.credit // 8:
            self._after = self._floor
            with self._state.store.step() as step:
                self._put_cursor(step, self._floor)
            self.subscribe(now_s)
        elif self._refetch:
            self.subscribe(now_s)
        self._refetch = False

    def _put_cursor(self, step: Step, cursor: int) -> None:
        self._state.put_meta(step, replace(self._state.meta, cursor=cursor))

    def tick(self, now_s: float) -> None:
        """Do what is due by time: move past a stuck window, take sessions for lost."""
        stuck = any(waiting.number > self._after for waiting in self._waiting.values())
        if stuck and now_s >= self._idle_at_s():
            # A gap in the numbers may be mail that is gone, or mail that is still coming: the cursor of this link
            # moves past it, the durable one does not.
            self._after = max(self._after, self._newest)
            self.subscribe(now_s)
        wall_s = self._state.now_s
        lost = any(
            not waiting.chunk and wall_s - waiting.since_s >= _LOST_AFTER_S and waiting.since_s > self._renewed_s
            for waiting in self._waiting.values()
        )
        if lost and wall_s - self._renewed_s >= _RENEW_EVERY_S:
            self._renewed_s = wall_s
            with self._state.store.step() as step:
                self._state.sessions.mark_all_stale(step)

    def next_deadline_s(self) -> float | None:
        """When `tick` has something to do, in monotonic seconds."""
        if any(waiting.number > self._after for waiting in self._waiting.values()):
            return self._idle_at_s()
        return None

    def _idle_at_s(self) -> float:
        return max(self._asked_s, self._arrived_s) + _IDLE_S

    @property
    def is_subscribed(self) -> bool:
        """Whether the relay has answered the subscription of this link."""
        return self._subscription is not None and not self._link.is_asked(self._subscription)

    def sweep(self, step: Step) -> None:
        """Forget what is over: seen marks, unresolved mail, incomplete messages."""
        now_s = self._state.now_s
        self._forget_acked(step)
        for envelope_id, value in self._state.store.items(Kind.SEEN):
            if decode(Seen, value, "seen").forget_s < now_s:
                step.delete(Kind.SEEN, envelope_id)
        for envelope_id, waiting in list(self._waiting.items()):
            if waiting.expiry < now_s:
                self._forget(step, envelope_id)
        for envelope_id, value in self._state.store.items(Kind.BODY_PIN):
            if decode(BodyPin, value, "body pin").expiry + CLOCK_SKEW_S < now_s:
                step.delete(Kind.BODY_PIN, envelope_id)
        for incomplete in self.downloads.expired(step):
            self._state.put_notice(step, incomplete, incomplete.message_id, (incomplete.account,))
