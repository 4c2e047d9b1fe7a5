"""Keys at rest: one random key, wrapped under a passphrase by Argon2id (RFC 9106), seals every row of a device's state.

    vault = Vault.create(passphrase)         store vault.header beside the rows; it is no secret
    row = vault.seal(state, name)
    vault = Vault.unlock(header, passphrase)
    state = vault.open(row, name)

A row's name is associated data: a row that is moved to another name does not open. What the vault cannot see is a
whole state put back to an earlier day; client/ has a generation marker for that. The passphrase is bytes; where it
comes from, and that it never was in argv or the environment, is for the caller.

Rules:

* a change of passphrase wraps the same key again, so that no row needs to be rewritten; whoever has an old header and
  the old passphrase keeps a way in, so the old header must be erased by its store;
* Argon2id parameters are read from the header and bounded before use: a hostile file must not ask for a terabyte.
"""

import os
from typing import Annotated, Final, NamedTuple

from msgspec import Meta
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from keys.agreement import Entropy, draw
from keys.errors import VaultDamaged, VaultLimit, WrongPassphrase
from wire.codec import Id, Record, decode, encode
from wire.errors import FormatError
from wire.hashing import keyed, label
from wire.limits import ID_BYTES, KEY_BYTES, UINT32_MAX

__all__ = ["CHEAP_FOR_TESTS", "STANDARD", "Cost", "Vault", "stretch"]

_KIND: Final = "vault/1"
_NONCE_BYTES: Final = 24
_WRAPPED_BYTES: Final = KEY_BYTES + 16
PASSPHRASE_BYTES_MAX: Final = 4_096
ROW_NAME_BYTES_MAX: Final = 1_024

# libsodium's own least values; most: what a small device can still run, and far beyond what a person waits for.
OPERATIONS_MIN: Final = 1
OPERATIONS_MAX: Final = 16
MEMORY_BYTES_MIN: Final = 8_192
MEMORY_BYTES_MAX: Final = 1_073_741_824


class Cost(NamedTuple):
    """What one try of a passphrase costs: passes over the memory, and its size in bytes (one lane)."""

    operations: int
    memory_bytes: int


STANDARD: Final = Cost(3, 268_435_456)
"""libsodium's MODERATE: 256 MiB, three passes."""

CHEAP_FOR_TESTS: Final = Cost(OPERATIONS_MIN, MEMORY_BYTES_MIN)
"""No protection at all: for tests and simulations, whose passphrases protect nothing."""


class _Header(Record, frozen=True):
    kind: str
    operations: Annotated[int, Meta(ge=0, le=UINT32_MAX)]
    memory_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    salt: Id
    nonce: Annotated[bytes, Meta(min_length=_NONCE_BYTES, max_length=_NONCE_BYTES)]
    wrapped: Annotated[bytes, Meta(min_length=_WRAPPED_BYTES, max_length=_WRAPPED_BYTES)]


class Vault:
    """An open vault. Its repr shows nothing of the key."""

    __slots__ = ("_entropy", "_key", "header")

    def __init__(self, key: bytes, header: bytes, entropy: Entropy) -> None:
        self._key = key
        self.header = header
        self._entropy = entropy

    def __repr__(self) -> str:
        return "Vault(key=<redacted>)"

    @classmethod
    def create(cls, passphrase: bytes, cost: Cost = STANDARD, entropy: Entropy = os.urandom) -> "Vault":
        """A new vault with a fresh random key.

        Raises:
            FormatError: an empty passphrase, or one above 4,096 bytes.
            VaultLimit: `cost` is out of bounds.
        """
        key = draw(entropy, KEY_BYTES)
        return cls(key, _wrap(key, passphrase, cost, entropy), entropy)

    @classmethod
    def unlock(cls, header: bytes, passphrase: bytes, entropy: Entropy = os.urandom) -> "Vault":
        """Unlock a vault by its header.

        Raises:
            WrongPassphrase: it does not open; an altered header looks the same.
            VaultLimit: the header asks for more than is run.
            FormatError: not a header.
        """
        stored = decode(_Header, header, "vault header")
        if stored.kind != _KIND:
            raise FormatError("vault header", "is of another kind")
        wrapping = stretch(passphrase, stored.salt, Cost(stored.operations, stored.memory_bytes))
        associated = _header_label(stored.operations, stored.memory_bytes, stored.salt)
        try:
            key = crypto_aead_xchacha20poly1305_ietf_decrypt(stored.wrapped, associated, stored.nonce, wrapping)
        except CryptoError:
            raise WrongPassphrase from None
        return cls(key, header, entropy)

    def change_passphrase(self, passphrase: bytes, cost: Cost = STANDARD) -> bytes:
        """Wrap the key under a new passphrase; store the header that this returns, and erase the old one.

        Raises:
            FormatError, VaultLimit: as `create`.
        """
        self.header = _wrap(self._key, passphrase, cost, self._entropy)
        return self.header

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Seal a row: nonce 24 ‖ XChaCha20-Poly1305.

        Args:
            plaintext: the row.
            associated: what names its place, at most 1,024 bytes; `open` takes it back only with the same.

        Raises:
            FormatError: the name is longer.
        """
        nonce = draw(self._entropy, _NONCE_BYTES)
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, _row_label(associated), nonce, self._key)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """The plaintext of a row.

        Raises:
            VaultDamaged: altered, moved from another name, or of another vault.
        """
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed[_NONCE_BYTES:], _row_label(associated), sealed[:_NONCE_BYTES], self._key
            )
        except (CryptoError, ValueError):  # ValueError: shorter than nonce and tag
            raise VaultDamaged from None

    def name_key(self) -> bytes:
        """A secret key of 32 bytes for hashing the names of rows, derived from the vault's and of no other use."""
        return keyed(self._key, b"bp1-row-name", b"", KEY_BYTES)


def _wrap(key: bytes, passphrase: bytes, cost: Cost, entropy: Entropy) -> bytes:
    salt, nonce = draw(entropy, ID_BYTES), draw(entropy, _NONCE_BYTES)
    wrapping = stretch(passphrase, salt, cost)
    associated = _header_label(cost.operations, cost.memory_bytes, salt)
    wrapped = crypto_aead_xchacha20poly1305_ietf_encrypt(key, associated, nonce, wrapping)
    return encode(_Header(_KIND, cost.operations, cost.memory_bytes, salt, nonce, wrapped))


def stretch(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    """Argon2id with one lane, 32 bytes of output.

    Raises:
        FormatError: an empty passphrase, or one above 4,096 bytes.
        VaultLimit: `cost` is out of bounds; nothing was run.
    """
    if not 1 <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise FormatError("passphrase", f"has {len(passphrase)} bytes", PASSPHRASE_BYTES_MAX)
    for field, value, least, most in (
        ("operations", cost.operations, OPERATIONS_MIN, OPERATIONS_MAX),
        ("memory_bytes", cost.memory_bytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX),
    ):
        if not least <= value <= most:
            raise VaultLimit(field, value, least if value < least else most)
    return argon2id.kdf(KEY_BYTES, passphrase, salt, opslimit=cost.operations, memlimit=cost.memory_bytes)


def _header_label(operations: int, memory_bytes: int, salt: bytes) -> bytes:
    return label("vault-header") + operations.to_bytes(4, "big") + memory_bytes.to_bytes(8, "big") + salt


def _row_label(associated: bytes) -> bytes:
    if len(associated) > ROW_NAME_BYTES_MAX:
        raise FormatError("row", f"has a name of {len(associated)} bytes", ROW_NAME_BYTES_MAX)
    return label("vault-row") + associated
