"""`peers`: the same work and the same account for all; a peer that loses or doubles fails the run."""

import contextlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import fsyncs
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.peers import command, synapse
from benchmarks.peers.measured import Window
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.report import Report

SMALL = [
    "--rounds",
    "1",
    "--messages",
    "60",
    "--recipients",
    "5",
    "--senders",
    "3",
    "--window",
    "4",
    "--no-count-fsyncs",
]


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


@pytest.mark.parametrize(
    "peer",
    [
        "postgresql",
        "postgresql-kept",
        "rabbitmq-quorum",
        "rabbitmq-classic",
        "prosody",
        "synapse-batched",
        "jetstream-r3",
    ],
)
@pytest.mark.slow
def test_peers_that_are_large_do_the_work_or_say_why_not(peer: str, tmp_path: Path) -> None:
    before = port_mappers()
    assert command.main([*SMALL, "--only", peer, "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "peers.json")
    missing = command.peers()[peer].missing()
    assert [one.reason for one in report.skipped] == ([missing] if missing else [])
    assert len(report.cases) == (0 if missing else 1)
    # Erlang's port mapper outlives its node, unless it is ended too.
    assert port_mappers() <= before


def test_peer_that_is_not_installed_is_skipped_with_how_to_install_it(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert command.main([*SMALL, "--only", "synapse", "--synapse", nowhere, "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "peers.json")
    assert report.cases == []
    (skipped,) = report.skipped
    assert skipped.reason == (
        "Synapse is not installed (python -m venv nowhere; nowhere/bin/pip install matrix-synapse)"
    )


@pytest.mark.skipif(fsyncs.missing_tracer() is not None, reason="strace is not installed")
def test_flushes_are_counted_where_each_message_is_synced_and_where_none_is(tmp_path: Path) -> None:
    argv = [*SMALL, "--count-fsyncs", "--only", "jetstream-sync,jetstream", "--out", str(tmp_path)]
    assert command.main(argv) == 0
    synced, cached = Report.read(tmp_path / "peers.json").cases
    assert synced.metrics["flushes, accepting"].median >= 1_000
    assert cached.metrics["flushes, accepting"].median < 1_000


def port_mappers() -> set[str]:
    """The ids of all processes of Erlang's port mapper."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"epmd" in entry.read_bytes().split(b"\0")[0]:
                found.add(entry.parent.name)
    return found


def test_request_of_synapse_names_each_device_once_and_holds_no_more_than_the_batch() -> None:
    account = Account(Work(messages=100, senders=2, recipients=10))
    for batch in (1, 4, 32):
        requests = synapse._requests(account, 1, batch)
        assert [place for request in requests for place in request] == list(account.of_sender(1))
        for request in requests:
            recipients = [account.recipient_of[place] for place in request]
            assert len(set(recipients)) == len(recipients) <= batch


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

        def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
            account = Account(work)
            for place in range(1, work.messages):
                account.take(account.recipient_of[place], account.payloads[place])
            account.close()
            raise AssertionError("the account closed")

    monkeypatch.setattr(command, "peers", lambda synapse=None: {"losing": Losing()})
    assert command.main([*SMALL, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "FAILED: LostOrDoubled: losing: 59 of 60 messages arrived\n"
    assert not (tmp_path / "out").exists()


def test_peer_that_breaks_off_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Breaking:
        name, synced, kind = "breaking", "no", 2

        def missing(self) -> str | None:
            return None

        def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
            raise TimeoutError("the peer did not finish")

    monkeypatch.setattr(command, "peers", lambda synapse=None: {"breaking": Breaking()})
    assert command.main([*SMALL, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "FAILED: ServerError: breaking: the peer did not finish\n"


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
