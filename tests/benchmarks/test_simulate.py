"""`simulate`: a small run from end to end, and what must fail it."""

from pathlib import Path

import pytest

from benchmarks import simulate
from benchmarks.report import Report
from sim.engine.handset import Handset
from sim.engine.ledger import Sent

SMALL = ["--devices", "40", "--messages", "60", "--days", "2"]


def test_a_run_has_its_figures(tmp_path: Path) -> None:
    assert simulate.main([*SMALL, "--out", str(tmp_path)]) == 0
    (case,) = Report.read(tmp_path / "simulate.json").cases
    assert case.dimensions == {"devices": 40, "days": 2}
    assert 40 <= case.metrics["messages"].median <= 60
    assert case.metrics["took"].median > 0


def test_a_run_that_shows_a_message_twice_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    take = Handset._take

    def twice(handset: Handset, sent: Sent) -> None:
        take(handset, sent)
        take(handset, sent)

    monkeypatch.setattr(Handset, "_take", twice)
    assert simulate.main([*SMALL, "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
