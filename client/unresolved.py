"""Mail that does not open (yet): its session or its manifest may still come (protocol.md sections 4.3 and 8).

Each such envelope is a row, with its body as long as all bodies together stay within a bound; of a body beyond it only
the slot is kept, and the body is left to the relay. Opening is client/inbox.py's, which asks here what to try again.

Reordered mail resolves by itself soon. What no session opened for a while makes sessions stale, so that the next
messages start new ones: who sent it is not known, as the body names no sender. At most once an hour, so that junk costs
little.

A first message of an account that is not known waits for the relay's directory (client/first_contacts.py). One that it
does not confirm is refused: its body goes away, and it is not tried again.
"""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from client.content import NO_REPLY
from client.records import Unresolved
from client.sessions import has_chunk_length
from client.state import State
from client.store import Kind, Step
from wire.codec import decode, encode
from wire.commands import Delivered
from wire.limits import ID_BYTES

__all__ = ["UnresolvedMail", "Waiting"]

# What is needed of an unresolved body to look for its session again: slot, header and EK.
_HEAD_BYTES: Final = 160
# Reordered mail resolves by itself within this time; afterwards sessions are taken for lost.
_LOST_AFTER_S: Final = 60
_RENEW_EVERY_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Waiting:
    """An unresolved envelope, as far as memory holds it.

    Attributes:
        number: its number in the mailbox.
        expiry: Unix seconds.
        head: how its body begins; its slot alone where the body was left to the relay.
        body_bytes: what the body takes of the bound.
        kept: whether the body is here.
        since_s: since when it waits, Unix seconds.
        chunk: whether it may be a chunk, which blames no session.
        contact: the account whose directory entry it waits for, or empty; such mail blames no session either.
        contact_key: the account key that came with it, or empty.
    """

    number: int
    expiry: int
    head: bytes
    body_bytes: int
    kept: bool
    since_s: int
    chunk: bool
    contact: str
    contact_key: bytes


class UnresolvedMail:
    """The unresolved envelopes of a device.

    Args:
        state: the device's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: dict[bytes, Waiting] = {}
        self._by_slot: dict[bytes, bytes] = {}
        self._by_contact: dict[str, set[bytes]] = {}
        self._bytes = 0
        self._renewed_s = 0
        for envelope_id, value in state.store.items(Kind.UNRESOLVED):
            self._remember(envelope_id, decode(Unresolved, value, "unresolved"))

    def __contains__(self, envelope_id: bytes) -> bool:
        return envelope_id in self._waiting

    # Rows

    def put(self, step: Step, delivered: Delivered, contact: str = "", contact_key: bytes = b"") -> None:
        """Keep an envelope that did not open, within a step; with the account that it waits for, if it does."""
        body = delivered.body
        if self._bytes + len(body) > self._state.settings.unresolved_bytes_max:
            body = b""
        slot = delivered.body[:ID_BYTES]
        row = Unresolved(delivered.number, delivered.expiry, slot, body, contact, contact_key)
        self._put_row(step, delivered.envelope_id, row)

    def _put_row(self, step: Step, envelope_id: bytes, row: Unresolved) -> None:
        step.put(Kind.UNRESOLVED, envelope_id, encode(row))
        self._remember(envelope_id, row)

    def _remember(self, envelope_id: bytes, row: Unresolved) -> None:
        # Of a body that is left to the relay only the slot is known: it may be a chunk, and blames no session.
        chunk = not row.body or has_chunk_length(len(row.body))
        head = row.body[:_HEAD_BYTES] or row.slot
        self._waiting[envelope_id] = Waiting(
            row.number,
            row.expiry,
            head,
            len(row.body),
            bool(row.body),
            self._state.now_s,
            chunk,
            row.contact,
            row.contact_key,
        )
        self._by_slot[row.slot] = envelope_id
        if row.contact:
            self._by_contact.setdefault(row.contact, set()).add(envelope_id)
        self._bytes += len(row.body)

    def row_of(self, step: Step, envelope_id: bytes) -> Unresolved | None:
        """The row of an envelope, with its body; rows of this step count."""
        key = (Kind.UNRESOLVED, envelope_id)
        value = step.changes[key] if key in step.changes else self._state.store.get(*key)
        return None if value is None else decode(Unresolved, value, "unresolved")

    def forget(self, step: Step, envelope_id: bytes) -> None:
        """An envelope opened, or is over, within a step; nothing where it did not wait."""
        waiting = self._waiting.pop(envelope_id, None)
        if waiting is None:
            return
        self._by_slot.pop(waiting.head[:ID_BYTES], None)
        self._bytes -= waiting.body_bytes
        if waiting.contact:
            same = self._by_contact[waiting.contact]
            same.discard(envelope_id)
            if not same:
                del self._by_contact[waiting.contact]
        step.delete(Kind.UNRESOLVED, envelope_id)

    def sweep(self, step: Step) -> None:
        """Forget what the relay does not have any more either."""
        now_s = self._state.now_s
        for envelope_id, waiting in list(self._waiting.items()):
            if waiting.expiry < now_s:
                self.forget(step, envelope_id)

    # First messages that wait for the relay's directory

    def contacts(self) -> list[str]:
        """The accounts that are waited for."""
        return list(self._by_contact)

    def of_contact(self, account: str) -> list[tuple[bytes, Waiting]]:
        """What waits for an account, in the order of the mailbox."""
        found = [(envelope_id, self._waiting[envelope_id]) for envelope_id in self._by_contact.get(account, ())]
        return sorted(found, key=lambda pair: pair[1].number)

    def wait_for(self, step: Step, envelope_id: bytes, contact: str, contact_key: bytes) -> None:
        """An envelope waits for this account from now on, within a step; for none, with an empty account."""
        row = self.row_of(step, envelope_id)
        if row is not None:
            self.forget(step, envelope_id)
            self._put_row(step, envelope_id, replace(row, contact=contact, contact_key=contact_key))

    def refuse(self, step: Step, envelope_id: bytes) -> None:
        """Leave an envelope to its expiry, within a step: only its number is kept, so that delivery moves past it."""
        waiting = self._waiting[envelope_id]
        self.forget(step, envelope_id)
        self._put_row(step, envelope_id, Unresolved(waiting.number, waiting.expiry, NO_REPLY, b"", "", b""))

    # What to try again

    def at_slot(self, slot: bytes) -> tuple[bytes, Waiting] | None:
        """The envelope whose body begins with a slot, or None."""
        envelope_id = self._by_slot.get(slot)
        return None if envelope_id is None else (envelope_id, self._waiting[envelope_id])

    def kept_here(self, *, everything: bool) -> list[tuple[bytes, Waiting]]:
        """The envelopes whose bodies are here; unless everything is asked for, without what may be a chunk."""
        return [
            (envelope_id, waiting)
            for envelope_id, waiting in self._waiting.items()
            if waiting.kept and (everything or not waiting.chunk)
        ]

    # Numbers, for the cursor (client/subscription.py)

    def numbers(self) -> set[int]:
        """The mailbox numbers of all that waits."""
        return {waiting.number for waiting in self._waiting.values()}

    def count_between(self, after: int, last: int) -> int:
        """How many wait whose number is above `after` and at most `last`."""
        return sum(after < waiting.number <= last for waiting in self._waiting.values())

    def is_any_above(self, number: int) -> bool:
        """Whether any waits whose number is above this one."""
        return any(waiting.number > number for waiting in self._waiting.values())

    # Lost sessions

    def tick(self) -> None:
        """Take sessions for lost where mail has waited too long for one."""
        now_s = self._state.now_s
        lost = any(
            not waiting.chunk
            and not waiting.contact
            and now_s - waiting.since_s >= _LOST_AFTER_S
            and waiting.since_s > self._renewed_s
            for waiting in self._waiting.values()
        )
        if lost and now_s - self._renewed_s >= _RENEW_EVERY_S:
            self._renewed_s = now_s
            with self._state.store.step() as step:
                self._state.sessions.mark_all_stale(step)
