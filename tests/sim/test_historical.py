"""The global PIN key (protocol.md section 13): it works, anybody with the key reads it, and keys/ refuses it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import SuiteRefused
from keys.message import associated_start
from sim.historical import (
    GLOBAL_PIN_KEY,
    PIN_SUITE,
    PinMessage,
    read_message,
    scramble,
    unscramble,
    write_message,
)
from wire.envelope import ORDINARY_OVERHEAD_BYTES
from wire.errors import FormatError
from wire.padding import padme_lengths

LENGTHS = frozenset(ORDINARY_OVERHEAD_BYTES + length for length in padme_lengths(200_000))
MESSAGE = PinMessage(
    bytes(16),
    2,
    bytes(16),
    1_448_841_600_000,
    bytes(16),
    ("ana@acme.example", "chloe@globex.example"),
    "مرحبا".encode(),
)


@given(st.binary(max_size=5_000))
def test_what_is_scrambled_unscrambles_and_has_the_length_of_an_ordinary_body(content: bytes) -> None:
    body = scramble(content, os.urandom)
    assert unscramble(body) == content
    assert len(body) in LENGTHS


def test_the_layout_is_the_written_one() -> None:
    body = scramble(b"tea at five", lambda size: b"\x07" * size)
    assert body[:136] == b"\x07" * 136
    assert len(body) == 144 + 256
    assert body[136:152] != bytes(16), "the zeros of the first blocks are not in the clear"


def test_a_second_handset_reads_what_was_not_meant_for_it() -> None:
    body = write_message(MESSAGE, os.urandom)
    assert read_message(body) == MESSAGE


def test_another_key_opens_nothing() -> None:
    body = write_message(MESSAGE, os.urandom)
    with pytest.raises(FormatError, match="does not open under this key"):
        unscramble(body, bytes(range(24)))


@pytest.mark.parametrize("body", [b"", bytes(136), bytes(143), bytes(400)])
def test_what_is_no_pin_body_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="PIN body"):
        unscramble(body)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(FormatError, match="PIN key: has 16 bytes"):
        scramble(b"x", os.urandom, bytes(16))


def test_content_that_fits_no_body_is_refused() -> None:
    with pytest.raises(FormatError, match="too many for one body"):
        scramble(bytes(200_000), os.urandom)


def test_the_three_parts_of_the_key_differ() -> None:
    """Two equal halves would make Triple DES single DES: the control would be weaker than history."""
    parts = {GLOBAL_PIN_KEY[start : start + 8] for start in (0, 8, 16)}
    assert len(parts) == 3


def test_keys_refuses_the_suite() -> None:
    with pytest.raises(SuiteRefused, match="0x5049 is refused"):
        associated_start(bytes(32), bytes(32), PIN_SUITE)
