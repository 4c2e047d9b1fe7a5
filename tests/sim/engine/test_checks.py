"""Each assertion of the vocabulary holds where it should, and fails where it should."""

import dataclasses
from pathlib import Path

import pytest

from sim.engine.checks import judge
from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

ORDERS = (
    "order = [{ id = 'all', date = 2015-11-02T15:00:00, kind = 'wholesale-content', jurisdiction = 'Pakistan', "
    "issuer = 'the regulator' }, { id = 'one', date = 2015-11-02T16:00:00, kind = 'subscriber-record', "
    "jurisdiction = 'Canada', issuer = 'a court' }]"
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    changes = (ORDERS, "fault = [{ kind = 'crash', at = [2015-11-02T09:00:00] }]", "people.offline_share = 0.3")
    return run(from_toml(SMALL, changes), tmp_path_factory.mktemp("run"), seed=4)


def judged(outcome: Outcome, check: str) -> bool:
    scenario = from_toml(SMALL, [ORDERS, f"assert = [{{ {check} }}]"])
    return judge(dataclasses.replace(outcome, scenario=scenario))[0].held


@pytest.mark.parametrize(
    ("holds", "fails"),
    [
        ("check = 'nothing-read', order = 'all'", "check = 'nothing-read', order = 'one'"),
        ("check = 'verdict', order = 'all', is = 'BLIND'", "check = 'verdict', order = 'all', is = 'NOT BLIND'"),
        ("check = 'answered', order = 'all', as = 'refused'", "check = 'answered', order = 'all', as = 'provided'"),
        ("check = 'answered', order = 'one', as = 'provided'", "check = 'answered', order = 'one', as = 'refused'"),
        ("check = 'answered', order = 'one', as = 'provided'", "check = 'answered', order = 'one', as = 'not-ours'"),
        ("check = 'sent-at-least', messages = 20", "check = 'sent-at-least', messages = 100000"),
        ("check = 'faults-happened', kind = 'crash'", "check = 'faults-happened', kind = 'crash', at_least = 2"),
        ("check = 'backlog-below', envelopes = 1000", "check = 'backlog-below', envelopes = 1"),
        (
            "check = 'backlog-below', envelopes = 1000, on = 2015-11-02T12:00:00",
            "check = 'backlog-below', envelopes = 0, on = 2015-11-02T12:00:00",
        ),
        (
            "check = 'service', jurisdiction = 'Canada', on = 2015-11-02, is = 'served'",
            "check = 'service', jurisdiction = 'Canada', on = 2015-11-02, is = 'ended'",
        ),
    ],
)
def test_an_assertion_holds_where_it_should_and_fails_where_it_should(outcome: Outcome, holds: str, fails: str) -> None:
    assert judged(outcome, holds)
    assert not judged(outcome, fails)


@pytest.mark.parametrize("check", ["no-receipted-envelope-lost", "none-delivered-twice"])
def test_what_is_lost_or_doubled_fails(outcome: Outcome, check: str) -> None:
    assert judged(outcome, f"check = '{check}'")
    hours = [dataclasses.replace(hour) for hour in outcome.ledger.hours]
    hours[0].shown_twice = 1
    spoilt = dataclasses.replace(outcome, lost=1, ledger=dataclasses.replace(outcome.ledger, hours=hours))
    assert not judged(spoilt, f"check = '{check}'")


def test_a_message_that_never_arrived_fails(outcome: Outcome) -> None:
    assert judged(outcome, "check = 'arrived', at_least = 1.0")
    sent = next(iter(outcome.ledger.receipted()))
    sent.shown = False
    try:
        assert not judged(outcome, "check = 'arrived', at_least = 1.0")
        assert judged(outcome, "check = 'arrived', at_least = 0.5")
    finally:
        sent.shown = True


def test_an_empty_run_proves_nothing(tmp_path: Path) -> None:
    silent = ("traffic.chats_per_day = 0", "traffic.mails_per_day = 0")
    outcome = run(from_toml(SMALL, silent), tmp_path)
    assert [one.held for one in outcome.checks] == [False, False, False]


def test_a_readable_body_fails_and_the_verdict_says_so(tmp_path: Path) -> None:
    changes = (ORDERS, "relay.protection = 'global-pin-key'", "people.offline_share = 0.5")
    outcome = run(from_toml(SMALL, changes), tmp_path, seed=4)
    assert outcome.served[0].disclosed is not None
    assert outcome.served[0].disclosed.messages_read > 0
    assert not judged(outcome, "check = 'nothing-read'")
    assert judged(outcome, "check = 'verdict', order = 'all', is = 'NOT BLIND'")


def test_a_log_with_every_order_holds_and_one_with_a_gap_a_finding_or_no_order_fails(outcome: Outcome) -> None:
    wanted = "check = 'log-complete'"
    assert judged(outcome, wanted)
    (first, *rest) = outcome.log.readings
    bad = dataclasses.replace(first, findings=("leaf 0: is dated before",))
    for spoilt in (
        dataclasses.replace(outcome.log, gaps=("order one has no leaf",)),
        dataclasses.replace(outcome.log, readings=(bad, *rest)),
        dataclasses.replace(outcome.log, served=0),
    ):
        assert not judged(dataclasses.replace(outcome, log=spoilt), wanted)


GHOST = (
    "order = [{ id = 'ghost', date = 2015-11-02T09:00:00, kind = 'ghost-device', jurisdiction = 'Canada', "
    "issuer = 'a court', person = 'p0@acme.example' }]"
)
WANTED = "assert = [{ check = 'ghost-refused', order = 'ghost' }]"


@pytest.mark.parametrize("crypto", ["sized", "real"])
def test_a_ghost_device_is_refused_by_everybody_who_is_told_of_it(tmp_path: Path, crypto: str) -> None:
    honour = "jurisdiction.1.answers = { ghost-device = 'honour' }"
    small = ("days = 0.6", "tenant.0.people = 2", "tenant.1.people = 3", "tenant.1.devices_per_person = 1.0")
    outcome = run(from_toml(SMALL, [*small, GHOST, WANTED, honour, f"crypto = '{crypto}'"]), tmp_path, seed=3)
    assert outcome.held, outcome.checks
    # The twin: an order that is refused puts no device on any list, so nothing is shown by it.
    if crypto == "sized":
        assert not run(from_toml(SMALL, [*small, GHOST, WANTED]), tmp_path / "twin", seed=3).held


def test_an_envelope_encrypted_to_a_ghost_fails(outcome: Outcome) -> None:
    served = dataclasses.replace(outcome.served[0], ghost_encrypted=1, ghost_alarms=3)
    scenario = from_toml(SMALL, [ORDERS, "assert = [{ check = 'ghost-refused', order = 'all' }]"])
    spoilt = dataclasses.replace(outcome, scenario=scenario, served=[served])
    assert not judge(spoilt)[0].held
    spoilt.served = [dataclasses.replace(served, ghost_encrypted=0)]
    assert judge(spoilt)[0].held
