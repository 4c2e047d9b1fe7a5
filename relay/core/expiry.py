"""What expires when: buckets of a minute, so that a million expiries cost one append each and no sorting.

An item leaves its bucket only when the bucket is due, whatever became of it before: the owner looks at its state then.
An item may therefore be up to a minute late, never early.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["ExpiryBuckets"]

BUCKET_S = 60

Item = TypeVar("Item")


class ExpiryBuckets(Generic[Item]):
    """Items by the minute in which they expire."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[Item]] = {}
        self._minutes: list[int] = []
        self._due: deque[Item] = deque()

    def add(self, expiry_s: int, item: Item) -> None:
        """Put an item where its expiry is, rounded up to a minute."""
        self.bucket(expiry_s).append(item)

    def bucket(self, expiry_s: int) -> list[Item]:
        """Return where to append what expires then; to be used before the next `gather`."""
        minute = -(-expiry_s // BUCKET_S)
        bucket = self._buckets.get(minute)
        if bucket is None:
            bucket = self._buckets[minute] = []
            heappush(self._minutes, minute)
        return bucket

    def gather(self, now_s: int) -> bool:
        """Move the buckets that are due to the queue of due items; tell whether it holds any."""
        while self._minutes and self._minutes[0] * BUCKET_S <= now_s:
            self._due.extend(self._buckets.pop(heappop(self._minutes)))
        return bool(self._due)

    def take(self) -> Item | None:
        """Return one due item, or None."""
        return self._due.popleft() if self._due else None

    def give_back(self, items: list[Item]) -> None:
        """Put items back in front of the queue: their batch was aborted."""
        self._due.extendleft(reversed(items))

    def next_s(self) -> int | None:
        """Return when the next bucket is due; None if there is none."""
        return self._minutes[0] * BUCKET_S if self._minutes else None
