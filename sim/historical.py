"""The global PIN key: Triple DES under one key that sits in every handset (protocol.md section 13, suite 0x5049).

    body    72 random bytes ‖ 56 random bytes ‖ iv 8 ‖ Triple DES-CBC(16 zero bytes ‖ u32(length) ‖ content ‖ zeros)

This is how PIN messages, and BBM below its TLS, were protected on BlackBerry phones unless a company set a key of its
own: a peer-to-peer key loaded into every device when it was made. "Consider PIN messages as scrambled, but not
encrypted", the vendor wrote; the RCMP read over a million of them between 2010 and 2012 with "the correct global key".

It lives in sim/ so that the verifier can catch it. `keys/` and `client/` refuse the suite. The key below is invented,
and public on purpose: one handset that gives it away gives away everybody's. Nothing here authenticates: what opens to
zeros in the first two blocks is taken for a message, as the real thing took what it could read.
"""

from collections.abc import Callable
from typing import Annotated, Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC
from msgspec import Meta

from wire.codec import U64, Id, Record, decode, encode
from wire.envelope import ORDINARY_OVERHEAD_BYTES
from wire.errors import FormatError
from wire.identity import Account
from wire.limits import BODY_BYTES_MAX
from wire.padding import padded_length

__all__ = [
    "GLOBAL_PIN_KEY",
    "KEY_BYTES",
    "PIN_SUITE",
    "PinMessage",
    "read_message",
    "scramble",
    "unscramble",
    "write_message",
]

PIN_SUITE: Final = 0x5049
"""'PI' in ASCII."""

KEY_BYTES: Final = 24
GLOBAL_PIN_KEY: Final = bytes.fromhex("31c4a75eb6920d8fd35b6e0783f4a12cce4997b08516fd20")
"""Invented for this project; 168 bits in three parts that differ, as good as such a key gets. Every handset has it."""

_RANDOM_BYTES: Final = 72 + 56
_BLOCK_BYTES: Final = 8
_MAGIC: Final = bytes(2 * _BLOCK_BYTES)
_LENGTH_BYTES: Final = 4
_CIPHERTEXT_AT: Final = _RANDOM_BYTES + _BLOCK_BYTES
# The ciphertext holds 8 bytes more than the padded length, and 20 of it are no content.
_OVERHEAD_BYTES: Final = len(_MAGIC) + _LENGTH_BYTES - _BLOCK_BYTES


class PinMessage(Record, frozen=True):
    """What a handset writes into a body: the content structure of section 7, with the sender first in the audience.

    Nothing proves that sender: whoever has the key can write any name. `token` acknowledges the message (section 5.1).
    """

    token: Id
    kind: Annotated[int, Meta(ge=1, le=5)]
    message_id: Id
    sent_ms: U64
    reply_to: Id
    audience: Annotated[tuple[Account, ...], Meta(min_length=1, max_length=256)]
    payload: bytes


def scramble(content: bytes, entropy: Callable[[int], bytes], key: bytes = GLOBAL_PIN_KEY) -> bytes:
    """The body of a PIN message; its length is one that an ordinary body may have (section 4.4).

    Args:
        content: what every handset may read.
        entropy: gives random bytes for the filling and the initialisation vector.
        key: 24 bytes.

    Raises:
        FormatError: the key has another length, or the body would be too long.
    """
    # padded_length leaves room for its own 0x80 byte; that one byte of slack changes no rule of the format.
    ciphertext_bytes = padded_length(len(content) + _OVERHEAD_BYTES) + _BLOCK_BYTES
    if _CIPHERTEXT_AT + ciphertext_bytes > BODY_BYTES_MAX:
        raise FormatError("content", f"has {len(content)} bytes, too many for one body", BODY_BYTES_MAX)
    plain = (_MAGIC + len(content).to_bytes(_LENGTH_BYTES, "big") + content).ljust(ciphertext_bytes, b"\0")
    iv = entropy(_BLOCK_BYTES)
    encryptor = _cipher(key, iv).encryptor()
    body = entropy(_RANDOM_BYTES) + iv + encryptor.update(plain) + encryptor.finalize()
    assert (len(body) - ORDINARY_OVERHEAD_BYTES) == ciphertext_bytes - _BLOCK_BYTES
    return body


def unscramble(body: bytes, key: bytes = GLOBAL_PIN_KEY) -> bytes:
    """What a PIN body says; anybody with the key can ask.

    Raises:
        FormatError: not a PIN body under this key.
    """
    ciphertext = body[_CIPHERTEXT_AT:]
    if len(ciphertext) < len(_MAGIC) + _BLOCK_BYTES or len(ciphertext) % _BLOCK_BYTES:
        raise FormatError("PIN body", f"has {len(body)} bytes, which is not iv and whole blocks")
    decryptor = _cipher(key, body[_RANDOM_BYTES:_CIPHERTEXT_AT]).decryptor()
    plain = decryptor.update(ciphertext) + decryptor.finalize()
    at = len(_MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(plain[len(_MAGIC) : at], "big")
    if plain[: len(_MAGIC)] != _MAGIC or length > len(plain) - at or any(plain[at + length :]):
        raise FormatError("PIN body", "does not open under this key")
    return plain[at : at + length]


def read_message(body: bytes, key: bytes = GLOBAL_PIN_KEY) -> PinMessage:
    """The message in a PIN body.

    Raises:
        FormatError: not a PIN body under this key, or no message in it.
    """
    return decode(PinMessage, unscramble(body, key), "PIN message")


def write_message(message: PinMessage, entropy: Callable[[int], bytes], key: bytes = GLOBAL_PIN_KEY) -> bytes:
    """The body that carries a message."""
    return scramble(encode(message), entropy, key)


def _cipher(key: bytes, iv: bytes) -> "Cipher[CBC]":
    if len(key) != KEY_BYTES:
        raise FormatError("PIN key", f"has {len(key)} bytes", KEY_BYTES)
    return Cipher(TripleDES(key), CBC(iv))
