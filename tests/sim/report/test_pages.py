"""The files of a run: the page escapes what a scenario says, and the tables say what happened."""

import csv
import io
import json
from pathlib import Path

import pytest

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.report.summary import summary_json
from sim.report.tables import hours_csv, orders_csv
from sim.report.timeline import timeline_html
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

ORDER = (
    "order = [{ id = 'all', date = 2015-11-02T15:00:00, kind = 'seizure', jurisdiction = 'Pakistan', "
    "issuer = 'A & B <script>', says = '<img src=x>' }]"
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(from_toml(SMALL, [ORDER]), tmp_path_factory.mktemp("run"))


def test_the_page_escapes_and_has_no_script(outcome: Outcome) -> None:
    page = timeline_html(outcome)
    assert "<script" not in page
    assert "<img" not in page
    assert "A &amp; B &lt;script&gt;" in page
    assert "Two companies &amp; one order" in page
    assert "http" not in page
    assert "<svg" in page


def test_the_hours_add_up(outcome: Outcome) -> None:
    rows = list(csv.DictReader(io.StringIO(hours_csv(outcome))))
    assert sum(int(row["sent"]) for row in rows) == outcome.ledger.messages
    assert sum(int(row["receipted"]) for row in rows) == outcome.ledger.total("receipted")
    assert {row["service Pakistan"] for row in rows} == {"served"}
    assert len(rows) >= 25


def test_orders_and_summary_say_what_was_found(outcome: Outcome) -> None:
    (row,) = csv.DictReader(io.StringIO(orders_csv(outcome)))
    assert row["verdict"] == "BLIND"
    assert row["answer"] == "provided"
    summary = json.loads(summary_json(outcome))
    assert summary["crypto"] == "sized"
    assert any("noninterference" in limit for limit in summary["does not show"])
    assert summary["orders"][0]["verdict"] == "BLIND"


def test_a_run_whose_assertion_fails_says_so(tmp_path: Path) -> None:
    failing = run(from_toml(SMALL, ["assert = [{ check = 'sent-at-least', messages = 100000 }]"]), tmp_path)
    assert not failing.held
    assert "FAILS" in timeline_html(failing)
    assert json.loads(summary_json(failing))["held"] is False
