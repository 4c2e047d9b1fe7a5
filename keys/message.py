"""One message under one message key (protocol.md sections 4.2 to 4.4).

    body    slot 16 ‖ commitment 32 ‖ nonce 24 ‖ [header 56] ‖ [handshake prefix] ‖ content
    ad      L("message") ‖ u16(suite) ‖ D_sender ‖ D_recipient ‖ envelope id ‖ body[0:offset]

The commitment and the encryption key come from the message key under one derivation: a body opens under one key only
(XChaCha20-Poly1305 alone does not promise that), and whoever searches for the row of a key needs one set look-up.
Slot is the hint, or the prekey id in first bodies. Where message keys come from is the business of keys/ratchet.py and
keys/chunks.py; here is what a participant needs who volunteers one key, or is given one.
"""

from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from keys.errors import AuthenticationFailed, SuiteRefused
from wire.errors import FormatError
from wire.hashing import label
from wire.limits import BODY_BYTES_MAX, BODY_BYTES_MIN, ID_BYTES, INLINE_CONTENT_BYTES_MAX, KEY_BYTES, SUITE
from wire.padding import pad, unpad

__all__ = [
    "COMMITMENT_END",
    "HEADER_END",
    "NONCE_END",
    "SLOT_END",
    "Opening",
    "aead_open",
    "aead_seal",
    "associated_data",
    "associated_start",
    "check_body",
    "check_content",
    "check_envelope_id",
    "message_keys",
    "open_content",
    "open_with_message_key",
    "seal_content",
]

SLOT_END: Final = 16
COMMITMENT_END: Final = 48
NONCE_END: Final = 72
HEADER_END: Final = 128
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 24

_MESSAGE_LABEL: Final = label("message")
aead_seal = crypto_aead_xchacha20poly1305_ietf_encrypt


class Opening(NamedTuple):
    """What opens one row of a store, and nothing else (protocol.md section 12.2, item 3); a secret until given."""

    message_key: bytes
    sender_device: bytes
    recipient_device: bytes
    offset: int

    def __repr__(self) -> str:
        return (
            f"Opening(message_key=<redacted>, sender_device={self.sender_device.hex()}, "
            f"recipient_device={self.recipient_device.hex()}, offset={self.offset})"
        )


def message_keys(message_key: bytes) -> tuple[bytes, bytes]:
    """The encryption key and the commitment (32 bytes each) of a message key."""
    both = blake2b(digest_size=64, key=message_key, person=b"bp1-message").digest()
    return both[:32], both[32:]


def associated_start(sender_device: bytes, recipient_device: bytes, suite: int = SUITE) -> bytes:
    """The part of the associated data that is one for a session and direction.

    Raises:
        SuiteRefused: any suite but 1; the historical ones are spoken by sim/ only.
    """
    if suite != SUITE:
        raise SuiteRefused(suite)
    if len(sender_device) != KEY_BYTES or len(recipient_device) != KEY_BYTES:
        raise FormatError("device key", "has a wrong length", KEY_BYTES)
    return _MESSAGE_LABEL + suite.to_bytes(2, "big") + sender_device + recipient_device


def associated_data(sender_device: bytes, recipient_device: bytes, envelope_id: bytes, prefix: bytes) -> bytes:
    """The whole associated data of a content; `prefix` is body[0:offset]."""
    return associated_start(sender_device, recipient_device) + check_envelope_id(envelope_id) + prefix


def check_envelope_id(envelope_id: bytes) -> bytes:
    """The envelope id itself.

    Raises:
        FormatError: not of 16 bytes.
    """
    if len(envelope_id) != ID_BYTES:
        raise FormatError("envelope id", f"has {len(envelope_id)} bytes", ID_BYTES)
    return envelope_id


def check_body(body: bytes) -> bytes:
    """The body itself.

    Raises:
        FormatError: below 400 or above 196,696 bytes.
    """
    if not BODY_BYTES_MIN <= len(body) <= BODY_BYTES_MAX:
        limit = BODY_BYTES_MIN if len(body) < BODY_BYTES_MIN else BODY_BYTES_MAX
        raise FormatError("body", f"has {len(body)} bytes", limit)
    return body


def check_content(content: bytes) -> bytes:
    """The content itself.

    Raises:
        FormatError: above 65,536 bytes: larger content goes in chunks (protocol.md section 8).
    """
    if len(content) > INLINE_CONTENT_BYTES_MAX:
        raise FormatError("content", f"has {len(content)} bytes", INLINE_CONTENT_BYTES_MAX)
    return content


def aead_open(ciphertext: bytes, associated: bytes, nonce: bytes, key: bytes, what: str) -> bytes:
    """XChaCha20-Poly1305, opened.

    Raises:
        AuthenticationFailed: names `what` did not verify.
    """
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key)
    except (CryptoError, ValueError):  # ValueError: shorter than a tag
        raise AuthenticationFailed(what) from None


def seal_content(encryption_key: bytes, associated: bytes, nonce: bytes, content: bytes) -> bytes:
    """Padded and sealed content, to be appended to body[0:offset], which `associated` ends with."""
    return aead_seal(pad(content), associated, nonce, encryption_key)


def open_content(message_key: bytes, body: bytes, associated: bytes, offset: int) -> bytes:
    """Check the commitment, open, and remove the padding. `associated` ends with the envelope id.

    Raises:
        AuthenticationFailed: commitment or tag do not verify.
        FormatError: the padding is not the one for its content.
    """
    both = blake2b(digest_size=64, key=message_key, person=b"bp1-message").digest()
    if not compare_digest(both[32:], body[16:48]):
        raise AuthenticationFailed("commitment")
    try:
        padded = crypto_aead_xchacha20poly1305_ietf_decrypt(
            body[offset:], associated + body[:offset], body[48:72], both[:32]
        )
    except (CryptoError, ValueError):
        raise AuthenticationFailed("content") from None
    return unpad(padded)


def open_with_message_key(body: bytes, envelope_id: bytes, opening: Opening) -> bytes:
    """What a volunteered message key shows: the content of that very row.

    Raises:
        AuthenticationFailed: another body, another envelope id, other devices, or another key.
        FormatError: lengths out of bounds.
    """
    check_body(body)
    if not NONCE_END <= opening.offset <= len(body) - TAG_BYTES:
        raise FormatError("offset", f"{opening.offset} is outside of the body", len(body) - TAG_BYTES)
    if len(opening.message_key) != KEY_BYTES:
        raise FormatError("message key", f"has {len(opening.message_key)} bytes", KEY_BYTES)
    associated = associated_start(opening.sender_device, opening.recipient_device) + check_envelope_id(envelope_id)
    return open_content(opening.message_key, body, associated, opening.offset)
