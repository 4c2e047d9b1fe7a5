"""Preservation: for some mailboxes expiry and deletion stop until a day, by order (docs/orders.md).

An acknowledgement or withdrawal counts as always: the message is not delivered again, and its tombstone holds t. Only
the row with its ciphertext stays, until the preservation ends; what expires meanwhile is not delivered either, and
stays as well. The statement is a row of the table `relay` (protocol.md section 9): the mailbox in hexadecimal, and
u64(until) ‖ u64(leaf of the order in the public log), so that a verifier sees why these rows are still here.
An order that is taken back ends before its day; a mailbox for which another order stands goes on under that one.

mailboxes.py asks here; nothing else in the core does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from relay.core.batch import Staged
from wire.errors import FormatError
from wire.limits import ID_BYTES

if TYPE_CHECKING:
    from relay.core.mailboxes import Held, Mailbox, Mailboxes

__all__ = ["Preservation", "Preservations", "read_statement", "statement"]

_VALUE_BYTES: Final = 16
_FIXED: Final = frozenset({"relay_id", "partition", "format"})


@dataclass(slots=True, eq=False)
class Preservation:
    """One preserved mailbox.

    Args:
        until_s: until when, Unix time in seconds.
        leaf: the order's leaf in the public log.
    """

    until_s: int
    leaf: int
    kept: list[int] = field(default_factory=list)
    """`seq` of rows that were acknowledged or withdrawn, and stay."""
    suspended: list[Held] = field(default_factory=list)
    """What was due to expire, and stays."""


def statement(mailbox_id: bytes, until_s: int, leaf: int) -> tuple[str, bytes]:
    """Name and value of the row that states a preservation."""
    return mailbox_id.hex(), until_s.to_bytes(8, "big") + leaf.to_bytes(8, "big")


def read_statement(name: str, value: bytes) -> tuple[bytes, Preservation]:
    """Read such a row.

    Raises:
        FormatError: it is none.
    """
    try:
        mailbox_id = bytes.fromhex(name)
    except ValueError:
        mailbox_id = b""
    if len(mailbox_id) != ID_BYTES or mailbox_id.hex() != name or len(value) != _VALUE_BYTES:
        raise FormatError("relay", "has a row that states no preservation")
    return mailbox_id, Preservation(int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))


class Preservations:
    """All preserved mailboxes.

    Args:
        mailboxes: where they are; loaded before the envelopes are.
        rows: of the table `relay`.

    Raises:
        FormatError: a row states nothing, or names a mailbox that is not there.
    """

    def __init__(self, mailboxes: Mailboxes, rows: dict[str, bytes]) -> None:
        self._mailboxes = mailboxes
        self._asked: list[tuple[tuple[bytes, ...], int, int]] = []
        self._taken_back: list[tuple[int, Mapping[bytes, tuple[int, int]]]] = []
        self.preserved: dict[bytes, Mailbox] = {}
        for name, value in rows.items():
            if name in _FIXED:
                continue
            mailbox_id, preservation = read_statement(name, value)
            mailbox = mailboxes.by_id.get(mailbox_id)
            if mailbox is None:
                raise FormatError("relay", "a preservation names a mailbox that is not there")
            mailbox.preservation = preservation
            self.preserved[mailbox_id] = mailbox

    def ask(self, mailbox_ids: tuple[bytes, ...], until_s: int, leaf: int) -> None:
        """Preserve mailboxes from the next batch on; a later end replaces an earlier one.

        Raises:
            FormatError: one of them is not there.
        """
        if any(mailbox_id not in self._mailboxes.by_id for mailbox_id in mailbox_ids):
            raise FormatError("preservation", "names a mailbox that is not there")
        self._asked.append((mailbox_ids, until_s, leaf))

    def release(self, leaf: int, instead: Mapping[bytes, tuple[int, int]]) -> None:
        """End from the next batch on what an order preserves, before its day: the authority has taken it back.

        Args:
            leaf: the order's in the public log.
            instead: mailboxes for which another order stands: until when, Unix time in seconds, and its leaf.
        """
        self._taken_back.append((leaf, dict(instead)))

    def preserved_by(self, leaf: int) -> tuple[tuple[bytes, str], ...]:
        """The mailboxes that the order of a leaf preserves, each with the account whose it is."""
        return tuple((one.id, one.account) for one in self.preserved.values() if _of(one).leaf == leaf)

    def leaves(self) -> frozenset[int]:
        """The leaves of the orders by which something is preserved now."""
        return frozenset(_of(mailbox).leaf for mailbox in self.preserved.values())

    def is_due(self, now_s: int) -> bool:
        """Tell whether one begins or ends now."""
        if self._asked or self._taken_back:
            return True
        return any(_of(mailbox).until_s <= now_s for mailbox in self.preserved.values())

    def next_end_s(self) -> int | None:
        """When the next one ends, Unix time in seconds."""
        return min((_of(mailbox).until_s for mailbox in self.preserved.values()), default=None)

    def stage(self, staged: Staged, now_s: int, room: int) -> int:
        """Begin and end what is due; return how many rows more this batch may erase."""
        asked, self._asked = self._asked, []
        if asked:
            staged.undo.append(lambda: self._asked.extend(asked))
        for mailbox_ids, until_s, leaf in asked:
            for mailbox_id in mailbox_ids:
                self._begin(staged, self._mailboxes.by_id[mailbox_id], until_s, leaf)
        self._take_back(staged, now_s)
        for mailbox in [one for one in self.preserved.values() if _of(one).until_s <= now_s]:
            room = self._end(staged, mailbox, room)
            if not room:
                break
        return room

    def _begin(self, staged: Staged, mailbox: Mailbox, until_s: int, leaf: int) -> None:
        before = mailbox.preservation
        if before is None:
            self._mailboxes.stop_closing(mailbox)
            self._state(staged, mailbox, Preservation(until_s, leaf))
        elif until_s > before.until_s:
            self._state(staged, mailbox, Preservation(until_s, leaf, before.kept, before.suspended))

    def _take_back(self, staged: Staged, now_s: int) -> None:
        taken_back, self._taken_back = self._taken_back, []
        if taken_back:
            staged.undo.append(lambda: self._taken_back.extend(taken_back))
        for leaf, instead in taken_back:
            for mailbox in [one for one in self.preserved.values() if _of(one).leaf == leaf]:
                before = _of(mailbox)
                # The end is stated first: after a crash while rows are erased the rest of them is due.
                until_s, by = instead.get(mailbox.id, (min(before.until_s, now_s), leaf))
                self._state(staged, mailbox, Preservation(until_s, by, before.kept, before.suspended))

    def _state(self, staged: Staged, mailbox: Mailbox, preservation: Preservation) -> None:
        """Put a preservation in the place of the one before, and its row in the place of that one's."""
        before = mailbox.preservation
        name, value = statement(mailbox.id, preservation.until_s, preservation.leaf)
        mailbox.preservation = preservation
        self.preserved[mailbox.id] = mailbox
        self._unstate(staged, name)
        staged.batch.statements.append((name, value))

        def undo() -> None:
            mailbox.preservation = before
            if before is None:
                del self.preserved[mailbox.id]
                self._mailboxes.close_if_closed(mailbox)

        staged.undo.append(undo)

    @staticmethod
    def _unstate(staged: Staged, name: str) -> None:
        """Take a row away: the stored one, and one that this very batch would have written."""
        batch = staged.batch
        batch.statements = [row for row in batch.statements if row[0] != name]
        batch.statements_erased.append(name)

    def _end(self, staged: Staged, mailbox: Mailbox, room: int) -> int:
        """Erase what was kept, as much as one batch may; the last batch of them takes the statement away."""
        preservation = mailbox.preservation
        assert preservation is not None
        kept = preservation.kept
        some = kept[:room]
        del kept[:room]
        staged.batch.envelopes_erased.extend(some)
        staged.undo.append(lambda: kept.__setitem__(slice(0, 0), some))
        if kept:
            return 0
        self._unstate(staged, mailbox.id.hex())
        mailbox.preservation = None
        del self.preserved[mailbox.id]
        staged.released.append((mailbox, preservation))

        def undo() -> None:
            mailbox.preservation = preservation
            self.preserved[mailbox.id] = mailbox

        staged.undo.append(undo)
        return room - len(some)


def _of(mailbox: Mailbox) -> Preservation:
    assert mailbox.preservation is not None
    return mailbox.preservation
