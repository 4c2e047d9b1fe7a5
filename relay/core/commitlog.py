"""The log of commits: one signed header a commit, chained, and the receipts that it yields (protocol.md section 5.2).

It keeps each commit's header, signature and leaves as long as a live or tombstoned envelope is of it, so that a
repeated submit gets the receipt that the first one got. What the leaves mean is left to mailboxes.py, durability to
the store.

Rules: `time_ms` never falls; the header names the commit before it; a commit is pruned from the low end only, and the
last one never, since the next header names it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from relay.core.events import CommitRow, Snapshot
from wire.codec import decode, encode
from wire.errors import FormatError
from wire.limits import HASH_BYTES
from wire.merkle import path_of
from wire.receipt import CommitHeader, commit_hash
from wire.signing import SigningKey

__all__ = ["Commit", "CommitLog", "paths_in", "tree_of"]

# Paths of commits that repeated submits asked for lately; a commit has at most a few thousand leaves.
_PATHS_KEPT = 256


@dataclass(slots=True)
class Commit:
    """One durable commit. `live` counts its envelopes that are live or tombstoned."""

    index: int
    header: bytes
    signature: bytes
    leaves: bytes
    live: int

    def leaf(self, index: int) -> bytes:
        """Return a leaf hash."""
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]


class CommitLog:
    """The chain of one partition.

    Args:
        relay_id: 16 bytes.
        partition: the chain's number.
        snapshot: the commits that are stored.
    """

    def __init__(self, relay_id: bytes, partition: int, snapshot: Snapshot) -> None:
        self._relay_id = relay_id
        self._partition = partition
        self.commits: dict[int, Commit] = {}
        self.head_index = 0
        self.head_hash = bytes(HASH_BYTES)
        self._head_time_ms = 0
        self._lowest = 1
        self._paths: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        for row in snapshot.commits:
            self.commits[row.idx] = Commit(row.idx, row.header, row.signature, row.leaves, 0)
        if snapshot.commits:
            self._lowest = snapshot.commits[0].idx
            self._set_head(snapshot.commits[-1])

    def _set_head(self, row: CommitRow) -> None:
        header = decode(CommitHeader, row.header, "commit header")
        if header.relay_id != self._relay_id or header.partition != self._partition or header.index != row.idx:
            raise FormatError("commit header", f"{row.idx} is not of this relay, partition and index")
        self.head_index = row.idx
        self.head_hash = commit_hash(row.header)
        self._head_time_ms = max(self._head_time_ms, header.time_ms)

    def stage(self, leaves: list[bytes], key: SigningKey, now_ms: int) -> tuple[CommitRow, list[list[bytes]]]:
        """Make and sign the next header; the log is unchanged until `committed`. Return also the tree of its leaves."""
        tree = tree_of(leaves)
        header = encode(
            CommitHeader(
                self._relay_id,
                self._partition,
                self.head_index + 1,
                max(now_ms, self._head_time_ms),
                len(leaves),
                tree[-1][0],
                self.head_hash,
            )
        )
        return CommitRow(self.head_index + 1, header, key.sign("commit", header), b"".join(leaves)), tree

    @property
    def time_ms(self) -> int:
        """The time below which no header will be dated."""
        return self._head_time_ms

    def not_before(self, time_ms: int) -> None:
        """Date no later header before this: a disclosure was dated so, and later commits must look later."""
        self._head_time_ms = max(self._head_time_ms, time_ms)

    def committed(self, row: CommitRow) -> Commit:
        """Append a commit that is durable; all its envelopes are live."""
        commit = Commit(row.idx, row.header, row.signature, row.leaves, len(row.leaves) // HASH_BYTES)
        self.commits[row.idx] = commit
        if len(self.commits) == 1:
            self._lowest = row.idx
        self._set_head(row)
        return commit

    def hold(self, index: int) -> None:
        """Count a live or tombstoned envelope of a commit, while loading.

        Raises:
            FormatError: the store has no such commit.
        """
        commit = self.commits.get(index)
        if commit is None:
            raise FormatError("commits", f"{index} is named by an envelope or tombstone, and is not there")
        commit.live += 1

    def release(self, index: int) -> None:
        """An envelope of that commit is gone, and its tombstone too."""
        self.commits[index].live -= 1

    def prunable_below(self, most: int) -> int:
        """Return the index below which commits may be pruned, `most` of them at a time; 0 if there is none."""
        index = self._lowest
        end = min(self.head_index, self._lowest + most)
        while index < end:
            commit = self.commits.get(index)
            if commit is not None and commit.live:
                break
            index += 1
        return index if index > self._lowest else 0

    def pruned(self, below: int) -> None:
        """Forget commits whose rows are deleted."""
        for index in range(self._lowest, below):
            self.commits.pop(index, None)
        self._lowest = max(self._lowest, below)

    def path(self, commit: Commit, leaf: int) -> bytes:
        """Return the inclusion path of one leaf of an older commit."""
        key = (commit.index, leaf)
        path = self._paths.get(key)
        if path is None:
            data = commit.leaves
            leaves = [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]
            path = self._paths[key] = path_of(leaves, leaf)
            if len(self._paths) > _PATHS_KEPT:
                self._paths.popitem(last=False)
        return path


def tree_of(leaves: list[bytes]) -> list[list[bytes]]:
    """Return the Merkle tree over leaf hashes, level by level, the root last (RFC 9162 section 2.1.1)."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        # Pairing from the left, and carrying an odd last node up unchanged, gives the RFC's recursive split.
        above = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        levels.append(above)
    return levels


def paths_in(tree: list[list[bytes]]) -> list[bytes]:
    """Return the inclusion paths of all leaves (RFC 9162 section 2.1.3.1), each a concatenation from leaf to root.

    From the root down: a node's path is its sibling and its parent's path, so that each node costs one concatenation
    (`wire.merkle` walks up from each leaf, and every commit pays for this).
    """
    paths = [b""]
    for level in tree[-2::-1]:
        below = []
        for index in range(len(level)):
            sibling = index ^ 1
            above = paths[index >> 1]
            below.append(level[sibling] + above if sibling < len(level) else above)
        paths = below
    return paths
