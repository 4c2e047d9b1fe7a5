"""What a relay did in one run, in order: observations, each with its moment, its kind, and all of it."""

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["START_MS", "Observation", "Trace"]

START_MS: Final = 1_448_841_600_000
"""30 November 2015, 00:00 UTC: where virtual time begins."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that the relay did: when (virtual Unix ms), of which kind, and all of it."""

    at_ms: int
    kind: str
    value: Any


class Trace:
    """All that a relay did in one run, in order."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.on = True

    def note(self, at_ms: int, kind: str, value: Any) -> None:
        """Write one thing down, unless the relay was killed."""
        if self.on:
            self.observations.append(Observation(at_ms, kind, value))

    def count(self, kind: str) -> int:
        """How many observations of that kind there are."""
        return sum(observation.kind == kind for observation in self.observations)
