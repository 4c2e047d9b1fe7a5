"""Proofs of a growing log (RFC 6962 and 9162 section 2.1; C2SP merkle-tree): inclusion and consistency.

Made and checked by the recursions that define them, over any source of subtree hashes: `hashes(start, end)` gives the
Merkle tree hash of the leaves from `start` to before `end`, where `end - start` is a power of two that divides `start`.
The verifier has its own, written after the iterations of RFC 9162; the two must agree.

Rules: a leaf is hashed by its whole entry (`leaf_hash`); a proof from an empty tree says nothing and is refused; a
check raises, so that no caller can forget to look.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from wire.errors import FormatError, SignatureError
from wire.limits import HASH_BYTES

__all__ = [
    "EMPTY_ROOT",
    "Hashes",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "tree_hash",
    "verify_consistency",
    "verify_inclusion",
]

Hashes: TypeAlias = Callable[[int, int], bytes]

EMPTY_ROOT: Final = sha256(b"").digest()
PROOF_HASHES_MAX: Final = 64
"""A tree of 2^64 leaves has no longer path, and a consistency proof is one longer than the path at most."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below a size of 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def _whole(start: int, end: int) -> bool:
    size = end - start
    return size & (size - 1) == 0


def tree_hash(hashes: Hashes, start: int, end: int) -> bytes:
    """MTH of the leaves from `start` to before `end`; `start` is 0 or what the recursion of the RFC gives."""
    if start == end:
        return EMPTY_ROOT
    if _whole(start, end):
        return hashes(start, end)
    middle = start + _split(end - start)
    return node_hash(hashes(start, middle), tree_hash(hashes, middle, end))


def inclusion_proof(hashes: Hashes, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]): from the leaf's sibling up to the root's child.

    Raises:
        FormatError: no such leaf.
    """
    if not 0 <= index < size:
        raise FormatError("leaf index", f"{index} is outside of {size} leaves", size)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(tree_hash(hashes, middle, end))
            end = middle
        else:
            path.append(tree_hash(hashes, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(hashes: Hashes, size1: int, size2: int) -> list[bytes]:
    """PROOF(size1, D[size2]).

    Raises:
        FormatError: `size1` is 0 or above `size2`.
    """
    _check_sizes(size1, size2)
    path: list[bytes] = []
    start, end, is_root1 = 0, size2, True
    while size1 != end:
        middle = start + _split(end - start)
        if size1 <= middle:
            path.append(tree_hash(hashes, middle, end))
            end = middle
        else:
            path.append(tree_hash(hashes, start, middle))
            start, is_root1 = middle, False
    if not is_root1:
        path.append(tree_hash(hashes, start, end))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash stands at `index` of the tree of `size` leaves.

    Raises:
        FormatError: an index, a length or the count of hashes cannot be right.
        SignatureError: the root does not come out.
    """
    if not 0 <= index < size:
        raise FormatError("leaf index", f"{index} is outside of {size} leaves", size)
    _check_hashes("inclusion proof", (leaf, root, *proof))
    rest = iter(reversed(proof))

    def root_of(start: int, end: int) -> bytes:
        if end - start == 1:
            return leaf
        middle = start + _split(end - start)
        sibling = _next(rest, "inclusion proof")
        return (
            node_hash(root_of(start, middle), sibling) if index < middle else node_hash(sibling, root_of(middle, end))
        )

    found = root_of(0, size)
    _end(rest, "inclusion proof")
    if found != root:
        raise SignatureError("inclusion proof")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `size1` leaves is the beginning of that of `size2`.

    Raises:
        FormatError: a size, a length or the count of hashes cannot be right; `size1` is 0.
        SignatureError: one of the roots does not come out.
    """
    _check_sizes(size1, size2)
    _check_hashes("consistency proof", (root1, root2, *proof))
    rest = iter(reversed(proof))

    def roots_of(start: int, end: int, is_root1: bool) -> tuple[bytes, bytes]:
        """The earlier and the later tree's hash of this part."""
        if end == size1:
            whole = root1 if is_root1 else _next(rest, "consistency proof")
            return whole, whole
        middle = start + _split(end - start)
        sibling = _next(rest, "consistency proof")
        if size1 <= middle:
            first, second = roots_of(start, middle, is_root1)
            return first, node_hash(second, sibling)
        first, second = roots_of(middle, end, is_root1=False)
        return node_hash(sibling, first), node_hash(sibling, second)

    first, second = roots_of(0, size2, is_root1=True)
    _end(rest, "consistency proof")
    if first != root1 or second != root2:
        raise SignatureError("consistency proof")


def _check_sizes(size1: int, size2: int) -> None:
    if size1 < 1:
        raise FormatError("first size", f"is {size1}: nothing can be proven from an empty tree", 1)
    if size1 > size2:
        raise FormatError("first size", f"{size1} is above the second", size2)


def _check_hashes(name: str, hashes: Sequence[bytes]) -> None:
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise FormatError(name, "has a hash that is not of 32 bytes", HASH_BYTES)
    # Leaf or roots are counted as well.
    if len(hashes) > PROOF_HASHES_MAX + 2:
        raise FormatError(name, f"has {len(hashes) - 2} hashes", PROOF_HASHES_MAX)


def _next(rest: Iterator[bytes], name: str) -> bytes:
    for hash_ in rest:
        return hash_
    raise FormatError(name, "is shorter than the tree is high")


def _end(rest: Iterator[bytes], name: str) -> None:
    if next(rest, None) is not None:
        raise FormatError(name, "is longer than the tree is high")
