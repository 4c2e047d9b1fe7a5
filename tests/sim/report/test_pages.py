"""The files of a run: the page escapes what a scenario says, and the tables say what happened."""

import csv
import dataclasses
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
    assert "Order 0 on the docket, leaf 1 of the public log, answered in leaf 2" in page
    assert "Handed over was a disclosure of" in page
    assert outcome.log.readings[-1].root in page
    assert "transparency report" not in page
    assert '<a href="report/a&amp;b.html">The transparency report</a>' in timeline_html(outcome, "report/a&b.html")


def test_a_log_that_does_not_hold_is_said_on_the_page_and_in_the_summary(outcome: Outcome) -> None:
    spoilt = dataclasses.replace(outcome, log=dataclasses.replace(outcome.log, gaps=("order <all> has no answer",)))
    assert "It does not hold: order &lt;all&gt; has no answer" in timeline_html(spoilt)
    assert json.loads(summary_json(spoilt))["log"]["holds"] is False
    assert json.loads(summary_json(outcome))["log"]["holds"] is True


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
    assert (row["number"], row["leaf"], row["answer_leaf"], row["log_leaves"]) == ("0", "1", "2", "3")
    assert row["log_root"] == outcome.log.readings[-1].root
    summary = json.loads(summary_json(outcome))
    assert summary["crypto"] == "sized"
    assert any("noninterference" in limit for limit in summary["does not show"])
    assert summary["orders"][0]["verdict"] == "BLIND"


def test_a_run_whose_assertion_fails_says_so(tmp_path: Path) -> None:
    failing = run(from_toml(SMALL, ["assert = [{ check = 'sent-at-least', messages = 100000 }]"]), tmp_path)
    assert not failing.held
    assert "FAILS" in timeline_html(failing)
    assert json.loads(summary_json(failing))["held"] is False
