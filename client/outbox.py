"""Messages on their way out: what to encrypt for whom, and when a message is done (protocol.md sections 4, 5 and 8).

A message is one row for its content and one prepared envelope for each device of each recipient account:

    added ──▶ planned: for each device of the newest list a session, an envelope, durable ──▶ submitted ──▶ receipted
                 │ no list, or no session and no bundle: look up                  │ stale list: planned again
                 └ larger than an envelope: chunks first (client/uploads.py)      └ client/submits.py

Rules:

* ratchet state and envelope are durable in one step before the envelope leaves; an envelope once encrypted is sent
  again and again with the same bytes, so that no key is used twice and the relay can tell a repetition;
* when a list changes, envelopes for devices that stayed go again as they are, envelopes for devices that left are
  dropped, and devices that came get their own;
* a message is done when every device of every account's newest list has a verified receipt; it fails, typed, when its
  time runs out, when the relay refuses it definitely, or when an account's key has changed (it waits then until the
  person trusts the new one, or it expires).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from client.attachments import chunks, plan_chunks
from client.content import NO_REPLY, Content, encode_content, is_inline
from client.content import Kind as ContentKind
from client.errors import Expired, Refused
from client.link import DirectoryEvent, Link, RefusedEvent
from client.records import HeldReceipt, Outgoing, Prepared, Sent, Target
from client.state import State
from client.store import Kind, Step
from client.uploads import Uploads
from wire.codec import decode, encode
from wire.commands import LookUp
from wire.envelope import Envelope, envelope_id_of
from wire.errors import BlindpostError, RefusalCode
from wire.identity import DeviceEntry, SignedList
from wire.limits import EXPIRY_S_MAX, ID_BYTES
from wire.prekeys import Bundle, verify_bundle

__all__ = ["Outbox", "Outcome", "expiry_of", "put_renewals"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one outgoing row ended: with receipts, or with an error."""

    name: bytes
    error: BlindpostError | None


def expiry_of(now_s: int, lifetime_s: int) -> int:
    """Expiry in Unix seconds: rounded up to a full hour, but never beyond what a relay takes (section 5.1)."""
    rounded = -(-(now_s + lifetime_s) // 3_600) * 3_600
    latest = (now_s + EXPIRY_S_MAX) // 3_600 * 3_600
    return min(rounded, latest)


class Outbox:
    """The outgoing messages of a device.

    Args:
        state: the device's state.
        link: where look-ups are asked.
    """

    def __init__(self, state: State, link: Link) -> None:
        self._state = state
        self._link = link
        self.outcomes: list[Outcome] = []
        rows = [(name, decode(Outgoing, value, "outgoing")) for name, value in state.store.items(Kind.OUTGOING)]
        self.outgoing = dict(sorted(rows, key=lambda row: row[1].order))
        self.prepared: dict[bytes, str] = {}
        self.fresh: list[bytes] = []
        for key, value in state.store.items(Kind.PREPARED):
            self.prepared[key] = decode(Prepared, value, "prepared").account
        # In the order of the messages, so that a restart does not turn a conversation round.
        places = {name: place for place, name in enumerate(self.outgoing)}
        self.fresh = sorted(self.prepared, key=lambda key: places.get(key[:ID_BYTES], 0))
        self.uploads = Uploads(state)
        self._dirty = dict.fromkeys(self.outgoing)
        self._waiting: dict[str, dict[bytes, None]] = {}
        self._lookups: dict[int, str] = {}
        self._look_again_s: dict[str, float] = {}
        self._bundles: dict[bytes, Bundle] = {}
        self._blocked: dict[str, BlindpostError] = {}

    # Adding

    def add(self, step: Step, content: Content, accounts: Sequence[str], expiry: int) -> bytes:
        """Put a message for all devices of these accounts into the outbox, within a step; returns the row's name.

        Args:
            step: the step; the caller reloads everything if it fails.
            content: the message; its token is replaced by one of each envelope's own.
            accounts: the recipients, each once.
            expiry: Unix seconds, a full hour.
        """
        name = self._state.random(ID_BYTES)
        large = not is_inline(content.kind, len(encode_content(content)))
        digest = self._put_chunks(step, name, content) if large else b""
        row = Outgoing(
            content.kind,
            content.message_id,
            content.sent_ms,
            content.reply_to,
            content.audience,
            b"" if large else content.payload,
            large,
            len(content.payload),
            digest,
            expiry,
            tuple(Target(account, ()) for account in accounts),
            self._state.next_order(),
        )
        step.put(Kind.OUTGOING, name, encode(row))
        self.outgoing[name] = row
        self._dirty[name] = None
        return name

    def _put_chunks(self, step: Step, name: bytes, content: Content) -> bytes:
        for index, chunk in enumerate(chunks(content.payload, plan_chunks(len(content.payload)))):
            step.put(Kind.PAYLOAD, name + index.to_bytes(4, "big"), chunk)
        return self.uploads.digest_of(content.payload)

    # Planning

    def pump(self, now_s: float) -> None:
        """Encrypt what can be, ask for what is missing. `now_s` is monotonic. Call while a link stands."""
        for account, due_s in list(self._look_again_s.items()):
            if due_s <= now_s:
                del self._look_again_s[account]
                self._dirty.update(self._waiting.pop(account, {}))
        if self._dirty:
            names, self._dirty = self._dirty, {}
            with self._state.store.step() as step:
                for name in names:
                    if name in self.outgoing:
                        self._plan(step, name)
        for account in self._waiting:
            if account not in self._look_again_s and account not in self._blocked:
                self._look_up(account, now_s)

    def next_deadline_s(self, now_s: float) -> float | None:
        """When `pump` has something to do although nothing has arrived, in monotonic seconds."""
        deadlines = list(self._look_again_s.values())
        if self.outgoing:
            soonest = min(row.expiry for row in self.outgoing.values())
            deadlines.append(now_s + max(1.0, soonest - self._state.now_s))
        return min(deadlines, default=None)

    def _plan(self, step: Step, name: bytes) -> None:
        row = self.outgoing[name]
        for target in row.targets:
            if target.account in self._blocked:
                continue
            known = self._state.pins.get(target.account)
            if known is None:
                self._wait_for(target.account, name)
                continue
            for entry in known.entries:
                if entry.device_key != self._state.keys.public and entry.mailbox not in target.done:
                    self._plan_device(step, name, target.account, entry)
        self._check_done(step, name)

    def _plan_device(self, step: Step, name: bytes, account: str, entry: DeviceEntry) -> None:
        key = name + entry.mailbox
        if key in self.prepared:
            return
        row = self.outgoing[name]
        if row.large and not self.uploads.is_complete(step, key, row, account, entry):
            return
        sessions = self._state.sessions
        if not sessions.can_send(account, entry.device_key):
            bundle = self._bundles.pop(entry.device_key, None)
            if bundle is None:
                self._wait_for(account, name)
                return
            try:
                sessions.initiate(step, self._state.own_list, account, entry, bundle)
            except BlindpostError as error:
                # A bundle that verifies and still starts no session: nothing has moved; another look-up gets another.
                self._state.put_notice(step, error, accounts=(account,))
                self._wait_for(account, name)
                return
        token = self._state.random(ID_BYTES)
        envelope_id = envelope_id_of(token)
        content = encode_content(self._content_for(key, row, token))
        body = sessions.encrypt(step, account, entry.device_key, content, envelope_id)
        prepared = Prepared(account, entry.device_key, token, Envelope(entry.mailbox, envelope_id, row.expiry, body))
        step.put(Kind.PREPARED, key, encode(prepared))
        if row.large:
            self.uploads.drop(step, key)
        self.prepared[key] = account
        self.fresh.append(key)

    def _content_for(self, key: bytes, row: Outgoing, token: bytes) -> Content:
        kind, payload = ContentKind(row.kind), row.payload
        if row.large:
            kind, payload = ContentKind.MANIFEST, self.uploads.manifest_payload(key, row)
        return Content(token, kind, row.message_id, row.sent_ms, row.reply_to, row.audience, payload)

    # Looking up

    def _wait_for(self, account: str, name: bytes) -> None:
        self._waiting.setdefault(account, {})[name] = None

    def _look_up(self, account: str, now_s: float) -> None:
        self._look_again_s[account] = now_s + self._state.settings.lookup_retry_s
        if account not in self._lookups.values():
            self._lookups[self._link.ask(lambda ref: LookUp(ref, account, want_bundles=True))] = account

    def on_directory(self, event: DirectoryEvent) -> bool:
        """The answer to a look-up of the outbox; False if it was not one."""
        account = self._lookups.pop(event.ref, None)
        if account is None:
            return False
        if self.on_list(account, event.signed_list):
            self._keep_bundles(account, event.bundles)
            self._dirty.update(self._waiting.pop(account, {}))
        return True

    def _keep_bundles(self, account: str, bundles: Sequence[Bundle]) -> None:
        known = self._state.pins.get(account)
        if known is None:
            return
        for bundle in bundles:
            # Of a device that the account's own list does not name, a bundle is worth nothing (a 'ghost').
            if known.devices.entry_of(bundle.device_key) is None:
                continue
            try:
                verify_bundle(bundle)
            except BlindpostError as error:
                self._notice(error, accounts=(account,))
                continue
            self._bundles[bundle.device_key] = bundle

    def on_list(self, account: str, signed: SignedList) -> bool:
        """A device list from the relay or a peer: True if believed; else the account is blocked, and an alarm kept."""
        pins = self._state.pins
        known = pins.get(account)
        try:
            fresh = pins.check(signed, account)
        except BlindpostError as error:
            self.block(account, error)
            return False
        if fresh is not None:
            with self._state.store.step() as step:
                pins.adopt(step, fresh, self._state.now_s)
                gone = {entry.device_key for entry in known.entries} if known else set()
                self._state.sessions.drop(step, account, gone - {entry.device_key for entry in fresh.entries})
                self._replan(step, account, {entry.mailbox for entry in fresh.entries})
        return True

    def _replan(self, step: Step, account: str, mailboxes: set[bytes]) -> None:
        for key, prepared_account in list(self.prepared.items()):
            if prepared_account == account and key[ID_BYTES:] not in mailboxes:
                self.unprepare(step, key)
        self.uploads.drop_others(step, account, mailboxes)
        self.touch(account)

    def touch(self, account: str) -> None:
        """Plan everything for an account again."""
        for name, row in self.outgoing.items():
            if any(target.account == account for target in row.targets):
                self._dirty[name] = None

    def touch_name(self, name: bytes) -> None:
        """Plan one message again."""
        self._dirty[name] = None

    def block(self, account: str, error: BlindpostError) -> None:
        """Send nothing to an account until the person has decided; everybody who waits for it is told."""
        self._blocked[account] = error
        self._notice(error, accounts=(account,))
        for name, row in self.outgoing.items():
            if any(target.account == account for target in row.targets):
                self.outcomes.append(Outcome(name, error))

    def unblock(self, account: str) -> None:
        """The person has decided: go on."""
        if self._blocked.pop(account, None) is not None:
            self._look_again_s.pop(account, None)
            self.touch(account)

    def blocked(self, account: str) -> BlindpostError | None:
        """Why nothing is sent to an account, or None."""
        return self._blocked.get(account)

    # Ends

    def receipted(self, step: Step, key: bytes, held: HeldReceipt) -> None:
        """An envelope has its verified receipt, within a step."""
        self._state.evidence.keep(step, held)
        name, mailbox = key[:ID_BYTES], key[ID_BYTES:]
        self.unprepare(step, key)
        row = self.outgoing.get(name)
        if row is None:
            return
        targets = tuple(
            Target(target.account, (*target.done, mailbox)) if target.account == held.account else target
            for target in row.targets
        )
        self._put(step, name, replace(row, targets=targets))
        self._check_done(step, name)

    def reprepare(self, step: Step, key: bytes) -> None:
        """The relay has this envelope id with other content: encrypt again, under another id."""
        self.unprepare(step, key)
        self._dirty[key[:ID_BYTES]] = None

    def fail(self, step: Step, name: bytes, error: BlindpostError) -> None:
        """A message ends with an error, within a step; what was receipted stays where it is."""
        row = self.outgoing[name]
        accounts = tuple(target.account for target in row.targets)
        self._state.put_notice(step, error, row.message_id, accounts)
        self._drop(step, name, failed=True)
        self.outcomes.append(Outcome(name, error))

    def names_of(self, message_id: bytes) -> set[bytes]:
        """The rows of a message that are not done."""
        return {name for name, row in self.outgoing.items() if row.message_id == message_id}

    def withdraw(self, step: Step, message_id: bytes) -> None:
        """Take back what has not left yet, within a step."""
        for name in self.names_of(message_id):
            self._drop(step, name, failed=False)
            self.outcomes.append(Outcome(name, None))

    def on_lookup_refused(self, event: RefusedEvent) -> bool:
        """A look-up of the outbox was refused; False if it was not one."""
        account = self._lookups.pop(event.ref, None)
        if account is None:
            return False
        error = Refused(f"look up {account}", event.code, event.field, event.limit)
        names = self._waiting.pop(account, {})
        self._look_again_s.pop(account, None)
        with self._state.store.step() as step:
            for name in names:
                if name in self.outgoing:
                    self.fail_account(step, name, account, error)
        return True

    def fail_account(self, step: Step, name: bytes, account: str, error: BlindpostError) -> None:
        """The others still get it; whoever waits is told at once."""
        row = self.outgoing[name]
        rest = tuple(target for target in row.targets if target.account != account)
        if not rest or (isinstance(error, Refused) and error.code is RefusalCode.NOT_ENTITLED):
            self.fail(step, name, error)
            return
        self._state.put_notice(step, error, row.message_id, (account,))
        self.outcomes.append(Outcome(name, error))
        self._put(step, name, replace(row, targets=rest))
        self._check_done(step, name)

    def expire(self) -> None:
        """End, typed, what could not be delivered in its time."""
        now_s = self._state.now_s
        over = [name for name, row in self.outgoing.items() if row.expiry <= now_s]
        if not over:
            return
        with self._state.store.step() as step:
            for name in over:
                row = self.outgoing[name]
                missing = tuple(target.account for target in row.targets if not self._is_done(target))
                self.fail(step, name, Expired(row.message_id, missing))

    def _check_done(self, step: Step, name: bytes) -> None:
        if all(self._is_done(target) for target in self.outgoing[name].targets):
            self._drop(step, name, failed=False)
            self.outcomes.append(Outcome(name, None))

    def _is_done(self, target: Target) -> bool:
        known = self._state.pins.get(target.account)
        if known is None:
            return False
        return all(
            entry.mailbox in target.done or entry.device_key == self._state.keys.public for entry in known.entries
        )

    def _drop(self, step: Step, name: bytes, *, failed: bool) -> None:
        row = self.outgoing.pop(name)
        step.delete(Kind.OUTGOING, name)
        for key in [key for key in self.prepared if key[:ID_BYTES] == name]:
            self.unprepare(step, key)
        if row.large:
            self.uploads.drop_message(step, name, row)
        value = self._state.store.get(Kind.SENT, row.message_id)
        pending = step.changes.get((Kind.SENT, row.message_id), value)
        if pending is not None:
            sent = decode(Sent, pending, "sent")
            rest = tuple(other for other in sent.pending if other != name)
            sent = replace(sent, pending=rest, failed=sent.failed or failed)
            step.put(Kind.SENT, row.message_id, encode(sent))

    def _put(self, step: Step, name: bytes, row: Outgoing) -> None:
        step.put(Kind.OUTGOING, name, encode(row))
        self.outgoing[name] = row

    def unprepare(self, step: Step, key: bytes) -> None:
        """What was encrypted for one mailbox is not sent any more, within a step."""
        step.delete(Kind.PREPARED, key)
        self.prepared.pop(key, None)

    def _notice(self, error: BlindpostError, accounts: tuple[str, ...]) -> None:
        with self._state.store.step() as step:
            self._state.put_notice(step, error, accounts=accounts)


def put_renewals(state: State, step: Step, accounts: Sequence[str]) -> None:
    """Outgoing renewals, within a step, for a device whose sessions are not to be used again."""
    for account in accounts:
        row = Outgoing(
            ContentKind.RENEWAL,
            state.random(ID_BYTES),
            state.now_ms,
            NO_REPLY,
            (),
            b"",
            large=False,
            size=0,
            digest=b"",
            expiry=expiry_of(state.now_s, state.settings.expiry_s),
            targets=(Target(account, ()),),
            order=state.next_order(),
        )
        step.put(Kind.OUTGOING, state.random(ID_BYTES), encode(row))
