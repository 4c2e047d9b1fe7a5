"""Safety numbers (protocol.md section 2.5)."""

from hashlib import sha512

import pytest

from keys.errors import HandshakeError
from keys.fingerprint import fingerprint, safety_number
from wire.errors import FormatError

ANA, BEN = "ana@acme.example", "ben@bolt.example"
KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))


def test_number_is_the_same_from_both_sides() -> None:
    number = safety_number(ANA, KEY_A, BEN, KEY_B)
    assert number == safety_number(BEN, KEY_B, ANA, KEY_A)
    groups = number.split(" ")
    assert len(groups) == 12
    assert all(len(group) == 5 and group.isdigit() for group in groups)


def test_number_changes_with_any_key_or_account() -> None:
    number = safety_number(ANA, KEY_A, BEN, KEY_B)
    assert safety_number(ANA, KEY_B, BEN, KEY_B) != number
    assert safety_number(ANA, KEY_A, BEN, KEY_A) != number
    assert safety_number("anb@acme.example", KEY_A, BEN, KEY_B) != number


def test_fingerprint_is_the_iteration_as_it_is_written() -> None:
    typed_key = b"\x09" + KEY_A
    digest = b"blindpost/v1/safety-number\0" + typed_key + ANA.encode()
    digest = sha512(digest).digest()
    for _ in range(5_199):
        digest = sha512(digest + typed_key).digest()
    expected = "".join(str(int.from_bytes(digest[i : i + 5], "big") % 100_000).zfill(5) for i in range(0, 30, 5))
    assert fingerprint(ANA, KEY_A) == expected


def test_number_with_oneself_is_refused() -> None:
    with pytest.raises(HandshakeError, match="both accounts are the same"):
        safety_number(ANA, KEY_A, ANA, KEY_B)


def test_malformed_account_or_key_is_refused() -> None:
    with pytest.raises(FormatError):
        fingerprint("Ana", KEY_A)
    with pytest.raises(FormatError):
        fingerprint(ANA, KEY_A[:-1])
