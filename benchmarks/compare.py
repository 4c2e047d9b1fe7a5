"""Compare two results: what changed beyond the noise, with intervals.

For every metric of every case that both files have: the ratio of the medians, and a 95 % interval of it by the
bootstrap (both sides' rounds are drawn again, with replacement, 4,000 times). A change counts when the whole interval
lies on one side of 1 and the medians differ by at least the threshold. The files should be of one machine: where they
are not, that is said, since then the ratio tells of the machines too.

Exit status 0 unless something that counts became worse: then 1, for use in scripts.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.report import Metric, Report, ReportError
from benchmarks.tables import figure

__all__ = ["Change", "changes", "main", "ratio_interval"]

DRAWS = 4_000
_ROUNDS_MIN = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one case in both results."""

    case: str
    metric: str
    unit: str
    old: float
    new: float
    low: float
    high: float
    verdict: str
    """`better`, `worse`, `changed` (neither way is better), `same`, or `unknown` (too few rounds)."""


def main(argv: list[str]) -> int:
    """Compare; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, help="a result's JSON")
    parser.add_argument("new", type=Path, help="a result's JSON of the same benchmark")
    parser.add_argument("--threshold", type=float, default=3.0, help="smallest change that counts, in %% (default 3)")
    parser.add_argument("--all", action="store_true", help="list what did not change as well")
    options = parser.parse_args(argv)
    try:
        old, new = Report.read(options.old), Report.read(options.new)
    except (ReportError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 64
    if old.benchmark != new.benchmark:
        print(f"compare: one is of {old.benchmark}, the other of {new.benchmark}", file=sys.stderr)
        return 64
    found = changes(old, new, options.threshold / 100)
    _print(found, old, new, options.all)
    return 1 if any(change.verdict == "worse" for change in found) else 0


def changes(old: Report, new: Report, threshold: float) -> list[Change]:
    """Every metric that both results have.

    Args:
        old: the result before.
        new: the result after.
        threshold: the smallest ratio of change that counts, such as 0.03.
    """
    before = {case.name: case for case in old.cases}
    found = []
    for case in new.cases:
        if case.name not in before:
            continue
        for name, metric in case.metrics.items():
            other = before[case.name].metrics.get(name)
            if other is not None and other.unit == metric.unit:
                found.append(_change(case.name, name, other, metric, threshold))
    return found


def _change(case: str, name: str, old: Metric, new: Metric, threshold: float) -> Change:
    low, high = ratio_interval(old.rounds, new.rounds, f"{case}/{name}")
    verdict = "same"
    if min(len(old.rounds), len(new.rounds)) < _ROUNDS_MIN:
        verdict = "unknown"
    elif (low > 1 or high < 1) and abs(_ratio(old.median, new.median) - 1) >= threshold:
        rose = low > 1
        verdict = "changed" if not new.better else "better" if rose == (new.better == "more") else "worse"
    return Change(case, name, new.unit, old.median, new.median, low, high, verdict)


def ratio_interval(old: Sequence[float], new: Sequence[float], seed: str) -> tuple[float, float]:
    """The 95 % interval of the ratio of medians by the percentile bootstrap; the same each time for the same seed."""
    rng = random.Random(seed)
    ratios = sorted(
        _ratio(median(rng.choices(old, k=len(old))), median(rng.choices(new, k=len(new)))) for _ in range(DRAWS)
    )
    return ratios[int(0.025 * DRAWS)], ratios[int(0.975 * DRAWS) - 1]


def _ratio(old: float, new: float) -> float:
    if old == new:
        return 1.0
    return new / old if old else float("inf")


def _print(found: Sequence[Change], old: Report, new: Report, everything: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for name, was, now in _differences(old, new):
        console.print(f"note: {name} was {was}, is {now}", markup=False)
    shown = [change for change in found if everything or change.verdict in {"better", "worse", "changed"}]
    table = Table(box=None, pad_edge=False)
    for column in ("", "case", "metric"):
        table.add_column(column)
    for column in ("old", "new", "ratio", "95 % interval"):
        table.add_column(column, justify="right")
    for change in sorted(
        shown, key=lambda one: ("worse", "better").index(one.verdict) if one.verdict in {"worse", "better"} else 2
    ):
        table.add_row(
            change.verdict,
            change.case,
            f"{change.metric} ({change.unit})" if change.unit else change.metric,
            figure(change.old),
            figure(change.new),
            f"{_ratio(change.old, change.new):.3f}",
            f"{change.low:.3f} to {change.high:.3f}",
        )
    if shown:
        console.print(table)
    counts = {verdict: sum(change.verdict == verdict for change in found) for verdict in _VERDICTS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    console.print(f"{len(found)} figures compared: {told}" if found else "nothing in common")


_VERDICTS = ("worse", "better", "changed", "same", "unknown")


def _differences(old: Report, new: Report) -> list[tuple[str, object, object]]:
    """What differs in machine and versions, and so may explain a change."""
    pairs = [("command", old.command, new.command)]
    for name in old.machine.keys() | new.machine.keys():
        if not name.startswith("load_"):
            pairs.append((name, str(old.machine.get(name, "-")), str(new.machine.get(name, "-"))))
    for name in old.versions.keys() | new.versions.keys():
        pairs.append((name, old.versions.get(name, "-"), new.versions.get(name, "-")))
    return sorted((name, was, now) for name, was, now in pairs if was != now)
