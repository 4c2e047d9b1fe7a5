"""Candidates: the windows of 32 bytes that may be a key, as numpy finds them in a block.

A key is 32 random bytes, and those have nearly always 26 to 32 different values; pointers, counters, text and zeros
have fewer. So a window with fewer than `DISTINCT_MIN` is left out: `miss_probability` is how often a random key is
lost by that. Of equal windows in a block one is tried. Only keys that somebody drew at random are looked for in this
way: a key that was chosen to be regular is a fault of its device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

KEY_BYTES: Final = 32
DISTINCT_MIN: Final = 18
PORTION_WINDOWS: Final = 65_536
"""Sorted at once: 2 MiB, which the processor's cache holds."""
Offsets: TypeAlias = NDArray[np.int64]
_Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Windows of a block that are tried, and how many were not, for which reason.

    Attributes:
        offsets: where they begin in the block.
        windows: how many there are in all.
        regular: left out for having too few different bytes.
        repeated: left out as another window of the block has the same bytes.
    """

    offsets: list[int]
    windows: int
    regular: int
    repeated: int


@cache
def miss_probability(distinct_min: int = DISTINCT_MIN) -> float:
    """How likely a random key has fewer than `distinct_min` different bytes, and is left out."""
    chances = [1.0] + [0.0] * KEY_BYTES
    for _ in range(KEY_BYTES):
        chances = [
            chances[count] * count / 256 + (chances[count - 1] * (257 - count) / 256 if count else 0.0)
            for count in range(KEY_BYTES + 1)
        ]
    return sum(chances[:distinct_min])


def candidates_of(block: bytes | memoryview, alignment: int, starts_max: int | None = None) -> Candidates:
    """The windows of a block that begin at multiples of `alignment`.

    Args:
        block: the bytes; a window must lie in it as a whole.
        alignment: in bytes, from the block's first byte.
        starts_max: windows begin before this offset; None for no such bound.
    """
    count = len(block) - KEY_BYTES + 1
    if starts_max is not None:
        count = min(count, starts_max)
    if count <= 0:
        return Candidates([], 0, 0, 0)
    data: _Bytes = np.frombuffer(block, dtype=np.uint8)
    views = np.lib.stride_tricks.sliding_window_view(data, KEY_BYTES)[:count:alignment]
    found = [
        np.flatnonzero(_distinct(views[start : start + PORTION_WINDOWS]) >= DISTINCT_MIN) + start
        for start in range(0, len(views), PORTION_WINDOWS)
    ]
    kept: NDArray[Any] = np.concatenate(found)
    telling = len(kept)
    kept = kept[_first_of_equals(np.ascontiguousarray(views[kept]))]
    offsets = (kept * alignment).tolist()
    return Candidates(offsets, len(views), len(views) - telling, telling - len(kept))


def _distinct(windows: _Bytes) -> NDArray[np.uint8]:
    """How many different bytes each window has."""
    ordered = np.sort(windows, axis=1)
    changes: NDArray[np.uint8] = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1, dtype=np.uint8)
    return changes + np.uint8(1)


def _first_of_equals(windows: _Bytes) -> NDArray[np.intp]:
    """The positions of windows that no earlier one equals, in order; compared byte for byte, so nothing can collide."""
    if not len(windows):
        return np.zeros(0, dtype=np.intp)
    words = windows.view(np.uint64)
    order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    ordered = words[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[first])


class Marks:
    """Finds many values of 32 bytes at any position of a block: public keys and commitments that stand in the clear.

    Args:
        values: what to look for.
    """

    def __init__(self, values: list[bytes]) -> None:
        self._values = frozenset(values)
        table = np.zeros(1 << 24, dtype=bool) if values else np.zeros(0, dtype=bool)
        for value in values:
            table[value[0] | value[1] << 8 | value[2] << 16] = True
        self._table = table
        self._words = np.array(sorted({int.from_bytes(value[:8], "little") for value in values}), dtype=np.uint64)

    def places(self, block: bytes | memoryview) -> list[int]:
        """Where in the block one of the values begins."""
        if not self._values or len(block) < KEY_BYTES:
            return []
        data: _Bytes = np.frombuffer(block, dtype=np.uint8)
        count = len(data) - KEY_BYTES + 1
        head = data[:count].astype(np.uint32)
        head |= data[1 : count + 1].astype(np.uint32) << np.uint32(8)
        head |= data[2 : count + 2].astype(np.uint32) << np.uint32(16)
        near = np.flatnonzero(self._table[head])
        words = np.lib.stride_tricks.sliding_window_view(data, 8)[near].copy().view("<u8")[:, 0]
        near = near[np.isin(words, self._words)]
        return [at for at in near.tolist() if bytes(block[at : at + KEY_BYTES]) in self._values]
