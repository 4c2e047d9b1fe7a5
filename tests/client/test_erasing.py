"""A device that runs and does nothing: what it erased is out of its write-ahead log within a second."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from client.device import Device
from client.home import create_home
from client.store import Kind, Store
from keys.vault import CHEAP_FOR_TESTS
from tests.client.test_device import ANA, BO, say
from tests.client.world import World, run

LOG = "device.sqlite-wal"
ROW = b"a row that will be erased" * 40


def sealed_rows(home: Path, kind: Kind) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(home / "device.sqlite")) as connection:
        return [row for (row,) in connection.execute("SELECT sealed FROM rows WHERE kind = ?", (int(kind),))]


def files_with(home: Path, content: bytes) -> list[str]:
    """Files that hold the middle of a row: a row lies on one page where it is as short as these."""
    return [path.name for path in sorted(home.iterdir()) if content[100:164] in path.read_bytes()]


async def erased(world: World, bo: Device) -> bytes:
    """Bo keeps a chat and erases it; returns the sealed row as it lay in his home."""
    (message,) = await bo.receive(60)
    await bo.idle(60)
    (row,) = sealed_rows(world.folder / BO, Kind.KEPT)
    assert files_with(world.folder / BO, row), "the search finds what is there"
    bo.erase([message])
    assert sealed_rows(world.folder / BO, Kind.KEPT) == []
    return row


def test_an_idle_device_keeps_nothing_of_what_it_erased_a_second_ago(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await say(ana, "a chat" * 50, BO)
            row = await erased(world, bo)
            assert files_with(tmp_path / BO, row) == [LOG], "it takes a moment: this is what must go"
            await asyncio.sleep(1)
            assert files_with(tmp_path / BO, row) == []
            assert (tmp_path / BO / LOG).stat().st_size == 0

    run(scenario)


def test_what_was_erased_before_the_device_runs_is_gone_a_second_after_it_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await say(ana, "a chat" * 50, BO)
            await bo.receive(60)
        bo = world.open(BO)
        (row,) = sealed_rows(tmp_path / BO, Kind.KEPT)
        bo.erase(bo.kept())
        async with bo:
            await asyncio.sleep(1)
            assert files_with(tmp_path / BO, row) == []

    run(scenario)


def test_a_log_that_somebody_reads_is_emptied_when_they_have_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await say(ana, "a chat" * 50, BO)
            with contextlib.closing(sqlite3.connect(tmp_path / BO / "device.sqlite", isolation_level=None)) as reader:
                reader.execute("BEGIN")
                assert reader.execute("SELECT count(*) FROM rows").fetchone()[0]
                row = await erased(world, bo)
                await asyncio.sleep(5)
                assert files_with(tmp_path / BO, row), "the reader still needs it"
            await asyncio.sleep(1)
            assert files_with(tmp_path / BO, row) == []

    run(scenario)


def test_a_disk_that_fails_is_asked_again_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = True
    truncate = Store._truncate_log

    def failed(store: Store) -> None:
        if failing:
            raise sqlite3.OperationalError("disk I/O error")
        truncate(store)

    async def scenario() -> None:
        nonlocal failing
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            monkeypatch.setattr(Store, "_truncate_log", failed)
            await say(ana, "a chat" * 50, BO)
            row = await erased(world, bo)
            await asyncio.sleep(5)
            assert files_with(tmp_path / BO, row) == [LOG]
            failing = False
            await asyncio.sleep(1)
            assert files_with(tmp_path / BO, row) == []

    run(scenario)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_device_that_stopped_or_crashed_sets_no_timer_any_more(tmp_path: Path, crashes: bool) -> None:
    async def scenario() -> None:
        bo = World(tmp_path).new(BO)
        await bo.__aenter__()
        await bo.enrolled(60)
        store = bo.state.store
        assert store.on_commit is not None
        await (bo.crash() if crashes else bo.__aexit__(None, None, None))
        assert store.on_commit is None
        assert store.empty_log(), "it is let go of: there is nothing more to do"
        await asyncio.sleep(5)

    run(scenario)


def test_a_reader_does_not_fail_the_step_that_would_have_emptied_the_log(tmp_path: Path) -> None:
    store = create_home(tmp_path / "home", b"pass", os.urandom, CHEAP_FOR_TESTS)
    with store.step() as step:
        step.put(Kind.KEPT, b"name", ROW)
        step.put(Kind.KEPT, b"other", ROW)
    (row, _) = sealed_rows(tmp_path / "home", Kind.KEPT)
    rows = store.items(Kind.KEPT)
    next(rows)
    for number in range(100):
        with store.step() as step:
            step.put(Kind.PIN, b"a", bytes([number]))
    with store.step() as step:
        step.delete(Kind.KEPT, b"name")
        step.delete(Kind.KEPT, b"other")
    assert files_with(tmp_path / "home", row)
    rows.close()  # type: ignore[attr-defined]
    with store.step() as step:
        step.put(Kind.PIN, b"a", b"the first step without a reader")
    assert files_with(tmp_path / "home", row) == []
    store.close()
