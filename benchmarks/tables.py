"""Results as text: for each case one line a metric, the median of the rounds and their range."""

from rich.console import Console
from rich.table import Table

from benchmarks.report import Metric, Report

__all__ = ["figure", "print_report"]


def figure(number: float) -> str:
    """A figure with three or four significant digits, thousands apart."""
    size = abs(number)
    if size >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if size >= 10 else f"{number:.2f}" if size >= 0.1 else f"{number:.4f}"


def spread(metric: Metric) -> str:
    """The range of the rounds; empty for a single one."""
    if len(metric.rounds) < 2:
        return ""
    return f"{figure(min(metric.rounds))} to {figure(max(metric.rounds))}"


def print_report(report: Report) -> None:
    """Print everything to standard output."""
    console = Console(highlight=False, soft_wrap=True)
    for case in report.cases:
        table = Table(title=case.name, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(min_width=38)
        table.add_column(justify="right", min_width=10)
        table.add_column(min_width=12)
        table.add_column(style="dim")
        for name, metric in case.metrics.items():
            table.add_row(name, figure(metric.median), metric.unit, spread(metric))
        for kind, rows in case.percentiles.items():
            for percentile, value in rows:
                table.add_row(
                    f"{kind} p{percentile:g}" if percentile < 100 else f"{kind} most", figure(value), "ms", ""
                )
        console.print(table)
        for note in case.notes:
            console.print(f"  {note}", markup=False)
        console.print()
    for skipped in report.skipped:
        console.print(f"skipped: {skipped.name}: {skipped.reason}", markup=False)
    for note in report.notes:
        console.print(note, markup=False)
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    console.print(f"machine: {machine}\nversions: {versions}\n{report.command}", markup=False)
