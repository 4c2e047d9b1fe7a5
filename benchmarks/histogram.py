"""A histogram of latencies with HdrHistogram's layout: three significant digits over the whole range, little memory.

The buckets are HdrHistogram's (Gil Tene, hdrhistogram.org) for `significant_digits = 3`: values are kept exactly up to
2,047, and above in 1,024 steps for each power of two, so that what is read back is at most 1 part in 1,024 above
what was recorded. A value counts as the highest one of its bucket: a percentile read here is never too low.

Latencies are recorded in microseconds, whole. Coordinated omission is the recorder's business: latency counts from when
a message was due to be sent, not from when it was (benchmarks/load/traffic.py).
"""

from collections import Counter
from collections.abc import Iterable

__all__ = ["PERCENTILES", "RELATIVE_ERROR", "Histogram"]

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)
RELATIVE_ERROR = 1 / 1_024

_SUB_BUCKET_BITS = 11


class Histogram:
    """Counts by bucket.

    Args:
        values: what to record at once, whole and not negative.
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.record(values)

    def record(self, values: Iterable[int]) -> None:
        """Record values.

        Raises:
            ValueError: one is negative: the clock or the schedule is wrong, and so would be every percentile.
        """
        for value in values:
            if value < 0:
                raise ValueError(f"a latency of {value} µs")
            self._counts[_highest_equivalent(value)] += 1
            self.count += 1

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another load process."""
        self._counts.update(other._counts)
        self.count += other.count

    def at(self, percentile: float) -> int:
        """The value at or below which that share of the values lies; 0 if there are none."""
        # Counted from above, since 1 - 0.9999 is small and exact enough; at least one value is at or above.
        rank = max(1, min(self.count, -int(-(percentile * self.count) // 100)))
        seen = 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if seen >= rank:
                return value
        return 0

    def rows(self) -> list[tuple[float, int]]:
        """(percentile, value) for the usual percentiles; those that too few values stand behind are left out."""
        return [(one, self.at(one)) for one in PERCENTILES if one in {50.0, 100.0} or self.count * (100 - one) > 99.9]

    def to_pairs(self) -> list[tuple[int, int]]:
        """(value, count), ascending: what another process merges."""
        return sorted(self._counts.items())

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[int, int]]) -> "Histogram":
        """What `to_pairs` gave."""
        histogram = cls()
        for value, count in pairs:
            histogram._counts[value] += count
            histogram.count += count
        return histogram


def _highest_equivalent(value: int) -> int:
    shift = max(0, value.bit_length() - _SUB_BUCKET_BITS)
    return (((value >> shift) + 1) << shift) - 1
