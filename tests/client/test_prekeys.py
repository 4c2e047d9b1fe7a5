"""A one-time prekey is handed out once, whatever the relay forgets in a crash (protocol.md section 2.4)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from client.device import Device
from client.link import DirectoryEvent
from tests.client.test_attacks import cheat, leave
from tests.client.test_device import ANA, BO, heard, say
from tests.client.world import World, run
from wire.commands import Done, LookUp, RelayCommand


async def taken(device: Device, account: str, count: int) -> list[bytes]:
    """Ids of one-time prekeys that as many look-ups are handed out."""
    ids = []
    for _ in range(count):
        answer = await device.engine.ask("look up", lambda ref: LookUp(ref, account, want_bundles=True))
        assert isinstance(answer, DirectoryEvent)
        ids += [prekey.id for bundle in answer.bundles for prekey in bundle.one_time]
    return ids


def deafen(device: Device) -> Callable[[], None]:
    """The device hears no `done` until the returned function is called."""
    deaf = True

    def tamper(command: RelayCommand) -> RelayCommand | None:
        return None if deaf and isinstance(command, Done) else command

    cheat(device, tamper)

    def hear() -> None:
        nonlocal deaf
        deaf = False

    return hear


def test_added_prekeys_that_were_not_answered_are_not_offered_to_a_relay_that_forgot(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await world.new(ANA).__aenter__(), await world.new(BO).__aenter__()
        await ana.enrolled(60)
        await bo.enrolled(60)
        ids = await taken(bo, ANA, 50)
        hear = deafen(ana)
        world.restart()
        await ana.linked(60)
        await asyncio.sleep(60)
        # The relay has stored what ana added, and hands out some of it; then it crashes.
        ids += await taken(bo, ANA, 20)
        await say(bo, "on one of those", ANA)
        world.restart()
        hear()
        await asyncio.sleep(120)
        assert await heard(ana, 1) == ["on one of those"]
        ids += await taken(bo, ANA, 130)
        assert len(ids) > 64 + 40
        assert len(set(ids)) == len(ids)
        await leave(ana, bo)

    run(scenario)


def test_a_first_upload_that_was_not_answered_goes_again_with_fresh_one_time_prekeys(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await world.new(ANA).__aenter__(), await world.new(BO).__aenter__()
        hear = deafen(ana)
        await bo.enrolled(60)
        await asyncio.sleep(10)
        ids = await taken(bo, ANA, 5)
        assert len(ids) == 5
        await say(bo, "on one of those", ANA)
        world.restart()
        hear()
        await ana.enrolled(60)
        await asyncio.sleep(120)
        assert await heard(ana, 1) == ["on one of those"]
        ids += await taken(bo, ANA, 64)
        assert len(ids) >= 64
        assert len(set(ids)) == len(ids)
        await leave(ana, bo)

    run(scenario)
