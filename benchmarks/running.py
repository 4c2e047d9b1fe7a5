"""What every benchmark has in common: its options, where its results go, and how a failed run ends.

NAME.json   every figure of every round (benchmarks/report.py)
NAME.svg    the plot
NAME.html   plot and tables on one page, without scripts and without anything fetched from elsewhere
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.charts import Chart, svg_of
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.load.process import LoadFailed
from benchmarks.page import page_of
from benchmarks.processes import ServerError
from benchmarks.report import Report
from benchmarks.tables import print_report

__all__ = ["command_line", "finish", "guarded", "parser_of", "words_of", "write"]


def parser_of(name: str, doc: str, rounds: int) -> argparse.ArgumentParser:
    """A benchmark's parser, with the options that all have.

    Args:
        name: after `python -m benchmarks`.
        doc: the module's docstring; its first line describes the benchmark.
        rounds: how often everything is measured.
    """
    summary = doc.strip().splitlines()[0]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=f"{summary}\n\n{doc.strip().partition(chr(10))[2].strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=_positive, default=rounds, help=f"measure so often (default {rounds})")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the times of messages (default 1)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        metavar="DIR",
        help="where JSON, SVG and HTML go (default benchmark-results)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def words_of(text: str) -> list[str]:
    """The parts of a list with commas, for an option's `type`."""
    return [word for word in text.split(",") if word]


def command_line(name: str, argv: Sequence[str]) -> str:
    """The command that made a result."""
    return " ".join(("python -m benchmarks", name, *argv))


def guarded(measure: Callable[[], int]) -> int:
    """Run a benchmark; a run that failed has no figures, and ends with status 1 and the reason."""
    try:
        return measure()
    except (LostOrDoubled, LoadFailed, ServerError) as error:
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def finish(report: Report, charts: Sequence[Chart], out: Path) -> int:
    """Print the result and write its files; returns the exit status."""
    report.ended()
    report.machine["load_after"] = f"{os.getloadavg()[0]:.2f}"
    print_report(report)
    write(report, charts, out)
    return 0


def write(report: Report, charts: Sequence[Chart], out: Path) -> None:
    """Write the result's three files into a folder, beside earlier ones: `relay.json`, then `relay-2.json`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{report.benchmark}.json"
    number = 1
    while path.exists():
        number += 1
        path = out / f"{report.benchmark}-{number}.json"
    path.write_bytes(report.to_json())
    svg = svg_of(charts)
    path.with_suffix(".svg").write_text(svg, encoding="utf-8")
    path.with_suffix(".html").write_text(page_of(report, charts), encoding="utf-8")
    print(f"\nwritten: {path}, and .svg, .html beside it")
