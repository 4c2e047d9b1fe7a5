"""Killed at any transaction boundary, a device loses nothing, shows nothing twice, and uses no key twice."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.content import Kind
from client.device import Device
from client.errors import HomeInUse, HomeInvalid, StoreFailed, WrongPassphrase
from keys.errors import VaultDamaged
from tests.client.test_device import ANA, BO
from tests.client.test_large import mail_of
from tests.client.world import World, run
from wire.commands import Submit, decode_device_commands


class Killed(BaseException):
    """The process is gone; nothing in the device may catch this."""


class Crashing:
    """A device that is killed at the n-th transaction boundary, opened again, and so on.

    Args:
        world: its world.
        account: whose it is; its home exists already.
    """

    def __init__(self, world: World, account: str) -> None:
        self._world = world
        self._account = account
        self.boundaries = 0
        self.kill_at = 0

    def fault(self, _boundary: str) -> None:
        self.boundaries += 1
        if self.boundaries == self.kill_at:
            raise Killed

    async def live(self, until: Callable[[Device], Any]) -> bool:
        """One life; True if `until` came to its end, False if the device was killed before."""
        device = None
        try:
            device = self._world.open(self._account, fault=self.fault)
            await device.__aenter__()
            task = device._running.task
            assert task is not None
            await until(device)
            await device.__aexit__(None, None, None)
        except Killed:
            pass
        else:
            return True
        if device is not None:
            await device.crash()
        return False


def bodies_of(world: World) -> dict[bytes, set[bytes]]:
    """Every commitment that was sent, and the bodies under it: one key must never seal two."""
    seen: dict[bytes, set[bytes]] = {}

    def look(commands: tuple[Any, ...]) -> None:
        for command in commands:
            if isinstance(command, Submit):
                for envelope in command.envelopes:
                    seen.setdefault(envelope.body[16:48], set()).add(envelope.body)

    receive = world.core._links.receive

    def tapped(tag: bytes, packet: bytes, now_ms: int) -> Any:
        frame = receive(tag, packet, now_ms)
        if frame is not None:
            look(decode_device_commands(frame[1]))
        return frame

    world.core._links.receive = tapped  # type: ignore[method-assign]
    return seen


async def sleep_or_die(device: Device, seconds: float) -> None:
    """Wait, and pass on a kill that happened in the device's loop."""
    task = device._running.task
    assert task is not None
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        task.result()


# Every transaction boundary that this life has; the last assertion of the life fails if there are fewer.
@pytest.mark.parametrize("kill_at", range(1, 23))
def test_a_sender_killed_at_any_boundary_sends_everything_once(tmp_path: Path, kill_at: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        seen = bodies_of(world)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await ana.enrolled(60)
            await bo.enrolled(60)
            chat = bo.compose(Kind.CHAT, b"hello", [ANA])
            await bo.send(chat, [ANA], wait_s=60)
            await ana.receive(60)
            await ana.idle(60)
        wanted = {"small": b"one", "again": b"two", "large": mail_of(300_000)}
        posted: set[str] = set()
        crashing = Crashing(world, ANA)
        crashing.kill_at = kill_at

        async def life(device: Device) -> None:
            for name, payload in wanted.items():
                if name not in posted and device.status(name.encode().ljust(16)) is None:
                    mail = device.compose(Kind.EMAIL, payload, [BO], message_id=name.encode().ljust(16))
                    device.post(mail, [BO])
                posted.add(name)
            while device.engine.outbox.outgoing:
                await sleep_or_die(device, 1)

        lives = 0
        while not await crashing.live(life):
            posted.clear()
            lives += 1
            assert lives < 5
        assert lives == 1, f"only {crashing.boundaries} boundaries"
        async with world.open(BO) as bo:
            await bo.caught_up(20, wait_s=600)
            messages = [message for message in bo.kept() if message.account == ANA]
            assert sorted(message.payload for message in messages) == sorted(wanted.values())
            assert [notice.text for notice in bo.notices()] == []
        assert all(len(bodies) == 1 for bodies in seen.values())

    run(scenario)


@pytest.mark.parametrize("kill_at", range(1, 15))
def test_a_recipient_killed_at_any_boundary_keeps_everything_once(tmp_path: Path, kill_at: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        seen = bodies_of(world)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
            wanted = [b"one", b"two", mail_of(150_000), b"three"]
            for payload in wanted:
                await ana.send(ana.compose(Kind.EMAIL if len(payload) > 9 else Kind.CHAT, payload, [BO]), [BO])
            crashing = Crashing(world, BO)
            crashing.kill_at = kill_at

            async def life(device: Device) -> None:
                for _ in range(40):
                    await sleep_or_die(device, 1)

            lives = 0
            while not await crashing.live(life):
                lives += 1
                assert lives < 5
            assert lives == 1, f"only {crashing.boundaries} boundaries"
            async with world.open(BO) as bo:
                await bo.caught_up(20, wait_s=600)
                await bo.idle(600)
                assert sorted(message.payload for message in bo.kept()) == sorted(wanted)
                assert [notice.text for notice in bo.notices()] == []
                await sleep_or_die(bo, 30)
            assert world.held() == 0
        assert all(len(bodies) == 1 for bodies in seen.values())

    run(scenario)


def test_a_commit_that_fails_changes_nothing_and_the_device_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        failures = 0

        def fault(boundary: str) -> None:
            nonlocal failures
            if boundary == "before-commit" and failures:
                failures -= 1
                raise StoreFailed("device.sqlite: database or disk is full")

        async with world.new(ANA) as ana, world.new(BO, fault=fault) as bo:
            await bo.enrolled(60)
            await ana.enrolled(60)
            failures = 3
            await ana.send(ana.compose(Kind.CHAT, b"through", [BO]), [BO], wait_s=600)
            (message,) = await bo.receive(600)
            assert message.payload == b"through"
            assert failures == 0
            await bo.send(bo.compose(Kind.CHAT, b"back", [ANA]), [ANA], wait_s=600)
            (message,) = await ana.receive(600)
            assert message.payload == b"back"

    run(scenario)


def restore(home: Path, saved: dict[str, bytes]) -> None:
    for path in home.iterdir():
        if path.name != "lock":
            path.unlink()
    for name, data in saved.items():
        (home / name).write_bytes(data)


def test_a_restored_home_starts_new_sessions_and_uses_no_key_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        seen = bodies_of(world)
        async with world.new(BO) as bo:
            async with world.new(ANA) as ana:
                await bo.enrolled(60)
                await ana.send(ana.compose(Kind.CHAT, b"1", [BO]), [BO], wait_s=60)
                await bo.send(bo.compose(Kind.CHAT, b"2", [ANA]), [ANA], wait_s=60)
                assert await ana.receive(60)
                await ana.idle(60)
            home = tmp_path / ANA
            saved = {path.name: path.read_bytes() for path in home.iterdir() if path.name != "lock"}
            async with world.open(ANA) as ana:
                await ana.send(ana.compose(Kind.CHAT, b"3", [BO]), [BO], wait_s=60)
                await ana.idle(60)
            restore(home, saved)
            async with world.open(ANA) as ana:
                assert ana.state.store.rolled_back
                await ana.send(ana.compose(Kind.CHAT, b"4", [BO]), [BO], wait_s=60)
                await bo.caught_up(20, wait_s=600)
                assert [message.payload for message in bo.kept()] == [b"1", b"3", b"4"]
                await bo.send(bo.compose(Kind.CHAT, b"5", [ANA]), [ANA], wait_s=60)
                messages = await ana.receive(60)
                assert messages[-1].payload == b"5"
        assert all(len(bodies) == 1 for bodies in seen.values())

    run(scenario)


def test_a_copied_home_is_noticed_and_a_moved_one_is_not_taken_for_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
        (tmp_path / ANA).rename(tmp_path / "moved")
        async with world.open("moved") as ana:
            assert not ana.state.store.rolled_back
        (tmp_path / "copy").mkdir()
        for path in (tmp_path / "moved").iterdir():
            (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
        async with world.open("copy") as ana:
            assert ana.state.store.rolled_back

    run(scenario)


def test_a_home_is_held_by_one_process_opens_with_its_passphrase_only_and_shows_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await ana.enrolled(60)
            await ana.send(ana.compose(Kind.CHAT, b"the very secret text", [BO]), [BO], wait_s=60)
            await bo.receive(60)
            with pytest.raises(HomeInUse, match="another process"):
                world.open(ANA)
        with pytest.raises(WrongPassphrase):
            Device.open(tmp_path / ANA, b"wrong", transport=world)
        with pytest.raises(HomeInvalid, match="no home"):
            Device.open(tmp_path / "nothing", b"wrong", transport=world)
        with pytest.raises(HomeInvalid, match="already"):
            world.new(ANA)
        for account in (ANA, BO):
            for path in (tmp_path / account).iterdir():
                assert path.stat().st_mode & 0o77 == 0
                data = path.read_bytes()
                for needle in (b"the very secret text", ANA.encode(), BO.encode(), b"relay_id"):
                    assert needle not in data

    run(scenario)


def test_a_damaged_row_is_a_typed_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
        connection = sqlite3.connect(tmp_path / ANA / "device.sqlite")
        connection.execute("UPDATE rows SET sealed = zeroblob(length(sealed)) WHERE kind = 3")
        connection.commit()
        connection.close()
        with pytest.raises(VaultDamaged):
            world.open(ANA)

    run(scenario)
