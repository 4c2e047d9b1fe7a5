"""An exit in order loses nothing and does not touch people abroad; a block is lifted; what ends, ends."""

from pathlib import Path

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

LONGER = ("days = 4", "traffic.chats_per_day = 20", "people.offline_share = 0.4", "people.offline_hours = 30")
ORDER = (
    "order = [{{ id = 'out', date = 2015-11-02T06:00:00, kind = 'block', jurisdiction = 'Pakistan', "
    "issuer = 'the regulator', deadline = 2015-11-04{more} }}]"
)


def ran(folder: Path, *changes: str, more: str = "") -> Outcome:
    return run(from_toml(SMALL, [*LONGER, ORDER.format(more=more), *changes]), folder, seed=5)


def test_an_exit_in_order_loses_nothing(tmp_path: Path) -> None:
    outcome = ran(
        tmp_path,
        "jurisdiction.0.policy = 'leave-rather'",
        "jurisdiction.0.drain_days = 1.0",
        "tenant.0.abroad = { Canada = 0.4 }",
        "people.outside = 0.5",
    )
    assert outcome.lost == 0
    assert [change.state for change in outcome.changes] == ["ending", "ended"]
    assert not outcome.ledger.total("shown_twice")
    after = [hour for hour in outcome.ledger.hours if hour.begins_s >= outcome.changes[1].at_s]
    assert sum(hour.sent for hour in after) > 0


def test_whoever_is_blocked_gets_everything_when_the_block_is_lifted(tmp_path: Path) -> None:
    outcome = ran(tmp_path, more=", withdrawn = 2015-11-05")
    assert [change.state for change in outcome.changes] == ["blocked", "served"]
    assert outcome.held, outcome.checks


def test_whoever_stays_blocked_does_not(tmp_path: Path) -> None:
    outcome = ran(tmp_path, "people.outside = 0.5")
    assert [change.state for change in outcome.changes] == ["blocked"]
    held = {check.check: check.held for check in outcome.checks}
    assert held == {"no-receipted-envelope-lost": True, "none-delivered-twice": True, "arrived": False}


def test_what_is_to_be_preserved_is_kept_and_said(tmp_path: Path) -> None:
    one = "date = 2015-11-02T06:00:00, jurisdiction = 'Canada', issuer = 'a court', person = 'p0@acme.example'"
    after = "date = 2015-11-03T06:00:00, jurisdiction = 'Canada', issuer = 'a court', kind = 'seizure'"
    orders = f"order = [{{ id = 'keep', kind = 'preservation', {one} }}, {{ id = 'take', {after} }}]"
    outcome = run(from_toml(SMALL, [*LONGER, "relay.store = 'memory'", orders]), tmp_path, seed=5)
    kept, taken = outcome.served
    assert kept.answer.value == "provided"
    assert "Not claimed" in kept.said
    assert taken.disclosed is not None
    assert taken.disclosed.messages_read == 0
    assert not outcome.lost


def test_a_preservation_ends_in_the_log_when_the_relay_keeps_nothing_more(tmp_path: Path) -> None:
    one = "jurisdiction = 'Canada', issuer = 'a court', kind = 'preservation', person = 'p0@acme.example'"
    orders = (
        f"order = [{{ id = 'until', {one}, date = 2015-11-02T06:00:00, deadline = 2015-11-03 }}, "
        f"{{ id = 'back', {one}, date = 2015-11-03T06:00:00, withdrawn = 2015-11-04T06:00:00 }}, "
        f"{{ id = 'stays', {one}, date = 2015-11-03T07:00:00, deadline = 2016-02-01 }}, "
        f"{{ id = 'closed', {one}, date = 2015-11-02T06:00:00, deadline = 2015-11-03, sealed = true, "
        "opened = 2015-11-05 }]"
    )
    # The relay is down when one is taken back.
    crash = "fault = [{ kind = 'crash', at = [2015-11-04T05:59:59], down_s = 600 }]"
    wanted = "assert = [{ check = 'log-complete' }, { check = 'no-receipted-envelope-lost' }]"
    outcome = run(from_toml(SMALL, [*LONGER, orders, crash, wanted]), tmp_path, seed=5)
    assert outcome.held, outcome.checks
    said = [(reading.after, reading.at_s // 86_400 - 16_741) for reading in outcome.log.readings]
    assert said[1:] == [
        ("until: order and answer", 0),
        ("closed: order and answer", 0),
        ("until: released", 1),
        ("back: order and answer", 1),
        ("stays: order and answer", 1),
        ("back: withdrawn", 2),
        ("back: released", 2),
        ("closed: opened", 3),
        ("closed: released", 3),
        ("the end", 4),
    ]
