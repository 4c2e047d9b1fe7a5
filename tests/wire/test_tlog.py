"""Proofs of a growing log: published vectors, and the two implementations, here and in the verifier, agree on all."""

from base64 import b64decode
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle as audit_merkle
from audit.errors import AuditError
from tests.audit.test_merkle import LEAVES, ROOTS
from wire import tlog
from wire.errors import BlindpostError, FormatError

# Two of the proofs that transparency-dev/merkle publishes as test data.
INCLUSION_5_OF_8 = [
    b64decode(text)
    for text in (
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    )
]
CONSISTENCY_2_TO_5 = [
    b64decode(text)
    for text in (
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    )
]
HASH = b"\x07" * 32
Inclusion = Callable[[bytes, int, int, list[bytes], bytes], None]
Consistency = Callable[[int, bytes, int, bytes, list[bytes]], None]
INCLUSIONS = pytest.mark.parametrize("verify", [tlog.verify_inclusion, audit_merkle.verify_inclusion])
CONSISTENCIES = pytest.mark.parametrize("verify", [tlog.verify_consistency, audit_merkle.verify_consistency])
REFUSED = (BlindpostError, AuditError)


def source_of(leaves: Sequence[bytes]) -> tlog.Hashes:
    """Subtree hashes, from the leaf hashes."""

    def hashes(start: int, end: int) -> bytes:
        if end - start == 1:
            return leaves[start]
        middle = (start + end) // 2
        return tlog.node_hash(hashes(start, middle), hashes(middle, end))

    return hashes


LEAF_HASHES = [tlog.leaf_hash(leaf) for leaf in LEAVES]
SOURCE = source_of(LEAF_HASHES)


def test_the_published_roots_come_out() -> None:
    assert [tlog.tree_hash(SOURCE, 0, size) for size in range(1, 9)] == ROOTS
    assert tlog.tree_hash(SOURCE, 0, 0) == tlog.EMPTY_ROOT
    assert tlog.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_published_proofs_come_out() -> None:
    assert tlog.inclusion_proof(SOURCE, 5, 8) == INCLUSION_5_OF_8
    assert tlog.consistency_proof(SOURCE, 2, 5)[-2:] == CONSISTENCY_2_TO_5[-2:]


@INCLUSIONS
def test_the_published_inclusion_proof_verifies(verify: Inclusion) -> None:
    verify(LEAF_HASHES[5], 5, 8, INCLUSION_5_OF_8, ROOTS[7])


@CONSISTENCIES
def test_the_published_consistency_proof_verifies(verify: Consistency) -> None:
    verify(2, ROOTS[1], 5, ROOTS[4], CONSISTENCY_2_TO_5)


@INCLUSIONS
def test_every_proof_of_small_trees_verifies_and_no_other_place_does(verify: Inclusion) -> None:
    for size in range(1, 9):
        for index in range(size):
            proof = tlog.inclusion_proof(SOURCE, index, size)
            verify(LEAF_HASHES[index], index, size, proof, ROOTS[size - 1])
            for other in {*range(-1, size + 2)} - {index}:
                with pytest.raises(REFUSED):
                    verify(LEAF_HASHES[index], other, size, proof, ROOTS[size - 1])


@CONSISTENCIES
def test_every_consistency_of_small_trees_verifies_and_no_other_sizes_do(verify: Consistency) -> None:
    for size2 in range(1, 9):
        for size1 in range(1, size2 + 1):
            proof = tlog.consistency_proof(SOURCE, size1, size2)
            verify(size1, ROOTS[size1 - 1], size2, ROOTS[size2 - 1], proof)
            for other in {*range(-1, 10)} - {size1}:
                with pytest.raises(REFUSED):
                    verify(other, ROOTS[size1 - 1], size2, ROOTS[size2 - 1], proof)


sizes = st.integers(1, 300)


@given(size=sizes, data=st.data())
def test_both_implementations_take_a_true_proof_and_refuse_a_changed_one(size: int, data: st.DataObject) -> None:
    leaves = [tlog.leaf_hash(index.to_bytes(2, "big")) for index in range(size)]
    hashes = source_of(leaves)
    root = tlog.tree_hash(hashes, 0, size)
    assert root == audit_merkle.root_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = tlog.inclusion_proof(hashes, index, size)
    changed = data.draw(changes(proof))
    for verify in (tlog.verify_inclusion, audit_merkle.verify_inclusion):
        verify(leaves[index], index, size, proof, root)
        with pytest.raises(REFUSED):
            verify(leaves[index], index, size, changed, root)
    size1 = data.draw(st.integers(1, size))
    root1 = tlog.tree_hash(hashes, 0, size1)
    steps = tlog.consistency_proof(hashes, size1, size)
    changed = data.draw(changes(steps))
    for check in (tlog.verify_consistency, audit_merkle.verify_consistency):
        check(size1, root1, size, root, steps)
        with pytest.raises(REFUSED):
            check(size1, root1, size, root, changed)
        with pytest.raises(REFUSED):
            check(size1, HASH, size, root, steps)
        with pytest.raises(REFUSED):
            check(size1, root1, size, HASH, steps)


@st.composite
def changes(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """The proof with one hash more, less, flipped or cut."""
    kinds = ["more"] + ["less", "flipped", "cut"] * bool(proof)
    kind = draw(st.sampled_from(kinds))
    at = draw(st.integers(0, max(0, len(proof) - (kind != "more"))))
    changed = list(proof)
    if kind == "more":
        changed.insert(at, draw(st.sampled_from([HASH, *proof])))
    elif kind == "less":
        del changed[at]
    elif kind == "cut":
        changed[at] = changed[at][:-1]
    else:
        bit = draw(st.integers(0, 255))
        changed[at] = (int.from_bytes(changed[at], "big") ^ 1 << bit).to_bytes(32, "big")
    return changed


@CONSISTENCIES
def test_a_proof_from_an_empty_tree_is_refused(verify: Consistency) -> None:
    for size1, size2, proof in ((0, 0, []), (0, 1, []), (0, 1, [HASH]), (-1, 1, []), (2, 1, [])):
        with pytest.raises(REFUSED, match="first size"):
            verify(size1, tlog.EMPTY_ROOT, size2, tlog.EMPTY_ROOT, proof)


@CONSISTENCIES
def test_trees_of_one_size_have_one_root_and_no_proof(verify: Consistency) -> None:
    verify(1, HASH, 1, HASH, [])
    for root2, proof in ((ROOTS[0], []), (HASH, [HASH])):
        with pytest.raises(REFUSED):
            verify(1, HASH, 1, root2, proof)


@pytest.mark.parametrize("size", [0, 1, 31, 33])
def test_hashes_of_another_length_are_refused_even_where_nothing_is_computed(size: int) -> None:
    short = b"x" * size
    for verify in (tlog.verify_inclusion, audit_merkle.verify_inclusion):
        for leaf, proof, root in ((short, [], short), (HASH, [short], HASH), (HASH, [HASH], short)):
            with pytest.raises(REFUSED):
                verify(leaf, 0, 1 + len(proof), proof, root)
    for check in (tlog.verify_consistency, audit_merkle.verify_consistency):
        for root1, root2, proof in ((short, short, []), (HASH, short, [HASH]), (HASH, HASH, [short])):
            with pytest.raises(REFUSED):
                check(1, root1, 1 + len(proof), root2, proof)


def test_a_bomb_of_hashes_is_refused_before_any_is_computed() -> None:
    many = [HASH] * 100
    for verify in (tlog.verify_inclusion, audit_merkle.verify_inclusion):
        with pytest.raises(REFUSED, match=r"100|64"):
            verify(HASH, 0, 2**70, many, HASH)
    for check in (tlog.verify_consistency, audit_merkle.verify_consistency):
        with pytest.raises(REFUSED, match=r"100|64"):
            check(3, HASH, 2**70, HASH, many)


def test_a_proof_for_a_leaf_that_is_not_there_is_not_made() -> None:
    for index, size in ((0, 0), (-1, 3), (3, 3)):
        with pytest.raises(FormatError, match="leaf index"):
            tlog.inclusion_proof(SOURCE, index, size)
    with pytest.raises(FormatError, match="first size"):
        tlog.consistency_proof(SOURCE, 0, 3)
