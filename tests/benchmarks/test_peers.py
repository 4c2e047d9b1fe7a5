"""`peers`: the same work and the same account for all; a peer that loses or doubles fails the run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.load.ledger import LostOrDoubled
from benchmarks.peers import command
from benchmarks.peers.measured import Window
from benchmarks.peers.work import Account, Outcome, Work
from benchmarks.report import Report

SMALL = ["--rounds", "1", "--messages", "60", "--recipients", "5", "--senders", "3", "--window", "4"]


@pytest.mark.parametrize(
    "peer",
    [
        "blindpost-gateways",
        "blindpost-devices",
        "jetstream-sync",
        pytest.param("mosquitto", marks=pytest.mark.mosquitto),
    ],
)
def test_small_work_is_done_and_written_down(peer: str, tmp_path: Path) -> None:
    assert command.main([*SMALL, "--only", peer, "--out", str(tmp_path)]) == 0
    (case,) = Report.read(tmp_path / "peers.json").cases
    assert case.metrics["accepted"].median > 0
    assert case.metrics["drained"].median > 0
    assert case.dimensions["messages"] == 60
    assert case.dimensions["synced"]


@pytest.mark.parametrize("peer", ["postgresql", "postgresql-kept", "rabbitmq-quorum", "rabbitmq-classic", "prosody"])
@pytest.mark.slow
def test_peers_that_are_large_do_the_work_or_say_why_not(peer: str, tmp_path: Path) -> None:
    assert command.main([*SMALL, "--only", peer, "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "peers.json")
    missing = command.peers()[peer].missing()
    assert [one.reason for one in report.skipped] == ([missing] if missing else [])
    assert len(report.cases) == (0 if missing else 1)


def test_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "kafka"])
    assert "unknown: kafka" in capsys.readouterr().err


def test_peer_that_loses_gives_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Losing:
        name, synced, kind = "losing", "no", 2

        def missing(self) -> str | None:
            return None

        def run(self, folder: Path, work: Work, tell: Callable[[int], None]) -> Outcome:
            account = Account(work)
            for place in range(1, work.messages):
                account.take(account.recipient_of[place], account.payloads[place])
            account.close()
            raise AssertionError("the account closed")

    monkeypatch.setattr(command, "peers", lambda: {"losing": Losing()})
    assert command.main([*SMALL, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "FAILED: LostOrDoubled: 59 of 60 messages arrived\n"
    assert not (tmp_path / "out").exists()


def test_doubled_changed_foreign_and_misdelivered_messages_are_found() -> None:
    account = Account(Work(messages=6, message_bytes=32, senders=2, recipients=3))
    first, second = account.payloads[:2]
    account.take(account.recipient_of[0], first)
    for recipient, payload, words in (
        (account.recipient_of[0], first, "twice"),
        (account.recipient_of[1], second[:-1] + bytes([second[-1] ^ 1]), "changed"),
        (account.recipient_of[1], bytes(32), "not sent"),
        ((account.recipient_of[1] + 1) % 3, second, "another recipient"),
    ):
        with pytest.raises(LostOrDoubled, match=words):
            account.take(recipient, payload)
    assert account.arrived == 1


def test_every_message_has_one_sender_and_the_work_repeats_with_its_seed() -> None:
    work = Work(messages=50, senders=7, recipients=4, seed=3)
    account = Account(work)
    assert sorted(place for sender in range(7) for place in account.of_sender(sender)) == list(range(50))
    assert account.recipient_of == Account(work).recipient_of
    assert sum(account.wanted) == 50


async def test_window_lets_so_many_under_way_and_no_more() -> None:
    import asyncio

    window = Window(2)
    await window.take()
    await window.take()
    third = asyncio.create_task(window.take())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not third.done()
    window.give()
    await third
    window.give(2)
    await window.settled()


def test_loading_the_command_loads_no_client_of_a_peer() -> None:
    import subprocess

    code = "import json, sys, benchmarks.peers.command; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "psycopg" not in json.loads(done.stdout)
