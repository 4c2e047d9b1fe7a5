"""Hashes, signatures, padding sizes and message keys as protocol.md sections 1.3, 1.4, 3, 4.3 and 4.4 give them.

Primitives are libsodium's (through PyNaCl) and the standard library's BLAKE2b and SHA-256. Nothing here reads a file
or knows the store. Ed25519 follows libsodium's strict rule, so a receipt means the same to the verifier as to the
relay and to its holder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from nacl import bindings
from nacl.exceptions import CryptoError

from audit.errors import OpenError, SignatureError

BODY_BYTES_MIN = 400
BODY_BYTES_MAX = 196_696
ORDINARY_OFFSET = 128
"""Where content begins in an ordinary body: hint 16, commitment 32, nonce 24, header 56 (section 4.3)."""
CHUNK_OFFSET = 72
COMMITMENT = slice(16, 48)
NONCE = slice(48, 72)
TAG_BYTES = 16
SUITE = 1

X25519_IDENTITY, X25519_SIGNED_PREKEY, X25519_ONE_TIME = 0x01, 0x02, 0x03
KEM_ONE_TIME, KEM_LAST_RESORT = 0x06, 0x07
ED25519_DEVICE, ED25519_ACCOUNT, ED25519_TENANT, ED25519_RELAY = 0x08, 0x09, 0x0A, 0x0B


@cache
def label(name: str) -> bytes:
    """L("name") of section 1.1."""
    return b"blindpost/v1/" + name.encode("ascii") + b"\0"


def hash16(name: str, data: bytes) -> bytes:
    """Unkeyed BLAKE2b, 16 bytes, over the label and the data."""
    return hashlib.blake2b(label(name) + data, digest_size=16).digest()


def hash32(name: str, data: bytes) -> bytes:
    """SHA-256 over the label and the data."""
    return hashlib.sha256(label(name) + data).digest()


def keyed(key: bytes, person: bytes, data: bytes, length: int) -> bytes:
    """BLAKE2b with a key and a personalisation, which the library fills with zeros to 16 bytes."""
    return hashlib.blake2b(data, key=key, person=person, digest_size=length).digest()


def typed(role: int, key: bytes) -> bytes:
    """A public key behind the byte that tells its type and role (section 1.4)."""
    return bytes((role,)) + key


def relay_id_of(signing_key: bytes) -> bytes:
    """The relay's name: a hash of its first signing key (section 2.1)."""
    return hash16("relay-id", typed(ED25519_RELAY, signing_key))


def envelope_id_of(token: bytes) -> bytes:
    """The envelope id that an ack token t stands for (section 5.1)."""
    return hash16("envelope-id", token)


def tombstone_key_of(mailbox: bytes, envelope_id: bytes) -> bytes:
    """The key under which a tombstone is kept (section 9)."""
    return hash16("tombstone", mailbox + envelope_id)


def leaf_of(mailbox: bytes, envelope_id: bytes, expiry: int, number: int, body_sha256: bytes) -> bytes:
    """The leaf hash of an envelope, of which its receipt's signature speaks (section 5.2)."""
    fields = mailbox + envelope_id + expiry.to_bytes(8, "big") + number.to_bytes(8, "big") + body_sha256
    return hashlib.sha256(b"\0" + label("leaf") + fields).digest()


def verify(public_key: bytes, name: str, data: bytes, signature: bytes) -> None:
    """Check `sign(key, name, data)` by libsodium's strict rule.

    Raises:
        SignatureError: The signature is not that key's, or a length is wrong.
    """
    if len(public_key) != 32 or len(signature) != 64:
        raise SignatureError(name, f"a key of {len(public_key)} and a signature of {len(signature)} bytes")
    try:
        bindings.crypto_sign_open(signature + label(name) + data, public_key)
    except (CryptoError, ValueError):
        raise SignatureError(name, "the signature is not that of the key") from None


def padme(length: int) -> int:
    """Round a length up as PADMÉ does (section 3), for a length of 2 or more."""
    exponent = length.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return -(-length // step) * step


@cache
def padded_sizes() -> frozenset[int]:
    """P of section 4.4: the PADMÉ lengths of at least 256 that fit into a body."""
    sizes = set()
    size = 256
    while size <= BODY_BYTES_MAX:
        sizes.add(size)
        size = padme(size + 1)
    return frozenset(sizes)


@cache
def body_kinds(size: int) -> tuple[str, ...]:
    """Return which bodies have this length: of "ordinary", "first" and "chunk"; none if it is no envelope's (section
    4.4).
    """
    if not BODY_BYTES_MIN <= size <= BODY_BYTES_MAX:
        return ()
    kinds = []
    if size - 144 in padded_sizes():
        kinds.append("ordinary")
    if any(size - 1282 - 256 * k in padded_sizes() for k in range(1, 17)):
        kinds.append("first")
    if (size - 88) % 1024 == 0 and 32 <= (size - 88) // 1024 <= 192:
        kinds.append("chunk")
    return tuple(kinds)


@dataclass(frozen=True, slots=True)
class MessageKeys:
    """What section 4.2 derives from one message key."""

    encryption_key: bytes
    commitment: bytes

    def __repr__(self) -> str:
        return f"MessageKeys(encryption_key=<redacted>, commitment={self.commitment.hex()[:8]}…)"


def message_keys(message_key: bytes) -> MessageKeys:
    """Derive encryption key and commitment: `ek ‖ commitment = keyed(mk, "bp1-message", "", 64)`."""
    both = keyed(message_key, b"bp1-message", b"", 64)
    return MessageKeys(both[:32], both[32:])


def commitment_of(message_key: bytes) -> bytes:
    """Only the commitment; one hash, so that many candidates can be tried."""
    return hashlib.blake2b(key=message_key, person=b"bp1-message").digest()[32:]


def open_content(
    message_key: bytes, body: bytes, offset: int, envelope_id: bytes, sender_device: bytes, recipient_device: bytes
) -> bytes:
    """Open the content of a body with a volunteered message key (section 4.3) and take off the padding.

    Args:
        message_key: mk, 32 bytes.
        body: The whole body.
        offset: Where content begins, in bytes.
        envelope_id: The id of its row, 16 bytes.
        sender_device: D_sender, 32 bytes.
        recipient_device: D_recipient, 32 bytes.

    Raises:
        OpenError: The key is not the one that the body commits to, or the ciphertext does not verify.
    """
    if not CHUNK_OFFSET <= offset <= len(body) - TAG_BYTES:
        raise OpenError("offset", f"{offset} lies outside of the body of {len(body)} bytes")
    keys = message_keys(message_key)
    if keys.commitment != body[COMMITMENT]:
        raise OpenError("message key", "is not the one that the body commits to")
    associated = (
        label("message") + SUITE.to_bytes(2, "big") + sender_device + recipient_device + envelope_id + body[:offset]
    )
    try:
        padded = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            body[offset:], associated, body[NONCE], keys.encryption_key
        )
    except (CryptoError, ValueError):
        raise OpenError("content", "does not verify under the key and associated data given") from None
    if offset == CHUNK_OFFSET:
        return padded
    return unpad(padded)


def unpad(padded: bytes) -> bytes:
    """Take off 0x80 and zeros, and check that the length is the one that `pad` gives (section 3)."""
    message = padded.rstrip(b"\0")
    if message[-1:] != b"\x80":
        raise OpenError("padding", "does not end in 0x80 and zeros")
    if len(padded) != max(256, padme(len(message))):
        raise OpenError("padding", f"{len(padded)} bytes for a message of {len(message) - 1}")
    return message[:-1]
