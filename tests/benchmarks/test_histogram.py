"""The latency histogram: exact where small, within its stated error everywhere, and the same as HdrHistogram's."""

import importlib
import importlib.util
import random

import pytest

from benchmarks.histogram import PERCENTILES, RELATIVE_ERROR, Histogram


def test_percentiles_are_never_too_low_and_within_the_stated_error() -> None:
    rng = random.Random(2)
    values = sorted(int(rng.lognormvariate(8, 2)) for _ in range(20_000))
    histogram = Histogram(values)
    for percentile in PERCENTILES:
        rank = max(1, -int(-(percentile * len(values)) // 100))
        true = values[rank - 1]
        assert true <= histogram.at(percentile) <= true * (1 + RELATIVE_ERROR)


def test_merged_processes_are_one_histogram_and_survive_json() -> None:
    rng = random.Random(4)
    values = [rng.randrange(10**7) for _ in range(500)]
    merged = Histogram.from_pairs(Histogram(values[:200]).to_pairs())
    merged.merge(Histogram(values[200:]))
    assert merged.to_pairs() == Histogram(values).to_pairs()
    assert merged.count == 500


def test_percentiles_behind_which_nothing_stands_are_left_out() -> None:
    assert [one for one, _ in Histogram(range(1_000)).rows()] == [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0]
    assert Histogram([7]).rows() == [(50.0, 7), (100.0, 7)]
    assert Histogram().at(99.0) == 0


def test_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Histogram([-1])


@pytest.mark.skipif(importlib.util.find_spec("hdrh") is None, reason="hdrhistogram is not installed")
def test_agrees_with_hdrhistogram() -> None:
    made = importlib.import_module("hdrh.histogram").HdrHistogram(1, 3_600_000_000, 3)
    rng = random.Random(9)
    values = [int(rng.lognormvariate(9, 2)) + 1 for _ in range(5_000)]
    for value in values:
        made.record_value(value)
    ours = Histogram(values)
    for percentile in (50.0, 90.0, 99.0, 99.9):
        assert ours.at(percentile) == made.get_value_at_percentile(percentile)
