"""An exit in order loses nothing and does not touch people abroad; a block is lifted; what ends, ends."""

import hashlib
from pathlib import Path

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.report.timeline import timeline_html
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


TAPS = (
    "order = [{ id = 'tap', kind = 'interception', withdrawn = 2015-11-03T15:00:00, ONE }, "
    "{ id = 'pen', kind = 'prospective-metadata', deadline = 2015-11-03, "
    "extension = [{ on = 2015-11-02T12:00:00, deadline = 2015-11-04 }], ONE }, "
    "{ id = 'open', kind = 'interception', deadline = 2016-02-01, ONE }, "
    "{ id = 'end', kind = 'interception', sealed = true, ONE }]"
).replace("ONE", "date = 2015-11-02T06:00:00, jurisdiction = 'Canada', issuer = 'a court', person = 'p0@acme.example'")
CRASH = "fault = [{ kind = 'crash', at = [2015-11-02T09:00:00] }]"


def test_what_passes_is_captured_from_service_on_to_the_deadline_the_withdrawal_or_the_end(tmp_path: Path) -> None:
    wanted = "assert = [{ check = 'log-complete' }, { check = 'nothing-read' }, { check = 'captured', order = 'tap' }]"
    outcome = run(from_toml(SMALL, [*LONGER, TAPS, CRASH, wanted]), tmp_path, seed=5)
    assert outcome.held, outcome.checks
    day_s, begun_s = 86_400, 1_446_444_000
    tap, pen, left_open, to_end = (served.captured for served in outcome.served)
    assert tap is not None
    assert pen is not None
    assert left_open is not None
    assert to_end is not None
    midnight_s = begun_s - 6 * 3_600
    assert (tap.from_s, tap.to_s) == (begun_s, midnight_s + day_s + 15 * 3_600)
    assert (pen.from_s, pen.to_s) == (begun_s, midnight_s + 2 * day_s)
    assert to_end.to_s == outcome.scenario.end.unix_s
    assert left_open.to_s > to_end.to_s
    assert tap.envelopes < pen.envelopes < to_end.envelopes == left_open.envelopes
    # By the crash, and by an extension.
    assert (tap.gaps, pen.gaps) == (1, 2)
    assert tap.body_bytes > 0
    assert pen.body_bytes == 0
    # What is in the file is what the answer commits to; whoever goes on to be captured is not answered yet.
    for served in (outcome.served[0], outcome.served[1], outcome.served[3]):
        assert served.filed is not None
        assert served.captured is not None
        assert served.filed.evidence == hashlib.sha256(served.captured.path.read_bytes()).digest()
        assert f"{served.captured.events} events" in served.said
    assert outcome.served[2].said == ""
    assert {served.answer.value for served in outcome.served} == {"provided"}
    page = timeline_html(outcome)
    assert page.count('<span class="held">0 could be read') == 4
    # The one goes on, so that its answer is not in the log; the text of the other is sealed.
    verdicts = [served.captured.verdict for served in outcome.served if served.captured is not None]
    assert verdicts == ["BLIND", "BLIND", "INCOMPLETE", "INCOMPLETE"]
    assert page.count('<span class="">INCOMPLETE</span> (capture.answer)') == 2
    assert "it is not answered yet" in page


def test_under_one_key_for_all_what_is_captured_is_read(tmp_path: Path) -> None:
    wanted = "assert = [{ check = 'nothing-read', order = 'tap' }, { check = 'nothing-read', order = 'pen' }]"
    legacy = ("relay.protection = 'global-pin-key'", "days = 2", "people.offline_share = 0.0")
    outcome = run(from_toml(SMALL, [*LONGER, *legacy, TAPS, wanted]), tmp_path, seed=5)
    tap, pen = outcome.served[0].captured, outcome.served[1].captured
    assert tap is not None
    assert tap.read == tap.bodies >= tap.envelopes > 0
    assert (tap.verdict, tap.failed) == ("NOT BLIND", ("capture.keys",))
    assert pen is not None
    assert (pen.read, pen.verdict) == (0, "BLIND")
    # Nobody was away, so the disclosure has nothing to read: what was read had passed.
    assert [(check.held, "bodies read" in check.found) for check in outcome.checks] == [(False, True), (False, True)]
    assert f'<span class="fails">{tap.read} could be read' in timeline_html(outcome)


def test_an_order_that_is_refused_captures_nothing(tmp_path: Path) -> None:
    wanted = "assert = [{ check = 'captured', order = 'tap' }, { check = 'log-complete' }]"
    refuses = "jurisdiction.1.policy = 'refuse-all'"
    outcome = run(from_toml(SMALL, [TAPS, "days = 2.5", refuses, wanted]), tmp_path, seed=5)
    assert [check.held for check in outcome.checks] == [False, True]
    assert not list(tmp_path.rglob("capture.bin"))
