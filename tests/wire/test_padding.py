"""PADMÉ (protocol.md section 3)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import FormatError
from wire.padding import pad, padme, padme_lengths, unpad


def padme_by_the_paper(length: int) -> int:
    """Algorithm 1 of the paper, in its own words."""
    if length < 2:
        return length
    e = math.floor(math.log2(length))
    s = math.floor(math.log2(e)) + 1 if e > 0 else 1
    last_bits = max(e - s, 0)
    mask = 2**last_bits - 1
    return int((length + mask) & ~mask)


@given(st.integers(0, 30_000_000))
def test_padme_is_the_papers(length: int) -> None:
    assert padme(length) == padme_by_the_paper(length)


@given(st.integers(2, 30_000_000))
def test_padme_never_shortens_is_a_fixed_point_and_costs_at_most_12_percent(length: int) -> None:
    padded = padme(length)
    assert length <= padded <= length * 1.12 + 1
    assert padme(padded) == padded


@given(st.binary(max_size=2_000))
def test_unpad_gives_back_what_was_padded(content: bytes) -> None:
    padded = pad(content)
    assert len(padded) in padme_lengths(4_096)
    assert unpad(padded) == content


@given(st.binary(max_size=1_200))
def test_whatever_unpads_pads_to_the_same_bytes(padded: bytes) -> None:
    try:
        content = unpad(padded)
    except FormatError:
        return
    assert pad(content) == padded


@pytest.mark.parametrize(
    ("padded", "problem"),
    [
        (b"", "does not end in 0x80"),
        (bytes(256), "does not end in 0x80"),
        (b"x" * 256, "does not end in 0x80"),
        (b"x\x80" + bytes(255), "not the one length"),
        (b"x\x80", "not the one length"),
    ],
)
def test_bad_padding_is_refused(padded: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem) as caught:
        unpad(padded)
    assert caught.value.field == "padding"


def test_the_lengths_listed_are_all_the_lengths_there_are() -> None:
    listed = padme_lengths(70_000)
    assert set(listed) == {max(256, padme(n)) for n in range(1, listed[-1] + 1)}
