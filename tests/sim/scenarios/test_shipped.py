"""The shipped scenarios at a small scale: their assertions hold, and one changed line changes what is said of them."""

import re
from pathlib import Path

import pytest

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.scenario.base import ScenarioError
from sim.scenario.scenario import load, scaled
from sim.scenarios import names, shipped

FEW = (
    "traffic.chats_per_day = 0.4",
    "traffic.mails_per_day = 0.2",
    "people.offline_hours = 96",
    "people.offline_share = 0.6",
)
"""Months with little mail, of which some waits whenever somebody asks for it."""
SMALL: dict[str, tuple[int, tuple[str, ...]]] = {
    "bad-week": (12, ()),
    "clemenza-2010": (10, ("traffic.chats_per_day = 3",)),
    "ennetcom-2016": (6, ("traffic.mails_per_day = 2", "days = 16")),
    "ghost-order": (8, ("people.offline_share = 0.5",)),
    "gulf-2010": (8, FEW[:2]),
    "india-2010": (8, ("traffic.chats_per_day = 1.5", "traffic.mails_per_day = 0.5", "people.offline_share = 0.5")),
    "pakistan-2015": (10, FEW),
}


def outcome_of(name: str, folder: Path, *changes: str) -> Outcome:
    people, small = SMALL[name]
    scenario = scaled(load(shipped(name), [*small, *changes]), people)
    return run(scenario, folder / "out")


def failed(outcome: Outcome) -> set[str]:
    return {check.check for check in outcome.checks if not check.held}


def test_seven_scenarios_are_shipped_and_each_names_its_sources_and_counterfactuals() -> None:
    assert names() == sorted(SMALL)
    for name in names():
        scenario = load(shipped(name))
        assert scenario.name == name
        assert scenario.sources
        assert "--set" in shipped(name).read_text(encoding="utf-8")


def test_a_name_that_is_not_shipped_is_refused_with_those_that_are() -> None:
    with pytest.raises(ScenarioError, match="pakistan-2015"):
        shipped("../pakistan-2015")


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_documented_counterfactual_is_a_line_that_the_scenario_takes(name: str) -> None:
    changes = re.findall(r'--set "([^"]*)"', shipped(name).read_text(encoding="utf-8"))
    assert changes
    for change in changes:
        assert load(shipped(name), [change]) != load(shipped(name)), change


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_assertions_of_a_shipped_scenario_hold_at_a_small_scale(name: str, tmp_path: Path) -> None:
    outcome = outcome_of(name, tmp_path)
    assert not failed(outcome), [check for check in outcome.checks if not check.held]
    for served in outcome.served:
        if served.disclosed is not None:
            rows = [values for table, _column, _tells, values in served.disclosed.leakage if table == "envelopes"]
            assert max(rows, default=0) > 0, "an empty relay proves nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "fails"),
    [
        ("pakistan-2015", "relay.protection = 'global-pin-key'", {"nothing-read"}),
        ("pakistan-2015", "relay.escrow = true", {"nothing-read"}),
        ("pakistan-2015", "jurisdiction.0.policy = 'refuse-all'", {"answered", "service"}),
        ("pakistan-2015", "order.1.withdrawn = 2016-02-01", {"service"}),
        ("india-2010", "relay.protection = 'global-pin-key'", {"nothing-read"}),
        ("gulf-2010", "order.0.withdrawn = 2010-12-01", {"service"}),
        ("gulf-2010", "order.1.extension = []", {"service"}),
        ("clemenza-2010", "relay.protection = 'blindpost'", {"verdict"}),
        ("ennetcom-2016", "relay.protection = 'blindpost'", {"verdict"}),
        ("ennetcom-2016", "relay.jurisdiction = 'Netherlands'", set()),
        ("ghost-order", "jurisdiction.0.answers.ghost-device = 'refuse'", {"answered", "ghost-refused"}),
    ],
)
def test_a_counterfactual_changes_the_verdict(name: str, change: str, fails: set[str], tmp_path: Path) -> None:
    assert failed(outcome_of(name, tmp_path, change)) == fails
