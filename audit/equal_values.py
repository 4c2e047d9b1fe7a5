"""Which values of a column are equal, for a million byte strings at once.

numpy sorts byte strings slowly and numbers fast, so values are compared as words of 8 bytes, to the last one: two that
only begin alike are never taken for equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def as_values(columns: NDArray[np.uint8]) -> NDArray[np.void]:
    """Rows of bytes as one value each."""
    contiguous = np.ascontiguousarray(columns)
    return contiguous.view(np.dtype((np.void, contiguous.shape[1])))[:, 0]


def sort_keys(values: NDArray[np.void]) -> NDArray[np.int64]:
    """For each value a number that is the same for the same value: equal values first, then told apart, exactly.

    numpy sorts byte strings slowly, and numbers fast; so the first 8 bytes are compared, and only where these are
    equal the rest.
    """
    order = _order(values)
    same = _same_as_before(values, order)
    keys = np.empty(len(values), dtype=np.int64)
    keys[order] = np.cumsum(~same)
    return keys


def repeated(values: NDArray[np.void]) -> list[int]:
    """Positions of values that occur more than once, in order of the rows."""
    if len(values) < 2:
        return []
    order = _order(values)
    same = _same_as_before(values, order)
    again = same.copy()
    again[:-1] |= same[1:]
    return sorted(order[again].tolist())


def distinct(values: NDArray[np.void]) -> int:
    """How many different values there are."""
    if not len(values):
        return 0
    order = _order(values)
    return int(len(values) - _same_as_before(values, order).sum())


def words_of(values: NDArray[np.void]) -> NDArray[np.uint64]:
    """Each value as words of 8 bytes, with zeros behind its end."""
    size = values.dtype.itemsize
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(-1, size)
    if size % 8:
        rows = np.pad(rows, ((0, 0), (0, -size % 8)))
    return np.ascontiguousarray(rows).view(np.uint64)


def _order(values: NDArray[np.void]) -> NDArray[np.intp]:
    words = words_of(values)
    order = np.argsort(words[:, 0], kind="stable")
    first = words[order, 0]
    if words.shape[1] > 1 and bool((first[1:] == first[:-1]).any()):
        # Some begin alike: all words decide.
        order = np.lexsort(tuple(words[:, i] for i in range(words.shape[1] - 1, -1, -1)))
    return order


def _same_as_before(values: NDArray[np.void], order: NDArray[np.intp]) -> NDArray[np.bool_]:
    words = words_of(values)
    same = np.zeros(len(values), dtype=bool)
    equal = words[order[1:], 0] == words[order[:-1], 0]
    at = np.flatnonzero(equal)
    same[at + 1] = (words[order[at + 1]] == words[order[at]]).all(axis=1)
    return same
