"""X25519 and ML-KEM: what is refused (protocol.md section 1.3)."""

import pytest

from keys.agreement import decapsulate, diffie_hellman, draw, encapsulate, kem_public
from keys.errors import SharedSecretZero
from keys.identity import DeviceKeys
from wire.errors import FormatError

# RFC 7748 section 6.1 asks for a check of the all-zero result; these are the points of small order, on curve and twist.
SMALL_ORDER_X25519 = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("public", SMALL_ORDER_X25519)
def test_all_zero_shared_secret_is_refused(public: str) -> None:
    with pytest.raises(SharedSecretZero, match="all zeros"):
        diffie_hellman(bytes(range(32)), bytes.fromhex(public))
    with pytest.raises(SharedSecretZero):
        DeviceKeys.generate().agree(bytes.fromhex(public))


@pytest.mark.parametrize(("private", "public"), [(31, 32), (32, 33), (0, 32), (32, 0)])
def test_x25519_key_of_wrong_length_is_refused(private: int, public: int) -> None:
    with pytest.raises(FormatError, match=r"X25519 key: has a wrong length \(limit 32\)"):
        diffie_hellman(b"k" * private, b"p" * public)


def test_ml_kem_key_of_wrong_length_is_refused() -> None:
    with pytest.raises(FormatError, match=r"ML-KEM key: has 1183 bytes \(limit 1184\)"):
        encapsulate(bytes(1_183))


def test_ml_kem_key_with_a_coefficient_out_of_range_is_refused() -> None:
    # FIPS 203 section 7.2, modulus check: twelve one bits are 4,095, and q is 3,329.
    key = b"\xff" * 3 + kem_public(bytes(64))[3:]
    with pytest.raises(FormatError, match="is not an ML-KEM-768 public key"):
        encapsulate(key)


def test_ml_kem_ciphertext_or_seed_of_wrong_length_is_refused() -> None:
    with pytest.raises(FormatError, match=r"ML-KEM ciphertext: has 1087 bytes \(limit 1088\)"):
        decapsulate(bytes(64), bytes(1_087))
    with pytest.raises(FormatError, match=r"ML-KEM seed: has 63 bytes \(limit 64\)"):
        decapsulate(bytes(63), bytes(1_088))


def test_short_read_of_entropy_never_becomes_a_key() -> None:
    with pytest.raises(FormatError, match=r"entropy: gave 31 bytes, not 32"):
        draw(lambda size: bytes(size - 1), 32)
