"""Trees and inclusion proofs against the vectors of RFC 6962 implementations (RFC 9162 section 2.1 keeps the tree)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import ProofError
from audit.merkle import leaf_hash, root_of, verify_inclusion
from tests.audit import honest

# The eight leaves and the roots of 1 to 8 of them that Certificate Transparency's implementations share
# (certificate-transparency, merkletree tests; transparency-dev/merkle, testonly/constants.go).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
# Index, size (both from 1 in the source, here index from 0), and the path, from the same source.
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def test_empty_tree_has_the_hash_of_nothing() -> None:
    assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert root_of([leaf_hash(leaf) for leaf in LEAVES[:size]]) == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "path"), PATHS)
def test_published_paths_verify(index: int, size: int, path: list[str]) -> None:
    steps = [bytes.fromhex(step) for step in path]
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, steps, ROOTS[size - 1])
    for other in range(size):
        if other != index:
            with pytest.raises(ProofError):
                verify_inclusion(leaf_hash(LEAVES[index]), other, size, steps, ROOTS[size - 1])


@given(st.integers(1, 70), st.data())
def test_every_path_verifies_and_no_changed_one_does(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path, root = honest.path_of(index, leaves), honest.tree(leaves)
    assert root_of(leaves) == root
    verify_inclusion(leaves[index], index, size, path, root)
    changes = [
        (leaves[index], index, size, [*path, bytes(32)], root),
        (leaf_hash(b"another"), index, size, path, root),
        (leaves[index], index, size, path, bytes(32)),
    ]
    if path:
        changes.append((leaves[index], index, size, path[:-1], root))
        step = data.draw(st.integers(0, len(path) - 1))
        changes.append((leaves[index], index, size, [*path[:step], bytes(32), *path[step + 1 :]], root))
    for change in changes:
        with pytest.raises(ProofError):
            verify_inclusion(*change)


@pytest.mark.parametrize(
    ("leaf", "index", "size", "path", "root", "text"),
    [
        (bytes(31), 0, 1, [], bytes(31), "leaf hash: must have 32 bytes, has 31"),
        (bytes(32), 0, 1, [], bytes(33), "root: must have 32 bytes, has 33"),
        (bytes(32), 0, 2, [b""], bytes(32), "path: must have 32 bytes, has 0"),
        (bytes(32), 1, 1, [], bytes(32), "leaf index: 1 is not below the tree's size 1"),
        (bytes(32), -1, 1, [], bytes(32), "leaf index: -1 is not below the tree's size 1"),
        (bytes(32), 0, 0, [], bytes(32), "leaf index: 0 is not below the tree's size 0"),
        (bytes(32), 0, 2**80, [bytes(32)] * 65, bytes(32), "path: 65 hashes, at most 64 are possible"),
        (bytes(32), 0, 1, [bytes(32)], bytes(32), "path: is longer than the tree is high"),
        (bytes(32), 0, 2, [], bytes(32), "path: is shorter than the tree is high"),
    ],
)
def test_wrong_lengths_and_places_are_refused(
    leaf: bytes, index: int, size: int, path: list[bytes], root: bytes, text: str
) -> None:
    with pytest.raises(ProofError) as caught:
        verify_inclusion(leaf, index, size, path, root)
    assert str(caught.value) == text


def test_a_leaf_hash_of_another_length_makes_no_tree() -> None:
    with pytest.raises(ProofError, match="leaf hash"):
        root_of([bytes(32), bytes(31)])
