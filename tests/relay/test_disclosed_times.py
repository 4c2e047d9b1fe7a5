"""A disclosure's date, the commits before it and those after it are in one order, whatever the clock does.

A receipt of a commit after the disclosure's head that is dated before the disclosure convicts a relay of having
truncated its history (protocol.md sections 5.2 and 11): an honest relay whose clock is put back must never sign one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

import relay.process
from relay.disclosure import Discloser
from relay.home import Home
from relay.process import at_rest
from relay.service import RelayService
from tests.relay.running import make_home

START_S = 1_448_878_800


class Clock:
    """The relay's clock, put forward and back by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_s = START_S
        monkeypatch.setattr(relay.process, "now_s", lambda: self.time_s)
        monkeypatch.setattr(relay.process, "now_ms", lambda: self.time_s * 1_000 + 999)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def date_of(discloser: Discloser, out: Path) -> int:
    out.mkdir()
    await discloser.seal(await discloser.begin(out, False, None))
    signed, _key, _signature = msgpack.unpackb((out / "manifest.msgpack").read_bytes())
    return int(msgpack.unpackb(signed)[2])


def earliest_commit_s(service: RelayService, now_s: int) -> int:
    """The second of the header that the core would sign now."""
    row, _tree = service.core._log.stage([bytes(32)], service.core._signing_key, now_s * 1_000)
    return int(msgpack.unpackb(row.header)[3]) // 1_000


async def test_a_commit_after_a_disclosure_is_not_dated_before_it(tmp_path: Path, clock: Clock) -> None:
    home = make_home(tmp_path / "home")
    async with at_rest(home) as (service, discloser):
        taken_at = await date_of(discloser, tmp_path / "first")
        assert taken_at == START_S
        clock.time_s -= 7_200
        assert earliest_commit_s(service, clock.time_s) >= taken_at
        assert await date_of(discloser, tmp_path / "second") >= taken_at


async def test_nor_is_one_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    home = make_home(tmp_path / "home")
    async with at_rest(home) as (_, discloser):
        taken_at = await date_of(discloser, tmp_path / "first")
    clock.time_s -= 7_200
    async with at_rest(Home.open(home.path)) as (service, discloser):
        assert earliest_commit_s(service, clock.time_s) >= taken_at
        assert await date_of(discloser, tmp_path / "second") >= taken_at


async def test_a_disclosure_is_not_dated_before_its_head(tmp_path: Path, clock: Clock) -> None:
    home = make_home(tmp_path / "home")
    async with at_rest(home) as (service, discloser):
        service.core.not_before((START_S + 9_000) * 1_000)
        await asyncio.sleep(0)
        assert await date_of(discloser, tmp_path / "out") == START_S + 9_000
        assert earliest_commit_s(service, START_S) == START_S + 9_000
