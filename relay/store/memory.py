"""A store in memory, for tests and simulations: same rows, same promises, no medium.

It copies rows in and out by reference (they are immutable), and applies a batch whole or not at all: what could fail is
checked before anything changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from relay.core.events import (
    Batch,
    CommitRow,
    EnvelopeIndexRow,
    EnvelopeRow,
    ListRow,
    MailboxRow,
    PrekeyRow,
    RotationRow,
    RowNumbers,
    Snapshot,
    TenantRow,
    TombstoneRow,
    UsedTokenRow,
)
from relay.store.protocol import StoreError

__all__ = ["MemoryStore"]


class MemoryStore:
    """Rows in dictionaries by `seq`.

    Args:
        relay_id: 16 bytes, kept in `relay`.
        partition: kept in `relay`.
    """

    def __init__(self, relay_id: bytes, partition: int = 0) -> None:
        self.relay = {"relay_id": relay_id, "partition": partition.to_bytes(2, "big"), "format": b"1"}
        self.envelopes: dict[int, EnvelopeRow] = {}
        self.tombstones: dict[int, TombstoneRow] = {}
        self.commits: dict[int, CommitRow] = {}
        self.mailboxes: dict[int, MailboxRow] = {}
        self.lists: dict[int, ListRow] = {}
        self.prekeys: dict[int, PrekeyRow] = {}
        self.tenants: dict[int, TenantRow] = {}
        self.used_tokens: dict[int, UsedTokenRow] = {}
        self.rotations: dict[int, RotationRow] = {}
        # `idx` of the commits, rising: to prune looks at what is pruned, not at all that is kept.
        self._order: deque[int] = deque()
        self._closed = False

    def load(self) -> Snapshot:
        """Return all that is held but the bodies."""
        self._check_open()
        return Snapshot(
            dict(self.relay),
            [EnvelopeIndexRow(*row[:7], len(row.body)) for _seq, row in sorted(self.envelopes.items())],
            [row for _seq, row in sorted(self.tombstones.items())],
            [row for _idx, row in sorted(self.commits.items())],
            [row for _seq, row in sorted(self.mailboxes.items())],
            [row for _seq, row in sorted(self.lists.items())],
            [row for _seq, row in sorted(self.prekeys.items())],
            [row for _seq, row in sorted(self.tenants.items())],
            [row for _seq, row in sorted(self.used_tokens.items())],
            [row for _seq, row in sorted(self.rotations.items())],
        )

    def rows(self, numbers: RowNumbers) -> Snapshot:
        """Return these rows alone, with no bodies."""
        self._check_open()
        held = (self.envelopes[seq] for seq in numbers.envelopes if seq in self.envelopes)
        return Snapshot(
            envelopes=[EnvelopeIndexRow(*row[:7], len(row.body)) for row in held],
            tombstones=[self.tombstones[seq] for seq in numbers.tombstones if seq in self.tombstones],
            mailboxes=[self.mailboxes[seq] for seq in numbers.mailboxes if seq in self.mailboxes],
            lists=[self.lists[seq] for seq in numbers.lists if seq in self.lists],
            prekeys=[self.prekeys[seq] for seq in numbers.prekeys if seq in self.prekeys],
        )

    def begin(self, batch: Batch) -> None:
        """Do nothing: to commit takes no time."""

    def commit(self, batch: Batch) -> None:
        """Apply a batch.

        Raises:
            StoreError: nothing was applied: closed, or a row that is there already.
        """
        self._check_open()
        self._check_new(batch)
        for seq in batch.envelopes_erased:
            self.envelopes.pop(seq, None)
        for seq in batch.tombstones_erased:
            self.tombstones.pop(seq, None)
        for seq in batch.prekeys_erased:
            self.prekeys.pop(seq, None)
        for seq in batch.used_tokens_erased:
            self.used_tokens.pop(seq, None)
        order = self._order
        while order and order[0] < batch.commits_below:
            del self.commits[order.popleft()]
        self.envelopes.update((row.seq, row) for row in batch.envelopes)
        self.tombstones.update((row.seq, row) for row in batch.tombstones)
        if batch.commit is not None:
            self.commits[batch.commit.idx] = batch.commit
            order.append(batch.commit.idx)
            if len(order) > 1 and order[-2] > order[-1]:
                # No core does that, but the rows of a store have no order of their own.
                self._order = deque(sorted(order))
        self.mailboxes.update((row.seq, row) for row in batch.mailboxes)
        self.lists.update((row.seq, row) for row in batch.lists)
        self.prekeys.update((row.seq, row) for row in batch.prekeys)
        self.tenants.update((row.seq, row) for row in batch.tenants)
        self.used_tokens.update((row.seq, row) for row in batch.used_tokens)
        self.rotations.update((row.seq, row) for row in batch.rotations)
        for name in batch.statements_erased:
            self.relay.pop(name, None)
        self.relay.update(batch.statements)
        for newest, seq in batch.mailboxes_newest:
            self.mailboxes[seq] = self.mailboxes[seq]._replace(newest=newest)
        for seq in batch.mailboxes_closed:
            self.mailboxes[seq] = self.mailboxes[seq]._replace(closed=1)

    def _check_new(self, batch: Batch) -> None:
        if batch.commit is not None and batch.commit.idx in self.commits:
            raise StoreError(f"commits: row {batch.commit.idx} is there already")
        for table in (
            "envelopes",
            "tombstones",
            "mailboxes",
            "lists",
            "prekeys",
            "tenants",
            "used_tokens",
            "rotations",
        ):
            held = getattr(self, table)
            seqs = [row.seq for row in getattr(batch, table)]
            erased = getattr(batch, f"{table}_erased", ())
            if len(set(seqs)) != len(seqs) or any(seq in held and seq not in erased for seq in seqs):
                raise StoreError(f"{table}: a row is there already")

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Return the bodies of envelopes, None for each that is not there."""
        self._check_open()
        return [row.body if (row := self.envelopes.get(seq)) is not None else None for seq in seqs]

    def checkpoint(self) -> int:
        """Do nothing: what is erased here is gone at once."""
        self._check_open()
        return 0

    def paths(self) -> list[Path]:
        """Return no file: there is none."""
        return []

    def file_bytes(self) -> int:
        """Return 0: there is no file."""
        return 0

    def close(self) -> None:
        """Let nobody use the store any more; the rows stay."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("store: is closed")
