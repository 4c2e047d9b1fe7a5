"""The relay's disk: a store that fails as disks do, and counts how often.

    full        every commit fails, nothing of it is stored
    slow        a commit takes longer (the machine waits; here is only said how long)
    torn        the next commit is stored or not, by chance, and whoever asked for it never hears

Rows are kept by the real stores: relay/store/sqlite.py, or in memory by the rules of relay/store/memory.py. The one
here in memory prunes old commits without looking at all that are kept, since a month has hundreds of thousands.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from relay.core.events import Batch, Snapshot
from relay.store.memory import MemoryStore
from relay.store.protocol import Store, StoreError

__all__ = ["Disk", "PowerCut", "SimulatedStore", "export"]

_EXPORT_ROWS = 4_096
_OWN_ROWS = frozenset({"relay_id", "partition", "format"})
"""Rows of `relay` that every store makes for itself."""


class PowerCut(Exception):
    """The machine is gone in the middle of a commit. Not an error of the store: nobody is left to hear it."""


class SimulatedStore(MemoryStore):
    """The store in memory; a commit costs what it brings, not what is kept."""

    def __init__(self, relay_id: bytes) -> None:
        super().__init__(relay_id)
        self._lowest_commit = 1

    def commit(self, batch: Batch) -> None:
        """Apply a batch, whole or not at all.

        Raises:
            StoreError: a row is there already.
        """
        self._check_open()
        self._check_new(batch)
        envelopes, tombstones = self.envelopes, self.tombstones
        for seq in batch.envelopes_erased:
            envelopes.pop(seq, None)
        for seq in batch.tombstones_erased:
            tombstones.pop(seq, None)
        for seq in batch.prekeys_erased:
            self.prekeys.pop(seq, None)
        for seq in batch.used_tokens_erased:
            self.used_tokens.pop(seq, None)
        while self._lowest_commit < batch.commits_below:
            self.commits.pop(self._lowest_commit, None)
            self._lowest_commit += 1
        for row in batch.envelopes:
            envelopes[row.seq] = row
        for stone in batch.tombstones:
            tombstones[stone.seq] = stone
        if batch.commit is not None:
            self.commits[batch.commit.idx] = batch.commit
        self._apply_directory(batch)

    def _check_new(self, batch: Batch) -> None:
        """As in the store that this one is: no row is there already. Tables without a row cost nothing."""
        for rows, held in (
            (batch.envelopes, self.envelopes),
            (batch.tombstones, self.tombstones),
            (batch.mailboxes, self.mailboxes),
            (batch.lists, self.lists),
            (batch.prekeys, self.prekeys),
            (batch.tenants, self.tenants),
            (batch.used_tokens, self.used_tokens),
            (batch.rotations, self.rotations),
        ):
            for row in rows:
                if row.seq in held:
                    raise StoreError(f"row {row.seq} is there already")
        if batch.commit is not None and batch.commit.idx in self.commits:
            raise StoreError(f"commits: row {batch.commit.idx} is there already")

    def _apply_directory(self, batch: Batch) -> None:
        self.mailboxes.update((row.seq, row) for row in batch.mailboxes)
        self.lists.update((row.seq, row) for row in batch.lists)
        self.prekeys.update((row.seq, row) for row in batch.prekeys)
        self.tenants.update((row.seq, row) for row in batch.tenants)
        self.used_tokens.update((row.seq, row) for row in batch.used_tokens)
        self.rotations.update((row.seq, row) for row in batch.rotations)
        for name in batch.statements_erased:
            self.relay.pop(name, None)
        self.relay.update(batch.statements)
        for name in batch.statements_erased:
            self.relay.pop(name, None)
        self.relay.update(batch.statements)
        for newest, seq in batch.mailboxes_newest:
            self.mailboxes[seq] = self.mailboxes[seq]._replace(newest=newest)
        for seq in batch.mailboxes_closed:
            self.mailboxes[seq] = self.mailboxes[seq]._replace(closed=1)


class Disk:
    """A store on a disk that fails when told to; keeps the store's promises otherwise.

    Args:
        store: holds the rows.
        rng: decides what a torn write leaves.
    """

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store = store
        self.full = False
        self.delay_ms = 0
        self.tear_next = False
        self.failed = 0
        self.slowed = 0
        self.torn_kept = 0
        self.torn_lost = 0
        self._rng = rng

    def load(self) -> Snapshot:
        """All but the bodies."""
        return self.store.load()

    def begin(self, batch: Batch) -> None:
        """Do nothing: `commit` applies it, or does not."""

    def commit(self, batch: Batch) -> None:
        """Store a batch.

        Raises:
            StoreError: the disk is full; nothing is stored.
            PowerCut: the machine is gone; what is stored, the next start finds.
        """
        if self.tear_next:
            self.tear_next = False
            if self._rng.random() < 0.5 and not self.full:
                self.store.commit(batch)
                self.torn_kept += 1
            else:
                self.torn_lost += 1
            raise PowerCut
        if self.full:
            self.failed += 1
            raise StoreError("the simulated disk is full")
        if self.delay_ms:
            self.slowed += 1
        self.store.commit(batch)

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Bodies."""
        return self.store.read(seqs)

    def checkpoint(self) -> int:
        """Empty the write-ahead log."""
        return self.store.checkpoint()

    def paths(self) -> list[Path]:
        """The files."""
        return self.store.paths()

    def file_bytes(self) -> int:
        """Their size."""
        return self.store.file_bytes()

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()


def export(store: MemoryStore, to: Store) -> None:
    """Write all rows of a store in memory into another one, by that one's own code."""
    to.commit(
        Batch(
            mailboxes=list(store.mailboxes.values()),
            lists=list(store.lists.values()),
            prekeys=list(store.prekeys.values()),
            tenants=list(store.tenants.values()),
            used_tokens=list(store.used_tokens.values()),
            rotations=list(store.rotations.values()),
            statements=[(name, value) for name, value in store.relay.items() if name not in _OWN_ROWS],
        )
    )
    for commit in store.commits.values():
        to.commit(Batch(commit=commit))
    envelopes = list(store.envelopes.values())
    for start in range(0, len(envelopes), _EXPORT_ROWS):
        to.commit(Batch(envelopes=envelopes[start : start + _EXPORT_ROWS]))
    tombstones = list(store.tombstones.values())
    for start in range(0, len(tombstones), _EXPORT_ROWS):
        to.commit(Batch(tombstones=tombstones[start : start + _EXPORT_ROWS]))
