"""The envelope: the unit that the relay stores, and all that it stores of a message (protocol.md 4.4 and 5.1)."""

from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta

from wire.codec import U64, Id, Record
from wire.hashing import label
from wire.limits import (
    BODY_BYTES_MAX,
    BODY_BYTES_MIN,
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    CHUNK_BYTES_STEP,
    ID_BYTES,
    SEALED_STEP_BYTES,
    SEALED_STEPS_MAX,
)
from wire.padding import padme_lengths

__all__ = ["Body", "Envelope", "body_lengths", "envelope_id_of"]

Body = Annotated[bytes, Meta(min_length=BODY_BYTES_MIN, max_length=BODY_BYTES_MAX)]

# Once for each ack: the label is looked up once.
_ID_PREFIX: Final = label("envelope-id")

# Bytes around the padded content: hint 16, commitment 32, nonce 24, header 56, tag 16 (section 4.3).
ORDINARY_OVERHEAD_BYTES = 144
# ... and EK 32, ciphertext 1088, length 2, the sealed sender's tag 16; the sealed sender itself in steps of 256.
FIRST_OVERHEAD_BYTES = ORDINARY_OVERHEAD_BYTES + 1_138
# Hint 16, commitment 32, nonce 24, tag 16.
CHUNK_OVERHEAD_BYTES = 88


class Envelope(Record, frozen=True):
    """Mailbox, id, expiry (Unix seconds) and encrypted body; nothing else."""

    mailbox: Id
    envelope_id: Id
    expiry: U64
    body: Body


def envelope_id_of(token: bytes) -> bytes:
    """The id of the envelope whose ack token this is: hash16("envelope-id", t) (section 5.1)."""
    return blake2b(_ID_PREFIX + token, digest_size=ID_BYTES).digest()


def body_lengths() -> frozenset[int]:
    """Every length that a body of this protocol can have (section 4.4)."""
    padded = padme_lengths(BODY_BYTES_MAX)
    ordinary = {ORDINARY_OVERHEAD_BYTES + length for length in padded}
    first = {
        FIRST_OVERHEAD_BYTES + SEALED_STEP_BYTES * steps + length
        for steps in range(1, SEALED_STEPS_MAX + 1)
        for length in padded
    }
    chunks = {CHUNK_OVERHEAD_BYTES + length for length in range(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX + 1, CHUNK_BYTES_STEP)}
    return frozenset(length for length in ordinary | first | chunks if length <= BODY_BYTES_MAX)
