"""The batch under construction or under way, with all that must happen when its commit ends, well or badly.

`Staged` keeps beside the rows what the core owes: which commands wait for the commit and what each is answered. It is
made by `take_batch`, and ends in `committed` or `aborted`; there is never more than one. State that a batch changes is
of two kinds: what is on its way in or out is marked so (mailboxes.py) and moves only at the end; the small changes of
the directory are made at once and each leaves an `undo`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from relay.core.events import Batch, Snapshot
from wire.commands import DeviceCommand, RelayCommand
from wire.errors import RefusalCode

if TYPE_CHECKING:
    from relay.core.links import Link
    from relay.core.mailboxes import Held, Mailbox
    from relay.core.preservation import Preservation

__all__ = ["Refused", "Seqs", "Staged"]


class Refused(Exception):
    """A command is refused; nothing of it was staged.

    Args:
        code: the refusal's code (protocol.md section 6.5).
        field: which field of the command is at fault.
        limit: the limit that was passed, 0 for none.
        retry_after_ms: for codes of kind 'again'.
        attachment: for `stale_list` the encoded current SignedList.
    """

    def __init__(
        self, code: RefusalCode, field: str, limit: int = 0, retry_after_ms: int = 0, attachment: bytes = b""
    ) -> None:
        super().__init__(f"{code.name.lower()}: {field}")
        self.code = code
        self.field = field
        self.limit = limit
        self.retry_after_ms = retry_after_ms
        self.attachment = attachment


@dataclass(slots=True)
class Seqs:
    """The next `seq` of each table; the core numbers rows, the stores write them as they are."""

    envelopes: int = 1
    tombstones: int = 1
    mailboxes: int = 1
    lists: int = 1
    prekeys: int = 1
    tenants: int = 1
    used_tokens: int = 1
    rotations: int = 1

    @classmethod
    def after(cls, snapshot: Snapshot) -> Seqs:
        """Continue above the highest row of each table."""
        rows = {name: getattr(snapshot, name) for name in (column.name for column in fields(cls))}
        return cls(**{name: table[-1].seq + 1 if table else 1 for name, table in rows.items()})

    def take(self, table: str) -> int:
        """Return the next number of a table (the hot path counts by hand)."""
        seq: int = getattr(self, table)
        setattr(self, table, seq + 1)
        return seq

    def copy(self) -> Seqs:
        """Return the numbers as they stand, to go back to."""
        return Seqs(*(getattr(self, column.name) for column in fields(self)))

    def restore(self, other: Seqs) -> None:
        """Go back to a copy."""
        for column in fields(self):
            setattr(self, column.name, getattr(other, column.name))


@dataclass(slots=True)
class Staged:
    """One batch and its promises."""

    seqs_before: Seqs
    batch: Batch = field(default_factory=Batch)
    fresh: list[Held] = field(default_factory=list)
    """Envelopes to insert, in the order of `batch.envelopes` and of the leaves."""
    leaves: list[bytes] = field(default_factory=list)
    tree: list[list[bytes]] = field(default_factory=list)
    """The Merkle tree over the leaves, level by level."""
    leaving: list[tuple[Held, int, int, bytes]] = field(default_factory=list)
    """(envelope, reason, seq of its tombstone, key of its tombstone) of acks, withdrawals and closed mailboxes."""
    erasers: dict[Held, Link] = field(default_factory=dict)
    """By whose ack or withdrawal those leave; kept only while something is captured (capture.py)."""
    expiring: list[Held] = field(default_factory=list)
    """Envelopes and tombstones past their expiry."""
    submits: list[tuple[Link, int, list[Held]]] = field(default_factory=list)
    """(link, ref, envelope at each position): receipts owed at the commit."""
    done: list[tuple[Link, int]] = field(default_factory=list)
    acked: list[tuple[Link, int]] = field(default_factory=list)
    """The same of acks, whose answers are in no hurry."""
    answers: list[tuple[Link, RelayCommand]] = field(default_factory=list)
    """Answers that show a state which is not durable yet."""
    waiting: list[tuple[Link, DeviceCommand, int]] = field(default_factory=list)
    """All commands that wait for this commit, with the bytes they hold of their link's quota."""
    deferred: list[tuple[Link, DeviceCommand, int]] = field(default_factory=list)
    """Commands about envelopes that this very batch inserts: they wait for the next one."""
    undo: list[Callable[[], None]] = field(default_factory=list)
    """What takes the directory's changes back, to be run in reverse."""
    closed: list[Mailbox] = field(default_factory=list)
    """Mailboxes that a new device list does not name any more."""
    kept: list[tuple[Preservation, int]] = field(default_factory=list)
    """Rows of preserved mailboxes that were acknowledged or withdrawn, and stay."""
    released: list[tuple[Mailbox, Preservation]] = field(default_factory=list)
    """Mailboxes whose preservation ends with this batch."""
    withdrawn: int = 0
    """How many of those that leave were withdrawn."""
    tenants: int = 0
    """How many of the tenants that wait are in this batch; the same for rotations."""
    rotations: int = 0

    @property
    def directory_changed(self) -> bool:
        """Whether the directory in memory is ahead of the one on disk."""
        return bool(self.undo)
