"""What a run captured is audited against the run's own public log, and a file that was tampered with is caught."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.errors import AuditError
from relay.home import Home
from sim.engine.bodies import HistoricalBodies
from sim.engine.chance import generator
from sim.engine.checks import judge
from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.orders.captured import Captured, audit_captured
from sim.report.summary import summary_json
from sim.report.timeline import timeline_html
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

ORDER = (
    "order = [{ id = 'tap', kind = 'interception', date = 2015-11-02T06:00:00, deadline = 2015-11-02T15:00:00, "
    "jurisdiction = 'Canada', issuer = 'a court', person = 'p0@acme.example' }]"
)
WANTED = "assert = [{ check = 'nothing-read' }]"
LENGTH_BYTES = 4


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(from_toml(SMALL, [ORDER, WANTED]), tmp_path_factory.mktemp("run"), seed=5)


def captured_of(outcome: Outcome) -> Captured:
    captured = outcome.served[0].captured
    assert captured is not None
    return captured


def home_of(captured: Captured) -> Home:
    return Home.open(captured.path.parents[2] / "relay")


def records(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def test_what_was_captured_holds_against_the_runs_own_log(outcome: Outcome) -> None:
    captured = captured_of(outcome)
    assert (captured.verdict, captured.failed, captured.missing) == ("BLIND", (), ())
    assert captured.body_bytes > 0
    assert captured.read == 0
    assert outcome.held, outcome.checks
    assert 'Verdict of the file: <span class="held">BLIND</span>.' in timeline_html(outcome)
    told = json.loads(summary_json(outcome))["orders"][0]["captured"]
    assert (told["verdict"], told["checks failed"], told["checks incomplete"]) == ("BLIND", [], [])


def bend_a_body(data: bytes) -> bytes:
    longest = max(records(data), key=len)
    at = data.index(longest) + len(longest) - 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def take_an_event_out(data: bytes) -> bytes:
    whole = records(data)
    whole.remove(max(whole, key=len))
    return b"".join(whole)


@pytest.mark.parametrize(
    ("tamper", "check"),
    [
        (bend_a_body, "capture.answer"),
        (take_an_event_out, "capture.records"),
        (lambda data: data[:-1], "capture.records"),
        (lambda data: data + b"\0\0\0\1\xc0", "capture.records"),
        (lambda data: bytes(len(data)), "capture.records"),
    ],
)
def test_attack_a_capture_that_was_tampered_with_is_caught_and_nothing_read_fails(
    outcome: Outcome, tmp_path: Path, tamper: Callable[[bytes], bytes], check: str
) -> None:
    captured = captured_of(outcome)
    path = tmp_path / "capture.bin"
    path.write_bytes(tamper(captured.path.read_bytes()))
    found = audit_captured(path, home_of(captured))
    assert found.verdict == "NOT BLIND"
    assert check in found.failed
    spoilt = dataclasses.replace(outcome, served=[dataclasses.replace(outcome.served[0], captured=found)])
    (judged,) = judge(spoilt)
    assert not judged.held
    assert "1 captures, 0 bodies read, 1 not blind" in judged.found
    assert '<span class="fails">NOT BLIND</span> (capture.' in timeline_html(spoilt)


def test_keys_that_people_volunteer_of_another_suite_open_nothing(outcome: Outcome) -> None:
    captured = captured_of(outcome)
    volunteered = HistoricalBodies("global-pin-key", generator(1, "test").randbytes).volunteered
    found = audit_captured(captured.path, home_of(captured), volunteered)
    assert (found.verdict, found.read, found.bodies) == ("BLIND", 0, captured.bodies)


@pytest.mark.parametrize("protection", ["hosted", "server-keys"])
def test_what_a_server_keeps_beside_the_mail_reads_what_passed(tmp_path: Path, protection: str) -> None:
    legacy = f"relay.protection = '{protection}'"
    captured = captured_of(run(from_toml(SMALL, [ORDER, WANTED, legacy]), tmp_path, seed=5))
    assert captured.read == captured.bodies > 0
    assert (captured.verdict, captured.failed) == ("NOT BLIND", ("capture.keys",))
    # The file alone gives nobody the server's keys, and those of other mailboxes are not of this order.
    assert audit_captured(captured.path, home_of(captured)).read == 0
    assert audit_captured(captured.path, home_of(captured), (), {bytes(16): bytes(range(24))}).verdict == "BLIND"


def test_a_file_that_is_not_there_is_said(outcome: Outcome, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be opened"):
        audit_captured(tmp_path / "capture.bin", home_of(captured_of(outcome)))
