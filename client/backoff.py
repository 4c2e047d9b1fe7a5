"""Waiting times that double, with jitter and a cap (protocol.md section 6.3).

Everybody who waits here waits by the same rule, so that a thousand devices do not come back in the same second after a
relay's restart. Randomness is handed in: one seed repeats one run.
"""

from collections.abc import Callable

__all__ = ["Backoff", "jittered"]

Random = Callable[[int], bytes]


def jittered(base_s: float, random: Random) -> float:
    """A wait between three quarters and five quarters of `base_s`, in seconds."""
    return base_s * (0.75 + int.from_bytes(random(2), "big") / 0xFFFF / 2)


class Backoff:
    """Waits that double from `first_s` to `last_s`, each jittered; `reset` after a success.

    Args:
        first_s: the first wait in seconds, before jitter.
        last_s: the longest wait in seconds, before jitter.
        random: a source of random bytes.
    """

    def __init__(self, first_s: float, last_s: float, random: Random) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._random = random
        self._next_s = first_s

    def next_s(self) -> float:
        """The next wait in seconds."""
        wait_s = jittered(self._next_s, self._random)
        self._next_s = min(self._next_s * 2, self._last_s)
        return wait_s

    def reset(self) -> None:
        """Start again from the first wait."""
        self._next_s = self._first_s
