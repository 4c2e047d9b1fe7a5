"""Every fault really happens, is counted only when it did, and is survived: nothing is lost, nothing doubled."""

from pathlib import Path

import pytest

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

AT = "at = [2015-11-02T10:00:05, 2015-11-02T13:30:05]"
FAULTS = {
    "crash": "down_s = 60",
    "torn-write": "down_s = 60",
    "full-disk": "minutes = 20",
    "slow-disk": "minutes = 20, delay_ms = 900",
    "clock-jump": "minutes = 20, seconds = -90",
    "broker-restart": "down_s = 120",
    "partition": "minutes = 30, jurisdiction = 'Pakistan'",
}
BUSY = ("traffic.chats_per_day = 60", "people.offline_share = 0.1")


def ran(folder: Path, *changes: str) -> Outcome:
    return run(from_toml(SMALL, [*BUSY, *changes]), folder, seed=2)


@pytest.mark.parametrize(
    ("kind", "store"), [*((kind, "memory") for kind in FAULTS), ("crash", "sqlite"), ("torn-write", "sqlite")]
)
def test_a_fault_happens_and_is_survived(tmp_path: Path, kind: str, store: str) -> None:
    fault = f"fault = [{{ kind = '{kind}', {AT}, {FAULTS[kind]} }}]"
    outcome = ran(tmp_path, fault, f"relay.store = '{store}'")
    assert outcome.held, outcome.checks
    assert outcome.faults[kind] >= 2
    assert all(count == 0 for other, count in outcome.faults.items() if other != kind)
    trace = {
        "crash": outcome.ledger.total("packets_lost"),
        "torn-write": outcome.ledger.total("packets_lost"),
        "full-disk": outcome.ledger.refusals.get("storage_failed", 0),
        "slow-disk": outcome.faults["slow-disk"],
        "clock-jump": outcome.faults["clock-jump"],
        "broker-restart": outcome.ledger.total("packets_lost"),
        "partition": outcome.ledger.total("packets_lost"),
    }
    assert trace[kind] > 0


def test_a_fault_that_met_nobody_is_not_counted(tmp_path: Path) -> None:
    silent = ("traffic.chats_per_day = 0", "traffic.mails_per_day = 0", "people.offline_share = 0.0")
    for kind in ("full-disk", "slow-disk", "torn-write"):
        fault = f"fault = [{{ kind = '{kind}', {AT} }}]"
        assert not any(ran(tmp_path / kind, *silent, fault).faults.values())


def test_a_network_that_loses_doubles_and_reorders_is_survived(tmp_path: Path) -> None:
    network = "network = { loss = 0.1, duplication = 0.1, reorder = 0.2, delay_spread_ms = 500 }"
    outcome = ran(tmp_path, network)
    assert outcome.held, outcome.checks
    assert outcome.ledger.total("packets_lost") > 100


def test_everything_at_once_is_survived(tmp_path: Path) -> None:
    faults = ", ".join(f"{{ kind = '{kind}', per_day = 4, {more} }}" for kind, more in FAULTS.items())
    outcome = ran(tmp_path, f"fault = [{faults}]", "network.loss = 0.05", "network.duplication = 0.05")
    assert outcome.held, outcome.checks
    assert sum(outcome.faults.values()) > 10
