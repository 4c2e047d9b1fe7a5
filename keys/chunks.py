"""Chunks of large messages under their file key (protocol.md sections 4.3 and 8).

    body    hint 16 ‖ commitment 32 ‖ nonce 24 ‖ XChaCha20-Poly1305(ek_i, nonce, ad, chunk)

A file key is fresh for each message and recipient device, and travels in the manifest message; token, envelope id, hint
and message key of chunk i are functions of it. How a payload is cut into chunks and put together again, and the
manifest, are client/attachments.py; a chunk is a whole number of KiB already and gets no padding of its own.
"""

import os
from typing import Final

from keys.agreement import Entropy, draw
from keys.errors import AuthenticationFailed
from keys.message import NONCE_BYTES, NONCE_END, Opening, aead_open, aead_seal, associated_data, message_keys
from wire.envelope import envelope_id_of
from wire.errors import FormatError
from wire.hashing import keyed
from wire.limits import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNK_BYTES_STEP, ID_BYTES, KEY_BYTES, UINT32_MAX

__all__ = ["CHUNK_OFFSET", "FileKey", "open_chunk"]

CHUNK_OFFSET: Final = NONCE_END


class FileKey:
    """The key of one large message to one device. Its repr shows nothing of it.

    Args:
        key: 32 secret bytes, as in the manifest.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise FormatError("file key", f"has {len(key)} bytes", KEY_BYTES)
        self._key = key

    def __repr__(self) -> str:
        return "FileKey(<redacted>)"

    @classmethod
    def generate(cls, entropy: Entropy = os.urandom) -> "FileKey":
        """A new one from 32 bytes of entropy."""
        return cls(draw(entropy, KEY_BYTES))

    def to_bytes(self) -> bytes:
        """The 32 bytes, for the manifest inside a ciphertext and for sealed storage only."""
        return self._key

    def token(self, index: int) -> bytes:
        """The ack token t of chunk `index` (from 0)."""
        return keyed(self._key, b"bp1-chunk-token", _u32(index), ID_BYTES)

    def envelope_id(self, index: int) -> bytes:
        """The envelope id of chunk `index`."""
        return envelope_id_of(self.token(index))

    def hint(self, index: int) -> bytes:
        """The hint of chunk `index`."""
        return keyed(self._key, b"bp1-chunk-hint", _u32(index), ID_BYTES)

    def message_key(self, index: int) -> bytes:
        """The message key of chunk `index`, which opens that chunk only."""
        return keyed(self._key, b"bp1-chunk-key", _u32(index), KEY_BYTES)

    def opening(self, index: int, sender_device: bytes, recipient_device: bytes) -> Opening:
        """What opens chunk `index` and nothing else, to be volunteered."""
        return Opening(self.message_key(index), sender_device, recipient_device, CHUNK_OFFSET)

    def seal(
        self, index: int, chunk: bytes, sender_device: bytes, recipient_device: bytes, entropy: Entropy = os.urandom
    ) -> bytes:
        """The body of chunk `index`.

        Raises:
            FormatError: the chunk is not a multiple of 1,024 bytes between 32,768 and 196,608.
        """
        _check_length(len(chunk))
        encryption_key, commitment = message_keys(self.message_key(index))
        nonce = draw(entropy, NONCE_BYTES)
        prefix = self.hint(index) + commitment + nonce
        associated = associated_data(sender_device, recipient_device, self.envelope_id(index), prefix)
        return prefix + aead_seal(chunk, associated, nonce, encryption_key)

    def open(self, index: int, body: bytes, envelope_id: bytes, sender_device: bytes, recipient_device: bytes) -> bytes:
        """The plaintext of chunk `index`.

        Raises:
            AuthenticationFailed: hint, envelope id, commitment or tag are not those of this chunk.
            FormatError: the body has a length that no chunk has.
        """
        if body[:16] != self.hint(index):
            raise AuthenticationFailed("hint")
        if envelope_id != self.envelope_id(index):
            raise AuthenticationFailed("envelope id")
        return open_chunk(body, envelope_id, self.opening(index, sender_device, recipient_device))


def open_chunk(body: bytes, envelope_id: bytes, opening: Opening) -> bytes:
    """What a volunteered message key shows of a chunk. Chunks have no padding of their own, hence not as messages do.

    Raises:
        AuthenticationFailed: another body, envelope, device or key.
        FormatError: the body has a length that no chunk has.
    """
    _check_length(len(body) - CHUNK_OFFSET - 16)
    encryption_key, commitment = message_keys(opening.message_key)
    if body[16:48] != commitment:  # public bytes on both sides: nothing to learn from the time that it takes
        raise AuthenticationFailed("commitment")
    prefix = body[:CHUNK_OFFSET]
    associated = associated_data(opening.sender_device, opening.recipient_device, envelope_id, prefix)
    return aead_open(body[CHUNK_OFFSET:], associated, body[48:72], encryption_key, "chunk")


def _check_length(chunk_bytes: int) -> None:
    if chunk_bytes % CHUNK_BYTES_STEP or not CHUNK_BYTES_MIN <= chunk_bytes <= CHUNK_BYTES_MAX:
        limit = CHUNK_BYTES_MIN if chunk_bytes < CHUNK_BYTES_MIN else CHUNK_BYTES_MAX
        raise FormatError("chunk", f"has {chunk_bytes} bytes, not a multiple of {CHUNK_BYTES_STEP} in bounds", limit)


def _u32(index: int) -> bytes:
    if not 0 <= index <= UINT32_MAX:
        raise FormatError("chunk index", f"is {index}", UINT32_MAX)
    return index.to_bytes(4, "big")
