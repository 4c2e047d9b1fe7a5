"""Hashes, padding sizes, body sizes, signatures: the numbers of protocol.md sections 1, 3 and 4.4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import crypto
from audit.errors import OpenError, SignatureError
from audit.material import HistoricalKey, MessageKeyItem, Opening, Secret
from tests.audit import honest


@given(st.integers(2, 200_000))
def test_padme_leaks_little_and_adds_at_most_an_eighth(length: int) -> None:
    padded = crypto.padme(length)
    assert padded == honest.padme(length)
    assert length <= padded <= length * 1.125
    assert crypto.padme(padded) == padded
    assert max(256, padded) in crypto.padded_sizes() or padded > crypto.BODY_BYTES_MAX


@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        (399, ()),
        (400, ("ordinary",)),
        (401, ()),
        (416, ("ordinary",)),
        (1794, ("first",)),
        (1282 + 256 * 16 + 256, ("first",)),
        (1282 + 256 * 17 + 256 + 1, ()),
        (88 + 1024 * 32, ("chunk",)),
        (88 + 1024 * 31, ()),
        (88 + 1024 * 192, ("chunk",)),
        (88 + 1024 * 193, ()),
        (196_697, ()),
    ],
)
def test_body_sizes_are_those_of_section_4_4(size: int, kinds: tuple[str, ...]) -> None:
    assert crypto.body_kinds(size) == kinds


def test_signatures_follow_the_strict_rule() -> None:
    key = honest.SigningKey(bytes(range(32)))
    signature = key.sign("commit", b"data")
    crypto.verify(key.public, "commit", b"data", signature)
    order = 2**252 + 27742317777372353535851937790883648493
    high = int.from_bytes(signature[32:], "little") + order
    for public, name, data, bent in (
        (key.public, "commit", b"other", signature),
        (key.public, "disclosure", b"data", signature),
        (key.public, "commit", b"data", signature[:32] + high.to_bytes(32, "little")),
        (bytes(32), "commit", b"data", signature),
        (b"\1" + bytes(31), "commit", b"data", b"\1" + bytes(63)),
        (key.public[:-1], "commit", b"data", signature),
        (key.public, "commit", b"data", signature[:-1]),
    ):
        with pytest.raises(SignatureError):
            crypto.verify(public, name, data, bent)


@pytest.mark.parametrize("padded", [bytes(256), b"x" * 256, b"x\x80" + bytes(510), b"\x80" + bytes(254)])
def test_padding_that_pad_would_not_give(padded: bytes) -> None:
    with pytest.raises(OpenError):
        crypto.unpad(padded)


@given(st.binary(max_size=2000))
def test_padding_comes_off(message: bytes) -> None:
    assert crypto.unpad(honest.pad(message)) == message


@pytest.mark.parametrize("offset", [0, 71, 400, 500])
def test_an_offset_outside_of_the_body_opens_nothing(offset: int) -> None:
    with pytest.raises(OpenError, match="lies outside"):
        crypto.open_content(bytes(32), bytes(400), offset, bytes(16), bytes(32), bytes(32))


def test_secrets_have_no_representation() -> None:
    secret = bytes(range(200, 232))
    for value in (
        crypto.message_keys(secret),
        Secret("ana", "key", secret),
        MessageKeyItem("ana", bytes(16), bytes(16), secret, bytes(32), bytes(32), 128),
        HistoricalKey("ana", 0x5049, secret),
        Opening("ana", secret, b"a text of ana"),
    ):
        shown = repr(value)
        assert "ana" in shown or "commitment" in shown
        assert secret.hex() not in shown
        assert repr(secret)[2:20] not in shown
        assert "a text of ana" not in shown
