"""The chance of one episode: everything random in it follows from seed, purpose and number, and from nothing else.

So an episode is the same in whichever process it is played, and two episodes share nothing. Keys, nonces and tokens
come from SHAKE-256, not from a generator for simulations: an adversary that learned from 32 MiB of Mersenne Twister
output could, in principle, tell its next words, and would then have broken the experiment and not the relay.
"""

import random
from hashlib import blake2b, shake_256

__all__ = ["Chance"]

_BLOCK_BYTES = 4_096


class Chance:
    """One episode's random bytes, in the order in which they are drawn.

    Args:
        seed: the plan's.
        purpose: which episodes, such as "held out"; episodes of different purposes are independent.
        number: which of them.
    """

    __slots__ = ("_at", "_block", "_blocks", "_seed", "choice", "world")

    def __init__(self, seed: int, purpose: str, number: int) -> None:
        name = f"{seed}\0{purpose}\0{number}".encode()
        self._seed = blake2b(name, digest_size=32, person=b"bp1-game").digest()
        self._block, self._at, self._blocks = b"", 0, 0
        # The coin has a hash of its own: nothing else in the episode is drawn from it.
        self.world = blake2b(self._seed, digest_size=1, person=b"bp1-game-world").digest()[0] & 1
        self.choice = random.Random(self._seed)
        """For what is no secret: the pattern of the episode and the words in it."""

    def __repr__(self) -> str:
        return f"Chance(world={self.world}, seed=<redacted>)"

    def __call__(self, count: int) -> bytes:
        """The next random bytes: the entropy that relay, links and ratchets are given."""
        end = self._at + count
        if end > len(self._block):
            self._block = shake_256(self._seed + self._blocks.to_bytes(8, "big")).digest(max(_BLOCK_BYTES, count))
            self._blocks += 1
            self._at, end = 0, count
        drawn = self._block[self._at : end]
        self._at = end
        return drawn
