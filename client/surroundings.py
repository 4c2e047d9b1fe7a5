"""Clock and randomness of a device. They are handed in, so that a test's or a simulation's run can be repeated."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Random", "Surroundings"]

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clock and randomness, handed in so that a test's run can be repeated."""

    now: Callable[[], float] = field(default=time.time)
    """Unix time in seconds."""
    random: Random = field(default=os.urandom)
    """Secret random bytes."""

    @property
    def now_s(self) -> int:
        """Unix time in whole seconds."""
        return int(self.now())

    @property
    def now_ms(self) -> int:
        """Unix time in whole milliseconds."""
        return int(self.now() * 1_000)
