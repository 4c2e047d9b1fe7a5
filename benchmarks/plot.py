"""Plot: the SVG and the page of a result again, from its JSON."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.charts import svg_of
from benchmarks.page import page_of
from benchmarks.report import Report, ReportError

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks plot", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: beside the result)")
    options = parser.parse_args(argv)
    # Late: the list of benchmarks names this module.
    from benchmarks.__main__ import NAMES

    for path in options.results:
        try:
            report = Report.read(path)
        except (ReportError, OSError) as error:
            print(f"plot: {error}", file=sys.stderr)
            return 64
        draw = getattr(importlib.import_module(NAMES[report.benchmark][0]), "charts", None)
        charts = draw(report) if draw is not None else []
        out = (options.out or path.parent) / path.stem
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".svg").write_text(svg_of(charts), encoding="utf-8")
        out.with_suffix(".html").write_text(page_of(report, charts), encoding="utf-8")
        print(f"{out}.svg, {out}.html")
    return 0
