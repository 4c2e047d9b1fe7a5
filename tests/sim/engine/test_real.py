"""A run with the real client: the same events for the same seed, faults survived, a disclosure that is BLIND."""

from pathlib import Path

import pytest

from sim.engine.run import run
from sim.report.tables import hours_csv, orders_csv
from sim.scenario.base import ScenarioError
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

REAL = (
    "crypto = 'real'",
    "tenant.1.devices_per_person = 1.0",
    "tenant.0.people = 2",
    "tenant.1.people = 3",
    "days = 0.5",
    "start = 2015-11-02T06:00:00",
    "network.loss = 0.05",
    "network.duplication = 0.1",
    "fault = [{ kind = 'crash', at = [2015-11-02T10:00:00] }, { kind = 'partition', at = [2015-11-02T11:00:00] }]",
    "order = [{ id = 'all', date = 2015-11-02T12:00:00, kind = 'wholesale-content', jurisdiction = 'Pakistan', "
    "issuer = 'the regulator' }]",
)


def test_one_seed_gives_the_same_events_and_everything_arrives_once(tmp_path: Path) -> None:
    one, two = (run(from_toml(SMALL, REAL), tmp_path / name, seed=3) for name in ("one", "two"))
    assert one.held, one.checks
    assert one.faults["crash"] == one.faults["partition"] == 1
    assert one.ledger.messages > 10
    assert one.served[0].disclosed is not None
    assert one.served[0].disclosed.verdict == "BLIND"
    assert orders_csv(one).split(",")[:10] == orders_csv(two).split(",")[:10]
    rows = [[(hour.sent, hour.shown) for hour in outcome.ledger.hours] for outcome in (one, two)]
    assert rows[0] == rows[1]
    assert hours_csv(one).count("\n") == len(one.ledger.hours) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("tenant.0.people = 1000", "at most 200 people"),
        ("relay.protection = 'hosted'", "knows no older protection"),
        ("relay.escrow = true", "no escrow"),
        ("tenant.1.devices_per_person = 1.5", "must be 1"),
    ],
)
def test_what_only_a_sized_run_has_is_refused(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        run(from_toml(SMALL, [*REAL, change]), tmp_path)
