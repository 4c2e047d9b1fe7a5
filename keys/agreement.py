"""The primitives that make shared secrets: X25519, ML-KEM-768, HKDF-SHA-256 (protocol.md section 1.3).

Everything of keys/ that agrees on a secret goes through here, so that the published vectors (RFC 7748, FIPS 203,
RFC 5869; tests/keys/test_published_vectors.py) test the very calls in use. X25519 is libsodium's: it refuses a public
key of small order, and an all-zero result; a caller cannot forget that check, because there is no result to go on with.

ML-KEM private halves are kept as their 64-byte seeds (FIPS 203 section 7.1). Encapsulation takes no randomness from us:
the library draws its own.
"""

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InternalError
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError

from keys.errors import SharedSecretZero
from wire.errors import FormatError
from wire.limits import KEY_BYTES, ML_KEM_768_CIPHERTEXT_BYTES, ML_KEM_768_PUBLIC_BYTES

__all__ = [
    "Encapsulate",
    "Entropy",
    "decapsulate",
    "diffie_hellman",
    "draw",
    "encapsulate",
    "hkdf",
    "kem_public",
    "x_public",
]

Entropy = Callable[[int], bytes]
"""Draws that many random bytes: `os.urandom`, or a seeded stand-in where a run must repeat."""

Encapsulate = Callable[[bytes], tuple[bytes, bytes]]
"""ML-KEM-768 public key to (shared secret, ciphertext)."""

KEM_SEED_BYTES: Final = 64
_SHA256: Final = SHA256()


def draw(entropy: Entropy, size: int) -> bytes:
    """That many bytes of entropy.

    Raises:
        FormatError: the source gave another number of bytes; a short read must never become a key.
    """
    drawn = entropy(size)
    if len(drawn) != size:
        raise FormatError("entropy", f"gave {len(drawn)} bytes, not {size}", size)
    return drawn


def hkdf(ikm: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA-256, extract and expand (RFC 5869), `size` bytes of output."""
    return HKDF(_SHA256, size, salt, info).derive(ikm)


def x_public(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return crypto_scalarmult_base(private)


def diffie_hellman(private: bytes, public: bytes) -> bytes:
    """X25519 (RFC 7748).

    Raises:
        FormatError: a key is not of 32 bytes.
        SharedSecretZero: the result is all zeros (protocol.md section 1.3).
    """
    if len(private) != KEY_BYTES or len(public) != KEY_BYTES:
        raise FormatError("X25519 key", "has a wrong length", KEY_BYTES)
    try:
        # libsodium returns an error for small-order points, which is the same set that gives an all-zero result.
        return crypto_scalarmult(private, public)
    except (CryptoError, SodiumError):
        raise SharedSecretZero from None


def kem_public(seed: bytes) -> bytes:
    """The ML-KEM-768 public key (1,184 bytes) of a 64-byte seed."""
    return _kem_private(seed).public_key().public_bytes_raw()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh shared secret (32 bytes) and its ML-KEM-768 ciphertext (1,088 bytes) for a public key.

    Raises:
        FormatError: not an ML-KEM-768 public key: wrong length, or a coefficient out of range (FIPS 203 section 7.2).
    """
    if len(public) != ML_KEM_768_PUBLIC_BYTES:
        raise FormatError("ML-KEM key", f"has {len(public)} bytes", ML_KEM_768_PUBLIC_BYTES)
    try:
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except (ValueError, InternalError):
        raise FormatError("ML-KEM key", "is not an ML-KEM-768 public key") from None


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """The shared secret of a ciphertext. A forged ciphertext gives a secret that nobody knows (implicit rejection).

    Raises:
        FormatError: the ciphertext is not of 1,088 bytes, or the seed not of 64.
    """
    if len(ciphertext) != ML_KEM_768_CIPHERTEXT_BYTES:
        raise FormatError("ML-KEM ciphertext", f"has {len(ciphertext)} bytes", ML_KEM_768_CIPHERTEXT_BYTES)
    return _kem_private(seed).decapsulate(ciphertext)


def _kem_private(seed: bytes) -> MLKEM768PrivateKey:
    if len(seed) != KEM_SEED_BYTES:
        raise FormatError("ML-KEM seed", f"has {len(seed)} bytes", KEM_SEED_BYTES)
    return MLKEM768PrivateKey.from_seed_bytes(seed)
