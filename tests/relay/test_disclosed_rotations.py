"""A rotation that waits in the process is in the store before it is copied; a disk that takes nothing is tolerated.

The verifier accepts rotations that the manifest has and the store has not, under which nothing was committed, and says
so: a relay whose disk is full serves an order all the same. What it does not accept is shown beside.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from audit.verifier import run
from relay.disclosure import Discloser
from relay.home import Home
from relay.process import at_rest
from relay.service import RelayService
from relay.store.protocol import StoreError
from relay.store.sqlite import SqliteStore
from tests.relay.running import make_home

NOTE = "which no commit has brought into the store yet"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


async def rotated(service: RelayService, discloser: Discloser) -> None:
    async with service.held():
        discloser.rotate()


async def disclosed(discloser: Discloser, out: Path) -> int:
    """Take a disclosure; return how many rotations its store has."""
    out.mkdir()
    await discloser.seal(await discloser.begin(out, False, None))
    with sqlite3.connect(f"file:{out / 'store' / 'store.sqlite'}?immutable=1", uri=True) as store:
        return len(store.execute("SELECT seq FROM rotations").fetchall())


def told_of(out: Path, home: Home) -> tuple[str, str]:
    """What the verifier notes and finds about the directory."""
    report = run(out, card=(home.path / "relay-card.toml").read_bytes())
    (outcome,) = [outcome for outcome in report.outcomes if outcome.about.check_id == "store.directory"]
    return " ".join(outcome.not_checked), " ".join(map(str, outcome.findings))


async def test_a_rotation_that_waits_is_committed_before_the_store_is_copied(home: Home, tmp_path: Path) -> None:
    async with at_rest(home) as (service, discloser):
        await rotated(service, discloser)
        assert await disclosed(discloser, tmp_path / "out") == 1
    noted, found = told_of(tmp_path / "out", home)
    assert NOTE not in noted
    assert not found


async def test_so_is_one_that_a_killed_relay_had_only_in_its_keys(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RelayService, "_commit", _nothing)
        async with at_rest(home) as (service, discloser):
            await rotated(service, discloser)
    async with at_rest(Home.open(home.path)) as (_, discloser):
        assert await disclosed(discloser, tmp_path / "out") == 1


async def test_where_the_disk_takes_nothing_the_order_is_served_and_the_verifier_says_what_is_missing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("the disk is full")

    async with at_rest(home) as (service, discloser):
        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "begin", refuse)
            await rotated(service, discloser)
            assert await disclosed(discloser, tmp_path / "out") == 0
    noted, found = told_of(tmp_path / "out", home)
    assert NOTE in noted
    assert not found


async def test_attack_a_store_with_another_rotation_than_the_manifest_is_found(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    async with at_rest(home) as (service, discloser):
        await rotated(service, discloser)
        order = await discloser.begin(out, False, None)
        with sqlite3.connect(out / "store" / "store.sqlite") as store:
            store.execute("UPDATE rotations SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB)")
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
        for beside in ("store.sqlite-wal", "store.sqlite-shm"):
            (out / "store" / beside).unlink(missing_ok=True)
        await discloser.seal(order)
    assert "the store's are not those of the manifest" in told_of(out, home)[1]


async def _nothing(_: RelayService) -> None:
    """A process that is killed before its next commit."""
