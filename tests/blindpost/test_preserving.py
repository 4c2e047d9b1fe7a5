"""A preservation's end: by its day or taken back, the relay erases what it kept, and the log says so afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from audit.material import read_card
from audit.order_log import OrderLog, verify_log
from blindpost import preserving
from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus
from relay.control import ControlError
from relay.home import Home, init
from relay.store.sqlite import SqliteStore
from tests.relay.world import World, seeded

DAY_S = 86_400
BOB = ("--account", "bob@acme.example")


def day_in(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY_S))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A relay at which a mail waits for Bob that has long expired, so that whoever opens the store erases it."""
    home = init(tmp_path / "relay", lambda _: seeded("relay"), listen="127.0.0.1:18833")
    store = SqliteStore(home.store_path, home.card.relay_id, home.config.partition)
    world = World(store=store)
    ana, bob = world.enrolled("ana"), world.enrolled("bob")
    world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
    store.close()
    return home


def run(home: Home, *words: str, status: int = 0) -> None:
    assert main([*words, "--home", str(home.path)]) == status


def stored(home: Home) -> tuple[int, int]:
    """How many envelopes, and how many statements of a preservation."""
    store = SqliteStore(home.store_path, home.card.relay_id, home.config.partition)
    snapshot = store.load()
    store.close()
    return len(snapshot.envelopes), len(snapshot.relay) - 3


def verified(home: Home, days: int = 0) -> OrderLog:
    card = read_card((home.path / "relay-card.toml").read_bytes(), "card")
    return verify_log(home.path / "transparency", card, int(time.time()) + days * DAY_S)


def pass_days(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    for name in ("blindpost.desk.now_s", "blindpost.preserving.now_s"):
        monkeypatch.setattr(name, lambda: int(time.time()) + days * DAY_S)
    monkeypatch.setattr("relay.process.now_ms", lambda: int((time.time() + days * DAY_S) * 1_000))


def preserved(home: Home, *words: str, days: int = 30) -> None:
    run(home, "order", "preservation", *BOB, "--until", day_in(days), *words)


def changes(log: OrderLog, number: int = 0) -> list[str]:
    assert log.findings == []
    return [change for change, _, _ in log.orders[number].changes]


def test_after_its_day_whichever_command_writes_next_says_first_that_it_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    preserved(home)
    run(home, "order", "keys", "--deadline", day_in(40))
    run(home, "order", "extend", "1", "--deadline", day_in(50))
    assert (stored(home), changes(verified(home))) == ((1, 1), [])
    capsys.readouterr()
    run(home, "order", "list")
    assert f"honoured until {day_in(30)}" in capsys.readouterr().out
    pass_days(monkeypatch, 31)
    run(home, "order", "extend", "1", "--deadline", day_in(60))
    assert stored(home) == (0, 0)
    log = verified(home, 31)
    assert changes(log) == ["released"]
    assert log.orders[0].changes[0][1] <= log.orders[1].changes[1][1]
    run(home, "order", "extend", "1", "--deadline", day_in(70))
    assert changes(verified(home, 31)) == ["released"], "once"
    capsys.readouterr()
    run(home, "order", "list")
    assert f"released {day_in(31)}" in capsys.readouterr().out
    out = tmp_path / "report"
    run(home, "transparency-report", "--from", day_in(0), "--to", day_in(0), "--out", str(out))
    assert f"released {day_in(31)}" in (out / "report.html").read_text()


def test_a_preservation_that_is_taken_back_ends_at_the_relay_and_in_the_log(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    preserved(home)
    capsys.readouterr()
    run(home, "order", "withdraw", "0", status=ExitStatus.UNAVAILABLE)
    assert "order release 0" in capsys.readouterr().err
    assert stored(home) == (1, 1)
    run(home, "order", "release", "0")
    assert stored(home) == (0, 0)
    assert changes(verified(home)) == ["withdrawn", "released"]
    run(home, "order", "release", "0", status=ExitStatus.UNAVAILABLE)
    run(home, "order", "keys")
    run(home, "order", "release", "1", status=ExitStatus.UNAVAILABLE)
    assert changes(verified(home)) == ["withdrawn", "released"]


def test_where_another_order_stands_the_relay_goes_on_preserving_under_that_one(home: Home) -> None:
    preserved(home, days=30)
    run(home, "order", "preservation", "--tenant", "acme.example", "--until", day_in(60))
    run(home, "order", "release", "1")
    assert stored(home) == (1, 1)
    run(home, "order", "release", "0")
    assert stored(home) == (0, 0)
    assert changes(verified(home), 0) == changes(verified(home), 1) == ["withdrawn", "released"]


def test_a_relay_that_refuses_leaves_the_withdrawal_and_the_next_command_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    preserved(home)

    def refuse(*_: object) -> None:
        raise ControlError("StoreError", "the disk is full")

    monkeypatch.setattr(preserving, "release_held", refuse)
    run(home, "order", "release", "0", status=ExitStatus.UNAVAILABLE)
    assert (stored(home), changes(verified(home))) == ((1, 1), ["withdrawn"])
    monkeypatch.undo()
    run(home, "order", "keys")
    assert (stored(home), changes(verified(home))) == ((0, 0), ["withdrawn", "released"])


def test_the_end_of_a_sealed_preservation_is_told_when_it_is_opened(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    preserved(home, "--secret-until", day_in(90))
    run(home, "order", "release", "0")
    assert "once the order is opened" in capsys.readouterr().out
    run(home, "order", "keys")
    assert (stored(home), changes(verified(home))) == ((0, 0), ["withdrawn"])
    run(home, "order", "open", "0", "--lifted")
    log = verified(home)
    assert (changes(log), log.orders[0].state) == (["withdrawn", "released"], "released")


def test_a_sealed_order_that_was_refused_and_withdrawn_opens(home: Home) -> None:
    run(home, "order", "keys", "--secret-until", day_in(90))
    run(home, "order", "withdraw", "0")
    run(home, "order", "open", "0", "--lifted")
    log = verified(home)
    assert (log.findings, log.orders[0].state, log.orders[0].outcome) == ([], "withdrawn", "refused")
