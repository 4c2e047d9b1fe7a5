"""Makes the records that devices ask for about their own account: the same bytes that an order for it yields.

    core.take_record ─▶ store.rows (thread of the store, nothing else meanwhile) ─▶ held_of (another thread)
                                                                                ─▶ core.record_made

The store stands still only while the rows are read; to put them together takes longer, and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relay.core import RelayCore
from relay.core.events import RecordRead, RowNumbers, Snapshot
from relay.held import held_of
from relay.tasks import end_tasks

__all__ = ["RecordMaker"]


class RecordMaker:
    """Makes one record after the other, as the core asks.

    Args:
        core: says for whom.
        rows: reads rows of one moment from the store.
        clock_ms: Unix time in milliseconds.
        made: called after each record: the core has something to say, and may want the next one.
    """

    def __init__(
        self,
        core: RelayCore,
        rows: Callable[[RowNumbers], Awaitable[Snapshot]],
        clock_ms: Callable[[], int],
        made: Callable[[], None],
    ) -> None:
        self._core = core
        self._rows = rows
        self._clock_ms = clock_ms
        self._made = made
        self._task: asyncio.Task[None] | None = None

    async def step(self) -> None:
        """Read the rows of the next record that is wanted, if any; to be called while nothing is committed."""
        read = self._core.take_record(self._clock_ms())
        if read is None:
            return
        try:
            snapshot = await self._rows(read.rows)
        except Exception:  # a disk that cannot be read now: the device is told to ask again
            self._end(read, None)
            return
        self._task = asyncio.create_task(self._make(read, snapshot), name="record")

    async def _make(self, read: RecordRead, snapshot: Snapshot) -> None:
        data: bytes | None = None
        try:
            data = await asyncio.to_thread(lambda: held_of(snapshot, read.account).data)
        except Exception:  # nobody of that name any more: the device is told to ask again, and then that it may not
            data = None
        self._end(read, data)

    def _end(self, read: RecordRead, data: bytes | None) -> None:
        self._core.record_made(read, data, self._clock_ms())
        self._made()

    async def settled(self) -> None:
        """Wait until the record under way, if any, is made."""
        if self._task is not None:
            await asyncio.gather(self._task)

    async def close(self) -> None:
        """Stop; a record under way is not given any more."""
        if self._task is not None:
            await end_tasks([self._task])
