"""Real texts, padded and sealed by keys/message.py, in place of a sized run's random bytes.

So that the search for plaintext has something to find: whatever hands a text to the relay, whole or in part, is seen.
Each text repeats one mark, which is the seed's own and appears nowhere else. Keys and nonces are drawn from the seed;
nothing is decrypted (the engine compares bodies with what was sent).
"""

import base64
import random
from typing import Final

import keys.message
from sim.engine.bodies import CONTENT_OVERHEAD_BYTES, RandomBodies
from sim.engine.handset import Handset, Job

__all__ = ["MARK_BYTES", "SealedTexts", "forms_of"]

MARK_BYTES: Final = 24
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24


class SealedTexts(RandomBodies):
    """Bodies of the same lengths as `RandomBodies`, whose end is a sealed text.

    Args:
        rng: the seed's.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.randbytes)
        self._rng = rng
        self.mark = rng.randbytes(MARK_BYTES)

    def text(self, length: int) -> bytes:
        """A text of so many bytes, which consists of the mark."""
        return (self.mark * (length // MARK_BYTES + 1))[:length]

    def make(self, sender: Handset, job: Job, device: int, token: bytes) -> bytes:
        """The body of one part for one device."""
        whole = super().make(sender, job, device, token)
        # Padding adds up to an eighth; a chunk has no room for it beside its own length.
        length = job.chunk_bytes * 3 // 4 if job.chunk_bytes else job.content_bytes - CONTENT_OVERHEAD_BYTES
        text = self.text(max(length, 2 * MARK_BYTES))
        sealed = keys.message.seal_content(
            self._rng.randbytes(_KEY_BYTES), b"", self._rng.randbytes(_NONCE_BYTES), text
        )
        assert len(sealed) <= len(whole), "a body has room for its text"
        return whole[: -len(sealed)] + sealed


def forms_of(mark: bytes) -> tuple[bytes, ...]:
    """How a mark would look: as it is, in hexadecimal, in base64 at each of the three places of a byte."""
    shifted = [base64.b64encode(bytes(shift) + mark)[4:-4] for shift in range(3)]
    return (mark, mark.hex().encode(), *shifted)
