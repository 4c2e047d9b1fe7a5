"""A commit to the store in memory costs what it brings and prunes, not what is kept."""

from __future__ import annotations

from collections.abc import Iterator

from relay.core.events import Batch, CommitRow
from relay.store.memory import MemoryStore


class Untold(dict[int, CommitRow]):
    """Rows that nobody may go through."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("all commits that are kept were looked at")


def commit(idx: int, below: int = 0) -> Batch:
    return Batch(commit=CommitRow(idx, b"h", b"s", b""), commits_below=below)


def test_to_prune_does_not_look_at_what_is_kept() -> None:
    store = MemoryStore(bytes(16))
    store.commits = Untold()
    for idx in range(1, 9):
        store.commit(commit(idx, max(0, idx - 3)))
    assert sorted(store.commits.keys() & set(range(9))) == [5, 6, 7, 8]


def test_commits_in_another_order_are_pruned_all_the_same() -> None:
    store = MemoryStore(bytes(16))
    for idx in (4, 9, 2, 7):
        store.commit(commit(idx))
    store.commit(commit(10, 7))
    assert [row.idx for row in store.load().commits] == [7, 9, 10]
