"""Merkle trees (RFC 9162 section 2.1), against the RFC's recursive definition and published roots."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import FormatError, SignatureError
from wire.merkle import path_of, paths_of, root_of, verify_path

# The inputs and roots of certificate-transparency's reference tests (also in RFC 6962 implementations everywhere).
CT_INPUTS = [
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
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

leaves_strategy = st.lists(st.binary(min_size=32, max_size=32).filter(any), min_size=1, max_size=70)


def root_by_the_rfc(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, recursively."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + root_by_the_rfc(leaves[:k]) + root_by_the_rfc(leaves[k:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_the_published_roots_come_out(size: int) -> None:
    leaves = [sha256(b"\0" + data).digest() for data in CT_INPUTS[:size]]
    assert root_of(leaves).hex() == CT_ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root_of([]) == sha256(b"").digest()


@given(leaves_strategy)
def test_the_root_is_the_rfcs(leaves: list[bytes]) -> None:
    assert root_of(leaves) == root_by_the_rfc(leaves)


@given(leaves_strategy, st.data())
def test_every_path_verifies(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = path_of(leaves, index)
    assert path == paths_of(leaves)[index]
    verify_path(leaves[index], index, len(leaves), path, root_of(leaves))


@given(leaves_strategy, st.data())
def test_a_path_proves_no_other_leaf_place_or_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = path_of(leaves, index), root_of(leaves)
    with pytest.raises(SignatureError):
        verify_path(bytes(32), index, len(leaves), path, root)
    with pytest.raises(SignatureError):
        verify_path(leaves[index], index, len(leaves), path, bytes(32))
    if path:
        broken = bytearray(path)
        broken[data.draw(st.integers(0, len(path) - 1))] ^= 1
        with pytest.raises(SignatureError):
            verify_path(leaves[index], index, len(leaves), bytes(broken), root)


def test_paths_of_wrong_shape_are_refused() -> None:
    leaves = [bytes([n]) * 32 for n in range(5)]
    root, path = root_of(leaves), path_of(leaves, 2)
    with pytest.raises(FormatError, match="longer"):
        verify_path(leaves[2], 2, 5, path + bytes(32), root)
    with pytest.raises(FormatError, match="shorter"):
        verify_path(leaves[2], 2, 5, path[:-32], root)
    with pytest.raises(FormatError, match="32 bytes"):
        verify_path(leaves[2], 2, 5, path[:-1], root)
    with pytest.raises(FormatError, match="32 bytes"):
        verify_path(leaves[2][:-1], 2, 5, path, root)
    for index in (-1, 5):
        with pytest.raises(FormatError, match="outside of 5 leaves"):
            verify_path(leaves[2], index, 5, path, root)
        with pytest.raises(FormatError, match="outside of 5 leaves"):
            path_of(leaves, index)
