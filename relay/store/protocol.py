"""The promise that every store makes to the service. `memory.py` and `sqlite.py` keep it, and inherit nothing.

A store knows no clock, no link and no key. It keeps rows (relay/core/events.py), applies one batch whole or not at
all, and gives bodies back by `seq`. Whoever holds it (relay/service.py) calls it from one thread at a time, and
decides when to checkpoint: a store truncates its log by itself after `CHECKPOINT_COMMITS` commits; the service calls
`checkpoint()` not later than one second after the first commit since the last one, when it is idle, and before it
copies the files for a disclosure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from relay.core.events import Batch, RowNumbers, Snapshot

__all__ = ["CHECKPOINT_COMMITS", "Store", "StoreError"]

CHECKPOINT_COMMITS = 50
"""protocol.md section 9, bounds of erasure."""


class StoreError(Exception):
    """A store that cannot be opened or used: not ours, of another relay, of another format, or the disk failed.

    After a StoreError from `commit` nothing of the batch is stored, and the store goes on.
    """


class Store(Protocol):
    """Rows on a medium."""

    def load(self) -> Snapshot:
        """Return all that is held but the bodies."""

    def rows(self, numbers: RowNumbers) -> Snapshot:
        """Return these rows alone, as of one moment, with no bodies; what is not there is left out.

        It costs what is asked for, whatever else is held.
        """

    def begin(self, batch: Batch) -> None:
        """Apply a batch without making it durable yet; `commit` of the same batch must follow, and nothing between.

        Not needed, but it saves time: rows are applied under Python's lock anyway, so a thread that applies them
        takes turns with the event loop's at each row, while the end of a commit needs no lock at all.

        Raises:
            StoreError: nothing was applied, and `commit` must not follow.
        """

    def commit(self, batch: Batch) -> None:
        """Apply a batch, unless it was begun; durable on return (blocking).

        Raises:
            StoreError: nothing was applied; the store is still usable.
        """

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Return the bodies of envelopes, None for each that is not there."""

    def checkpoint(self) -> int:
        """Move the write-ahead log into the main file and truncate it; return how many pages were moved."""

    def paths(self) -> list[Path]:
        """Return the files that a disclosure copies (after `checkpoint`, with no commit until copied)."""

    def file_bytes(self) -> int:
        """Return how many bytes these files have."""

    def close(self) -> None:
        """Checkpoint and let go of the files. Calling it twice is harmless."""
