"""Two runs side by side: the first thing in which they differ, if there is one.

Runs are compared observation by observation and field by field, in their order. A field that is declared in derived.py
must be the declared function in both worlds, of the same body; every other field must be equal, type and value. What
one run has and the other has not is a difference as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from re import sub
from typing import Any, Final

from sim.experiments.noninterference.derived import Derived, Leaf, Underived, World
from sim.experiments.noninterference.trace import START_MS, Observation, Trace

__all__ = ["Compared", "Difference", "compare"]

_SHOWN_BYTES: Final = 16
_ABSENT: Final = object()


@dataclass(frozen=True)
class Difference:
    """Where two runs part.

    Attributes:
        step: number of the observation, from 0.
        at_ms: virtual time since the start, in milliseconds, of the first run.
        kind: what the relay did.
        path: the field, with its places in lists.
        values: as shown, of both runs; long ones are hashed.
    """

    step: int
    at_ms: int
    kind: str
    path: str
    values: tuple[str, str]

    @property
    def field(self) -> str:
        """The field without places: the same in every run of one seed, where a place may depend on ciphertext."""
        return sub(r"[\[{]\d+[\]}]", "[]", f"{self.kind}{self.path}")

    def __str__(self) -> str:
        return f"step {self.step}, {self.at_ms:,} ms, {self.kind}{self.path}: {self.values[0]} ≠ {self.values[1]}"


@dataclass(frozen=True)
class Compared:
    """What came of a comparison.

    Attributes:
        observations: how many were compared.
        fields: how many fields, declared ones included.
        declared: how many fields were declared functions of bodies.
        difference: the first; None if there is none.
    """

    observations: int
    fields: int
    declared: int
    difference: Difference | None


def compare(first: Trace, first_world: World, second: Trace, second_world: World, outward: bool = False) -> Compared:
    """Compare two runs whole, up to the first difference.

    Args:
        first: a run.
        first_world: its bodies, fresh: it is fed the run.
        second: the other run.
        second_world: its bodies.
        outward: leave the state of memory out: what is left is what others can see or an order can reach.
    """
    observations = fields = declared = 0
    for step, (one, other) in enumerate(zip_longest(first.observations, second.observations)):
        if one is None or other is None:
            there = one or other
            assert there is not None, "one of the two is longer"
            values = (_present(one), _present(other))
            difference = Difference(step, there.at_ms - START_MS, there.kind, "", values)
            return Compared(observations, fields, declared, difference)
        observations += 1
        if outward and one.kind == other.kind and one.kind in {"memory", "service"}:
            continue
        if (one.at_ms, one.kind) != (other.at_ms, other.kind):
            values = (_present(one), _present(other))
            difference = Difference(step, one.at_ms - START_MS, one.kind, ":when", values)
            return Compared(observations, fields, declared, difference)
        pairs: Iterable[tuple[Leaf | None, Leaf | None]] = zip_longest(
            first_world.leaves(one), second_world.leaves(other)
        )
        for leaf, counterpart in pairs:
            fields += 1
            path, value = leaf or (counterpart[0] if counterpart else "", _ABSENT)
            other_path, other_value = counterpart or (path, _ABSENT)
            if isinstance(value, Derived):
                declared += 1
            same = path == other_path and type(value) is type(other_value) and value == other_value
            if same and not isinstance(value, Underived):
                continue
            shown = (_shown(value, path, other_path), _shown(other_value, other_path, path))
            difference = Difference(step, one.at_ms - START_MS, one.kind, path, shown)
            return Compared(observations, fields, declared, difference)
    return Compared(observations, fields, declared, None)


def _present(observation: Observation | None) -> str:
    return "nothing" if observation is None else f"{observation.kind} at {observation.at_ms - START_MS} ms"


def _shown(value: Any, path: str, other_path: str) -> str:
    """A value in words. It may be a body or a key of the simulation: bytes beyond 16 are hashed."""
    where = "" if path == other_path else f"{path} = "
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, Derived):
        return f"{where}the {value.function} of {_of(value.of)}"
    if isinstance(value, Underived):
        return f"{where}not the {value.function}, but {_plain(value.value)}"
    return where + _plain(value)


def _of(of: Any) -> str:
    return of.hex() if isinstance(of, bytes) else str(of) if not isinstance(of, tuple) else " ".join(map(_of, of))


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        if len(value) > _SHOWN_BYTES and not value.isascii():
            return f"{len(value)} bytes with SHA-256 {sha256(value).hexdigest()[:16]}…"
        return repr(value) if value.isascii() else value.hex()
    return repr(value)
