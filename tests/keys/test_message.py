"""One message under one key: commitment, associated data, padding (protocol.md sections 4.2 to 4.4)."""

import hashlib
from typing import Any

import pytest

from keys.errors import AuthenticationFailed, SuiteRefused
from keys.message import (
    Opening,
    aead_seal,
    associated_data,
    associated_start,
    check_body,
    check_content,
    message_keys,
    open_with_message_key,
)
from wire.errors import FormatError
from wire.limits import BODY_BYTES_MAX
from wire.padding import pad

ANA, BEN, ENVELOPE = b"a" * 32, b"b" * 32, b"e" * 16
KEY = bytes(range(32))


def body_of(
    key: bytes = KEY, commitment: bytes | None = None, suite: bytes = b"\0\1", padded: bytes = pad(b"m")
) -> bytes:
    encryption_key, right = message_keys(key)
    prefix = b"h" * 16 + (commitment or right) + b"n" * 24 + b"H" * 56
    ad = b"blindpost/v1/message\0" + suite + ANA + BEN + ENVELOPE + prefix
    return prefix + aead_seal(padded, ad, b"n" * 24, encryption_key)


def opening(**changes: Any) -> Opening:
    return Opening(KEY, ANA, BEN, 128)._replace(**changes)


def test_message_keys_are_one_keyed_hash() -> None:
    both = hashlib.blake2b(b"", digest_size=64, key=KEY, person=b"bp1-message").digest()
    assert message_keys(KEY) == (both[:32], both[32:])


def test_associated_data_is_as_written() -> None:
    expected = b"blindpost/v1/message\0" + b"\0\1" + ANA + BEN + ENVELOPE + b"prefix"
    assert associated_data(ANA, BEN, ENVELOPE, b"prefix") == expected


def test_message_key_opens_its_row() -> None:
    assert open_with_message_key(body_of(), ENVELOPE, opening()) == b"m"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"sender_device": BEN}, "content"),
        ({"recipient_device": ANA}, "content"),
        ({"message_key": bytes(32)}, "commitment"),
        ({"offset": 129}, "content"),
        ({"offset": 72}, "content"),
    ],
)
def test_message_key_does_not_open_another_row(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(AuthenticationFailed, match=f"{what}: does not authenticate"):
        open_with_message_key(body_of(), ENVELOPE, opening(**changes))


def test_swapped_envelope_id_does_not_open() -> None:
    with pytest.raises(AuthenticationFailed, match="content"):
        open_with_message_key(body_of(), b"f" * 16, opening())


def test_body_of_a_historical_suite_does_not_open() -> None:
    with pytest.raises(AuthenticationFailed, match="content"):
        open_with_message_key(body_of(suite=b"\x50\x49"), ENVELOPE, opening())
    with pytest.raises(SuiteRefused, match="suite: 0x5049 is refused, only 0x0001 is spoken"):
        associated_start(ANA, BEN, 0x5049)


def test_every_flipped_bit_is_noticed() -> None:
    body = body_of()
    for at in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(AuthenticationFailed):
            open_with_message_key(bytes(flipped), ENVELOPE, opening())


def test_body_that_opens_under_two_keys_is_refused_by_its_commitment() -> None:
    # XChaCha20-Poly1305 alone allows a ciphertext that opens under two chosen keys; the commitment names one of them.
    other = bytes(reversed(KEY))
    body = body_of(key=other, commitment=message_keys(KEY)[1])
    for key in (KEY, other):
        with pytest.raises(AuthenticationFailed):
            open_with_message_key(body, ENVELOPE, opening(message_key=key))


@pytest.mark.parametrize("padded", [bytes(256), b"m" + bytes(255), pad(b"m") + bytes(256), b"m\x80" + bytes(300)])
def test_padding_that_is_not_the_one_for_its_content_is_refused(padded: bytes) -> None:
    with pytest.raises(FormatError, match="padding"):
        open_with_message_key(body_of(padded=padded), ENVELOPE, opening())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"offset": 71}, "offset"),
        ({"offset": 10_000}, "offset"),
        ({"offset": -1}, "offset"),
        ({"message_key": b""}, "message key"),
        ({"sender_device": b""}, "device key"),
    ],
)
def test_malformed_opening_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FormatError, match=field):
        open_with_message_key(body_of(), ENVELOPE, opening(**changes))


def test_lengths_out_of_bounds_are_refused() -> None:
    with pytest.raises(FormatError, match=r"body: has 399 bytes \(limit 400\)"):
        check_body(bytes(399))
    with pytest.raises(FormatError, match=rf"body: has {BODY_BYTES_MAX + 1} bytes \(limit {BODY_BYTES_MAX}\)"):
        check_body(bytes(BODY_BYTES_MAX + 1))
    with pytest.raises(FormatError, match=r"content: has 65537 bytes \(limit 65536\)"):
        check_content(bytes(65_537))
    with pytest.raises(FormatError, match=r"envelope id: has 15 bytes \(limit 16\)"):
        open_with_message_key(body_of(), bytes(15), opening())


def test_repr_of_an_opening_shows_no_key() -> None:
    assert repr(opening()) == (
        f"Opening(message_key=<redacted>, sender_device={ANA.hex()}, recipient_device={BEN.hex()}, offset=128)"
    )
