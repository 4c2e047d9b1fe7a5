"""Everything that a run leaves in its folder."""

from pathlib import Path

from sim.engine.outcome import Outcome
from sim.report.summary import summary_json
from sim.report.tables import write_tables
from sim.report.timeline import timeline_html

__all__ = ["write_report"]


def write_report(outcome: Outcome, folder: Path, transparency: str = "") -> None:
    """Write the CSV files, summary.json and timeline.html.

    Args:
        outcome: of the run.
        folder: where to.
        transparency: the page of the report that was made from the public log, to link to; empty: there is none.
    """
    write_tables(outcome, folder)
    (folder / "summary.json").write_text(summary_json(outcome), encoding="utf-8")
    (folder / "timeline.html").write_text(timeline_html(outcome, transparency), encoding="utf-8")
