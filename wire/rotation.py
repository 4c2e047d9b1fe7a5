"""Rotation of the relay's signing key (protocol.md section 2.6).

After a memory image the relay's key is in somebody else's hands. It signs its successor once, and its receipts count up
to the commit that the rotation names. Whoever holds the relay's card follows the chain from the card's key.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from wire.codec import U64, Hash, Id, Key, Record, Signature, decode, encode
from wire.errors import FormatError
from wire.hashing import KeyRole, hash16, typed
from wire.limits import ROTATIONS_MAX
from wire.signing import SigningKey, verify

__all__ = ["Rotation", "RotationRecord", "follow_rotations", "relay_id_of", "sign_rotation"]


class RotationRecord(Record, frozen=True):
    """What both keys sign: `commit_index` and `commit_hash` name the last commit by the old key."""

    relay_id: Id
    old_key: Key
    new_key: Key
    commit_index: U64
    commit_hash: Hash
    time: U64


class Rotation(Record, frozen=True):
    """A rotation with both signatures; not to be believed before `follow_rotations`."""

    rotation: Annotated[bytes, Meta(min_length=1, max_length=256)]
    old_signature: Signature
    new_signature: Signature


Rotations = Annotated[tuple[Rotation, ...], Meta(max_length=ROTATIONS_MAX)]


def relay_id_of(first_signing_key: bytes) -> bytes:
    """The relay's id, 16 bytes, which stays when its key rotates (section 2.1)."""
    return hash16("relay-id", typed(KeyRole.RELAY, first_signing_key))


def sign_rotation(
    relay_id: bytes, old: SigningKey, new: SigningKey, commit_index: int, commit_hash: bytes, now: int
) -> Rotation:
    """Make a rotation, signed by both keys. `now` is Unix time in seconds."""
    record = encode(RotationRecord(relay_id, old.public, new.public, commit_index, commit_hash, now))
    return Rotation(record, old.sign("key-rotation", record), new.sign("key-rotation", record))


def follow_rotations(first_key: bytes, rotations: Sequence[Rotation]) -> list[RotationRecord]:
    """The verified chain of rotations from a relay's first key; the last one's `new_key` is current.

    Raises:
        FormatError: a record is not well formed, of another relay, does not follow, or runs backwards.
        SignatureError: one of the two keys did not sign.
    """
    relay_id = relay_id_of(first_key)
    key, index, time = first_key, 0, 0
    chain = []
    for rotation in rotations:
        record = decode(RotationRecord, rotation.rotation, "rotation")
        if record.relay_id != relay_id:
            raise FormatError("rotation", "is of another relay")
        if record.old_key != key or record.new_key == key:
            raise FormatError("rotation", "does not follow the key before it")
        if record.commit_index < index or record.time < time:
            raise FormatError("rotation", "runs backwards")
        verify(record.old_key, "key-rotation", rotation.rotation, rotation.old_signature)
        verify(record.new_key, "key-rotation", rotation.rotation, rotation.new_signature)
        key, index, time = record.new_key, record.commit_index, record.time
        chain.append(record)
    return chain


def key_at(first_key: bytes, chain: Sequence[RotationRecord], commit_index: int) -> bytes:
    """The key that signs a commit, by a verified chain: an old key counts up to the commit of its rotation."""
    for record in chain:
        if commit_index <= record.commit_index:
            return record.old_key
    return chain[-1].new_key if chain else first_key
