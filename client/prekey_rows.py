"""A device's own prekeys in their rows (protocol.md section 2.4): the ring of private halves, and what is still to be
published of it. Whoever changes the ring writes it in the step of that change, before anything public leaves; the
publishing itself is client/enrolment.py's.
"""

from typing import Final

from client.store import Kind, Step, Store
from client.surroundings import Random
from keys.identity import DeviceKeys
from keys.prekeys import PrekeyRing
from wire.codec import encode
from wire.prekeys import Prekeys

__all__ = ["PUBLISH", "put_ring", "put_upload", "read_ring"]

_RING: Final = b"ring"
PUBLISH: Final = b"publish"
"""Names the `PREKEYS` row of an upload that the relay has not confirmed."""


def read_ring(store: Store, keys: DeviceKeys, random: Random) -> PrekeyRing | None:
    """The device's prekeys, or None where the store has none."""
    value = store.get(Kind.PREKEYS, _RING)
    return None if value is None else PrekeyRing.from_bytes(value, keys, random)


def put_ring(step: Step, ring: PrekeyRing | None) -> None:
    """Make the prekeys durable within a step."""
    if ring is not None:
        step.put(Kind.PREKEYS, _RING, ring.to_bytes())


def put_upload(step: Step, ring: PrekeyRing, upload: Prekeys) -> None:
    """A ring and the upload that publishes it, within the step that makes or rotates it."""
    put_ring(step, ring)
    step.put(Kind.PREKEYS, PUBLISH, encode(upload))
