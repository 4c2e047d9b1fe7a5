"""Erased is erased, on raw bytes: relay, device, after kill -9, brokers; and each twin is found out."""

from __future__ import annotations

from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import pytest

from client.errors import Unknown
from client.store import Store
from relay.store.sqlite import SqliteStore
from sim.experiments.erased import brokers, experiment, homes, process, raw, waiting
from sim.experiments.erased.brokers import Kept
from sim.experiments.result import Result, Verdict

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("size", [raw.RUN_BYTES, raw.RUN_BYTES + 1, 100])
@pytest.mark.parametrize("at", range(9))
def test_a_run_of_the_stated_length_is_always_found(tmp_path: Path, size: int, at: int) -> None:
    run = process.BODY[at : at + size]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"\0" * 5 + run + b"\0" * 5)
    assert set(raw.left_in(tmp_path, [process.BODY])) == {"file"}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert raw.left_in(tmp_path, [process.BODY]) == {}


def test_the_relay_erases_within_fifty_commits(tmp_path: Path) -> None:
    assert 1 <= homes.commits_until_erased(tmp_path) <= 50


def test_a_relay_that_keeps_its_log_is_over_any_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "SqliteStore", homes.KeptLog)
    with pytest.raises(waiting.Lingers, match="still there after 200 commits"):
        homes.commits_until_erased(tmp_path)


def test_a_device_erases_within_64_steps(tmp_path: Path) -> None:
    assert 1 <= homes.device_steps_until_erased(tmp_path) <= experiment.DEVICE_STEPS


@pytest.mark.parametrize(("store", "files"), [(Store, set()), (homes.KeptLogOfDevice, {"device.sqlite-wal"})])
def test_an_idle_device_and_its_twin(tmp_path: Path, store: type[Store], files: set[str]) -> None:
    assert set(homes.left_by_idle_device(tmp_path, store)) == files


@pytest.mark.parametrize("what", ["relay", "device"])
@pytest.mark.parametrize("moment", process.MOMENTS[1:])
def test_what_a_kill_left_is_erased_when_the_store_is_open_again(tmp_path: Path, what: str, moment: str) -> None:
    killed, opened = homes.after_kill(what, moment, tmp_path)
    assert killed > 0
    assert opened == 0


@pytest.mark.parametrize("what", ["relay", "device"])
def test_what_was_not_erased_before_the_kill_is_found(tmp_path: Path, what: str) -> None:
    _, opened = homes.after_kill(what, process.MOMENTS[0], tmp_path)
    assert opened > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "file"),
    [(SqliteStore, None), (homes.NotSecure, "store.sqlite"), (homes.KeptLog, "store.sqlite-wal")],
)
def test_the_relay_at_work_and_its_twins(tmp_path: Path, store: type[SqliteStore], file: str | None) -> None:
    left = homes.erased_by(tmp_path, store)
    assert set(left) == set(homes.WAYS)
    for way in homes.WAYS:
        assert (file in left[way]) if file else not left[way]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("mosquitto", "mosquitto.db", marks=pytest.mark.mosquitto),
        pytest.param("nats-server", "1.blk", marks=pytest.mark.nats_server),
    ],
)
def test_a_broker_keeps_no_packet_and_what_it_must_remember_at_qos_1(tmp_path: Path, name: str, file: str) -> None:
    kept = brokers.kept_by(name, tmp_path)
    assert kept.packets > 10
    assert kept.left == {}
    assert set(kept.twin) == {file}


# ------------------------------------------------------------------------------------------------------- the verdict


def result_of(monkeypatch: pytest.MonkeyPatch, **found: Any) -> Result:
    """The experiment with its searches replaced by what they would have found."""
    honest: dict[str, Any] = {
        "erased_by": lambda _folder, store=SqliteStore: {
            way: {} if store is SqliteStore else {"store.sqlite": 3} for way in homes.WAYS
        },
        "commits_until_erased": lambda _folder: 50,
        "device_steps_until_erased": lambda _folder: 64,
        "left_by_idle_device": lambda _folder, store=Store: {} if store is Store else {"device.sqlite-wal": 2},
        "after_kill": lambda _what, moment, _folder: (9, 9 if moment == process.MOMENTS[0] else 0),
        "is_there": lambda name: name == "mosquitto",
        "kept_by": lambda _name, _folder: Kept(30, {}, {"mosquitto.db": 5}),
    }
    for name, by in (honest | found).items():
        monkeypatch.setattr(experiment, name, by)
    return experiment.run()


def test_it_holds_where_nothing_is_left_and_each_twin_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(monkeypatch)
    assert result.verdict is Verdict.HOLDS
    assert len(result.controls) == 6
    assert "nats-server: is not installed here" in result.limits


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"erased_by": lambda _folder, _store=None: {way: {"store.sqlite-wal": 2} for way in homes.WAYS}}, "2 windows"),
        ({"commits_until_erased": lambda _folder: 51}, "51 commits"),
        ({"device_steps_until_erased": lambda _folder: 65}, "65 steps"),
        ({"left_by_idle_device": lambda _folder, _store=None: {"device.sqlite-wal": 4}}, "idle device: 4 windows"),
        ({"after_kill": lambda _what, _moment, _folder: (9, 9)}, "once it is open again"),
        ({"after_kill": lambda _what, moment, _folder: (0, 9 * (moment == process.MOMENTS[0]))}, "shows nothing"),
        (
            {"kept_by": lambda _name, _folder: Kept(30, {"mosquitto.db": 1}, {"mosquitto.db": 5})},
            "1 windows of packets",
        ),
        ({"kept_by": lambda _name, _folder: Kept(0, {}, {"mosquitto.db": 5})}, "no packet was seen"),
    ],
)
def test_whatever_is_left_fails_it(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], words: str) -> None:
    result = result_of(monkeypatch, **found)
    assert result.verdict is Verdict.FAILS
    assert words in " ".join(result.evidence)


@pytest.mark.parametrize(
    "found",
    [
        {"erased_by": lambda _folder, _store=None: {way: {} for way in homes.WAYS}},
        {"left_by_idle_device": lambda _folder, _store=None: {}},
        {"kept_by": lambda _name, _folder: Kept(30, {}, {})},
        {"after_kill": lambda _what, _moment, _folder: (9, 0)},
    ],
)
def test_a_twin_that_is_not_found_out_makes_it_void(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    assert result_of(monkeypatch, **found).verdict is Verdict.VOID


def never(*_: object) -> Any:
    raise waiting.NeverCame("the erased row to be gone", 20)


@pytest.mark.parametrize(
    "search",
    ["erased_by", "commits_until_erased", "device_steps_until_erased", "left_by_idle_device", "after_kill", "kept_by"],
)
def test_what_is_waited_for_in_vain_makes_it_fail_and_is_named(monkeypatch: pytest.MonkeyPatch, search: str) -> None:
    def honest_twin(folder: Path, store: type[SqliteStore] = SqliteStore) -> Any:
        return {way: {"store.sqlite": 3} for way in homes.WAYS} if store is not SqliteStore else never()

    result = result_of(monkeypatch, **{search: honest_twin if search == "erased_by" else never})
    assert result.verdict is Verdict.FAILS
    assert any("waited 20 s in vain for the erased row to be gone" in line for line in result.evidence)


def test_a_device_that_gets_no_answer_and_a_process_that_does_not_end_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (Unknown("withdraw", "no link"), TimeoutExpired("mosquitto", 20)):

        def fail(_name: str, _folder: Path, error: Exception = error) -> Kept:
            raise error

        result = result_of(monkeypatch, kept_by=fail)
        assert result.verdict is Verdict.FAILS
        assert any(line.startswith("mosquitto: ") for line in result.evidence)


def test_a_twin_that_never_comes_to_its_end_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(folder: Path, store: type[SqliteStore] = SqliteStore) -> Any:
        return never() if store is homes.KeptLog else {way: {} for way in homes.WAYS}

    result = result_of(monkeypatch, erased_by=stuck)
    assert result.verdict is Verdict.VOID
    assert any("in vain" in control.how for control in result.controls)


async def test_what_never_becomes_true_is_given_up_with_its_name() -> None:
    with pytest.raises(waiting.NeverCame, match=r"waited 0 s in vain for the tide"):
        await waiting.until(lambda: False, "the tide", wait_s=0.01)
