"""Merkle tree hash and inclusion paths (RFC 9162 sections 2.1.1 and 2.1.3).

The tree of one commit: small, built whole from its leaf hashes. The verifier has its own, independently written.
"""

from collections.abc import Sequence
from hashlib import sha256

from wire.errors import FormatError, SignatureError
from wire.limits import HASH_BYTES

__all__ = ["path_of", "root_of", "verify_path"]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes (RFC 9162 section 2.1.1); of no leaves, SHA-256 of nothing."""
    if not leaves:
        return sha256(b"").digest()
    level = list(leaves)
    # Pairing from the left and carrying an odd last node up unchanged gives the RFC's recursive split.
    while len(level) > 1:
        pairs = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
    return level[0]


def path_of(leaves: Sequence[bytes], index: int) -> bytes:
    """The inclusion path of leaf `index`, from leaf to root, concatenated (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < len(leaves):
        raise FormatError("leaf index", f"{index} is outside of {len(leaves)} leaves", len(leaves))
    path = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        pairs = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
        index //= 2
    return b"".join(path)


def paths_of(leaves: Sequence[bytes]) -> list[bytes]:
    """The inclusion paths of all leaves; cheaper than `path_of` for each, since the levels are built once."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        levels.append(pairs)
    paths = []
    for leaf in range(len(leaves)):
        index, path = leaf, []
        for level in levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index //= 2
        paths.append(b"".join(path))
    return paths


def verify_path(leaf_hash: bytes, index: int, size: int, path: bytes, root: bytes) -> None:
    """Verify an inclusion path (RFC 9162 section 2.1.3.2).

    Args:
        leaf_hash: 32 bytes.
        index: the leaf's place, from 0.
        size: the number of leaves.
        path: concatenated hashes, from leaf to root.
        root: the root that must come out.

    Raises:
        FormatError: index, or length of a hash or of the path, cannot be right.
        SignatureError: the root does not come out.
    """
    if not 0 <= index < size:
        raise FormatError("leaf index", f"{index} is outside of {size} leaves", size)
    if len(leaf_hash) != HASH_BYTES or len(root) != HASH_BYTES or len(path) % HASH_BYTES:
        raise FormatError("inclusion path", "has a hash that is not of 32 bytes", HASH_BYTES)
    node, last = index, size - 1
    result = leaf_hash
    for start in range(0, len(path), HASH_BYTES):
        sibling = path[start : start + HASH_BYTES]
        if last == 0:
            raise FormatError("inclusion path", "is longer than the tree is high")
        if node & 1 or node == last:
            result = sha256(b"\x01" + sibling + result).digest()
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = sha256(b"\x01" + result + sibling).digest()
        node >>= 1
        last >>= 1
    if last != 0:
        raise FormatError("inclusion path", "is shorter than the tree is high")
    if result != root:
        raise SignatureError("inclusion path")
