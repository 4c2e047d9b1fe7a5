"""The Merkle tree of RFC 9162 section 2.1, over leaf hashes.

A leaf of a commit is hashed by the caller (protocol.md section 5.2), so this file knows nodes only. `verify_inclusion`
follows the algorithm of RFC 9162 section 2.1.3.2 step by step, and raises rather than returns, so that no caller can
forget to look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from audit.errors import ProofError

HASH_BYTES = 32
PROOF_HASHES_MAX = 64
"""A tree of 2^64 leaves has no longer path."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """HASH(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_hash(data: bytes) -> bytes:
    """HASH(0x00 ‖ data), the leaf of RFC 9162."""
    return hashlib.sha256(b"\x00" + data).digest()


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, level by level: an odd node is carried up as it is, which gives the same tree.

    Raises:
        ProofError: A leaf hash is not 32 bytes long.
    """
    if any(len(hash_) != HASH_BYTES for hash_ in leaf_hashes):
        raise ProofError("leaf hash", f"must have {HASH_BYTES} bytes")
    if not leaf_hashes:
        return hashlib.sha256(b"").digest()
    level = list(leaf_hashes)
    while len(level) > 1:
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is the one at `index` of the tree of `size` leaves with that root.

    Args:
        leaf_hash: 32 bytes.
        index: Counted from 0.
        size: Count of leaves, 1 or more.
        proof: The path from leaf to root, each 32 bytes.
        root: 32 bytes.

    Raises:
        ProofError: A length or the index is wrong, or the path does not lead to the root.
    """
    for name, value in (("leaf hash", leaf_hash), ("root", root), *(("path", step) for step in proof)):
        if len(value) != HASH_BYTES:
            raise ProofError(name, f"must have {HASH_BYTES} bytes, has {len(value)}")
    if not 0 <= index < size:
        raise ProofError("leaf index", f"{index} is not below the tree's size {size}")
    if len(proof) > PROOF_HASHES_MAX:
        raise ProofError("path", f"{len(proof)} hashes, at most {PROOF_HASHES_MAX} are possible")
    # RFC 9162 section 2.1.3.2: steps 2 and 3.
    fn, sn = index, size - 1
    result = leaf_hash
    for step in proof:
        # Step 4: "If sn is 0, then stop the iteration and fail the proof verification."
        if sn == 0:
            raise ProofError("path", "is longer than the tree is high")
        if fn & 1 or fn == sn:
            result = node_hash(step, result)
            if not fn & 1:
                while fn and not fn & 1:
                    fn >>= 1
                    sn >>= 1
        else:
            result = node_hash(result, step)
        fn >>= 1
        sn >>= 1
    # Step 5: "Compare sn to 0. Compare r against the root_hash."
    if sn != 0:
        raise ProofError("path", "is shorter than the tree is high")
    if result != root:
        raise ProofError("path", "does not lead to the root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that a tree of `size1` leaves is the beginning of one of `size2` leaves (RFC 9162 section 2.1.4.2).

    Args:
        size1: Count of leaves of the earlier tree, 1 or more: an empty tree is the beginning of any, so a proof from it
            says nothing and is refused.
        root1: 32 bytes.
        size2: Count of leaves of the later tree, not below `size1`.
        root2: 32 bytes.
        proof: Nodes, each 32 bytes; empty for two trees of one size.

    Raises:
        ProofError: A length or a size is wrong, or the proof does not lead to both roots.
    """
    for name, value in (("first root", root1), ("second root", root2), *(("proof", step) for step in proof)):
        if len(value) != HASH_BYTES:
            raise ProofError(name, f"must have {HASH_BYTES} bytes, has {len(value)}")
    if size1 < 1:
        raise ProofError("first size", f"{size1}: nothing can be proven from an empty tree")
    if size1 > size2:
        raise ProofError("first size", f"{size1} is above the second, {size2}")
    if len(proof) > PROOF_HASHES_MAX:
        raise ProofError("proof", f"{len(proof)} hashes, at most {PROOF_HASHES_MAX} are possible")
    if size1 == size2:
        if proof:
            raise ProofError("proof", "must be empty for trees of one size")
        if root1 != root2:
            raise ProofError("second root", "is another one for the same size")
        return
    if not proof:
        raise ProofError("proof", "is empty")
    # Step 2: "If first is an exact power of 2, then prepend first_hash to the consistency_path array."
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    # Steps 3 and 4.
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = second = path[0]
    for step in path[1:]:
        # Step 6: "If sn is 0, then stop the iteration and fail the proof verification."
        if sn == 0:
            raise ProofError("proof", "is longer than the tree is high")
        if fn & 1 or fn == sn:
            first, second = node_hash(step, first), node_hash(step, second)
            while fn and not fn & 1:
                fn >>= 1
                sn >>= 1
        else:
            second = node_hash(second, step)
        fn >>= 1
        sn >>= 1
    # Step 7: "Verify that the fr calculated is equal to the first_hash supplied, that the sr [...] second_hash [...],
    # and that sn is 0."
    if sn != 0:
        raise ProofError("proof", "is shorter than the tree is high")
    if first != root1:
        raise ProofError("proof", "does not lead to the first root")
    if second != root2:
        raise ProofError("proof", "does not lead to the second root")
