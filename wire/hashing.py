"""Labelled hashes and typed keys (protocol.md sections 1.1, 1.3 and 1.4).

Every hash and signature starts with a label, so that bytes made for one purpose mean nothing for another; every public
key that enters one is preceded by its type and role, so that no key is read as another kind (the confusion of encodings
that was found in PQXDH's first revision).
"""

from enum import IntEnum, unique
from functools import lru_cache
from hashlib import blake2b, sha256

from wire.errors import FormatError
from wire.limits import ID_BYTES, KEY_BYTES, ML_KEM_768_PUBLIC_BYTES

__all__ = ["KeyRole", "hash16", "hash32", "keyed", "label", "typed"]


@unique
class KeyRole(IntEnum):
    """Type and role of a public key, one byte (protocol.md section 1.4)."""

    DEVICE_IDENTITY = 0x01
    SIGNED_PREKEY = 0x02
    ONE_TIME_PREKEY = 0x03
    EPHEMERAL = 0x04
    RATCHET = 0x05
    ONE_TIME_KEM_PREKEY = 0x06
    LAST_RESORT_KEM_PREKEY = 0x07
    DEVICE = 0x08
    ACCOUNT = 0x09
    TENANT = 0x0A
    RELAY = 0x0B


_KEM_ROLES = frozenset({KeyRole.ONE_TIME_KEM_PREKEY, KeyRole.LAST_RESORT_KEM_PREKEY})


@lru_cache(maxsize=128)
def label(name: str) -> bytes:
    """L(name): `blindpost/v1/name` and a zero byte."""
    return b"blindpost/v1/" + name.encode("ascii") + b"\0"


def typed(role: KeyRole, key: bytes) -> bytes:
    """The role's byte and the key.

    Raises:
        FormatError: the key has not the length of its role (32 bytes, 1,184 for ML-KEM-768).
    """
    expected = ML_KEM_768_PUBLIC_BYTES if role in _KEM_ROLES else KEY_BYTES
    if len(key) != expected:
        raise FormatError(role.name.lower(), f"has {len(key)} bytes, not {expected}", expected)
    return bytes((role,)) + key


def hash16(name: str, data: bytes) -> bytes:
    """Unkeyed BLAKE2b of 16 bytes over L(name) ‖ data."""
    return blake2b(label(name) + data, digest_size=ID_BYTES).digest()


def hash32(name: str, data: bytes) -> bytes:
    """SHA-256 over L(name) ‖ data."""
    return sha256(label(name) + data).digest()


def keyed(key: bytes, person: bytes, data: bytes, size: int) -> bytes:
    """BLAKE2b with key and personalisation (at most 16 bytes, zero-padded), `size` bytes of output (RFC 7693)."""
    return blake2b(data, digest_size=size, key=key, person=person).digest()
