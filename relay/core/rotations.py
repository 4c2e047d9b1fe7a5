"""The chain of a relay's signing keys at its start: what the key file says against what the store holds."""

from relay.core.events import RelayIdentity, Snapshot
from wire.codec import decode
from wire.errors import FormatError
from wire.rotation import Rotation, RotationRecord

__all__ = ["chain_of"]


def chain_of(identity: RelayIdentity, snapshot: Snapshot, public: bytes) -> tuple[tuple[Rotation, ...], list[bytes]]:
    """The chain of rotations, and the records of it that are not stored yet (a crash between key file and commit).

    Args:
        identity: the rotations of the key file.
        snapshot: those of the store.
        public: the current signing key's public half, 32 bytes.

    Raises:
        FormatError: the two contradict each other, the store is another relay's, or the key is not the last one's.
    """
    stored = [row.record for row in snapshot.rotations]
    given = list(identity.rotations)
    records = given if len(given) > len(stored) else stored
    if records[: len(stored)] != stored or records[: len(given)] != given:
        raise FormatError("rotations", "of the identity and of the store contradict each other")
    stored_id = snapshot.relay.get("relay_id")
    if stored_id is not None and stored_id != identity.relay_id:
        raise FormatError("relay id", "the store is another relay's")
    rotations = tuple(decode(Rotation, record, "rotations") for record in records)
    if rotations and decode(RotationRecord, rotations[-1].rotation, "rotations").new_key != public:
        raise FormatError("signing seed", "is not the one that the last rotation names")
    return rotations, records[len(stored) :]
