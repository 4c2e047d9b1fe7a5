"""What a sized run hands to the relay as bodies: of the lengths that client/ would make.

    inline       144 bytes around the padded content; a first message 1,138 and the sealed sender more
    large        a manifest, and chunks of at most 192 KiB (protocol.md section 8)

Under `blindpost` they are random bytes; under an older protection a real text under that protection's real keys.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from client.attachments import plan_chunks
from wire.envelope import CHUNK_OVERHEAD_BYTES, FIRST_OVERHEAD_BYTES, ORDINARY_OVERHEAD_BYTES
from wire.limits import INLINE_CONTENT_BYTES_MAX, SEALED_STEP_BYTES
from wire.padding import padded_length

if TYPE_CHECKING:
    from sim.engine.handset import Handset, Job

__all__ = ["CONTENT_OVERHEAD_BYTES", "RandomBodies", "parts_of"]

CONTENT_OVERHEAD_BYTES: Final = 96
"""About what client/content.py puts around a payload: token, kind, id, time, one address."""
_MANIFEST_BYTES: Final = 256
_SEALED_STEPS: Final = 2
"""A sealed sender with a list of one or two devices."""


def parts_of(payload_bytes: int) -> list[tuple[int, int, int]]:
    """What a message is sent as: (count of parts, content bytes of the inline one, bytes of the chunk)."""
    encoded = payload_bytes + CONTENT_OVERHEAD_BYTES
    if encoded <= INLINE_CONTENT_BYTES_MAX:
        return [(1, encoded, 0)]
    plan = plan_chunks(payload_bytes)
    parts = plan.chunk_count + 1
    return [(parts, 0, plan.chunk_bytes)] * plan.chunk_count + [(parts, _MANIFEST_BYTES, 0)]


class RandomBodies:
    """Bodies of random bytes.

    Args:
        entropy: gives them.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy

    def make(self, sender: "Handset", job: "Job", device: int) -> bytes:
        """The body of one part for one device."""
        if job.chunk_bytes:
            return self._entropy(CHUNK_OVERHEAD_BYTES + job.chunk_bytes)
        length = padded_length(job.content_bytes)
        if job.to in sender.heard:
            return self._entropy(ORDINARY_OVERHEAD_BYTES + length)
        # Until the first answer the handshake goes with every message.
        return self._entropy(FIRST_OVERHEAD_BYTES + _SEALED_STEPS * SEALED_STEP_BYTES + length)
