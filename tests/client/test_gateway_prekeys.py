"""Behind a gateway, too, a one-time prekey is handed out once, whatever the relay forgets (protocol.md section 2.4)."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from client.gateway import Gateway
from client.gateway.traffic import Traffic
from tests.client.gateway_world import a_gateway, behind
from tests.client.test_device import heard, say
from tests.client.test_prekeys import taken
from tests.client.world import World, run
from wire.commands import AddPrekeys, Done, PublishPrekeys, RelayCommand

ANA, BO = "ana@acme.example", "bo@globex.example"


def deafen(gateway: Gateway) -> Callable[[], None]:
    """The gateway hears no `done` until the returned function is called."""
    deaf = True
    traffic: Traffic = gateway.lanes[0].link._traffic
    hear = traffic.hear

    def hear_less(commands: Sequence[RelayCommand], now_s: float) -> None:
        hear([command for command in commands if not (deaf and isinstance(command, Done))], now_s)

    traffic.hear = hear_less  # type: ignore[method-assign]

    def end() -> None:
        nonlocal deaf
        deaf = False

    return end


async def ids_handed_out(world: World) -> list[bytes]:
    """What look-ups get of a device whose added prekeys the relay stored, handed out, and forgot in a crash."""
    async with a_gateway(world) as gateway, behind(world, gateway, ANA) as ana, world.new(BO) as bo:
        await ana.enrolled(60)
        await bo.enrolled(60)
        ids = await taken(bo, ANA, 50)
        hear = deafen(gateway)
        world.restart()
        await bo.linked(60)
        await asyncio.sleep(60)
        assert [asked.kind for asked in gateway.members[0].seat.asked.values() if asked.kind is AddPrekeys]
        ids += await taken(bo, ANA, 20)
        await say(bo, "on one of those", ANA)
        world.restart()
        hear()
        await asyncio.sleep(120)
        assert await heard(ana, 1) == ["on one of those"]
        return ids + await taken(bo, ANA, 130)


def test_added_prekeys_that_were_not_answered_do_not_go_again_on_the_next_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        ids = await ids_handed_out(World(tmp_path))
        assert len(ids) > 64 + 40
        assert len(set(ids)) == len(ids)

    run(scenario)


def test_attack_twin_a_gateway_that_repeats_them_has_a_used_one_handed_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.gateway.traffic.offers_prekeys", lambda asked: False)

    async def scenario() -> None:
        ids = await ids_handed_out(World(tmp_path))
        assert len(set(ids)) < len(ids)

    run(scenario)


@pytest.mark.parametrize("kind", [PublishPrekeys, AddPrekeys])
def test_a_repetition_of_the_device_does_not_bring_a_dropped_upload_back(tmp_path: Path, kind: type) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway, behind(world, gateway, ANA) as ana:
            await ana.enrolled(60)
            hear = deafen(gateway)
            ring = ana.state.ring
            assert ring is not None
            offered = ring.replenish(0)
            member = gateway.members[0]
            command = AddPrekeys(7, offered) if kind is AddPrekeys else PublishPrekeys(7, ring.publish_again())
            member.ask(command)
            await asyncio.sleep(5)
            assert 7 in member.seat.asked
            world.restart()
            ana.engine.wake()
            await asyncio.sleep(60)
            hear()
            assert 7 not in member.seat.asked
            member.ask(command)
            assert 7 not in member.seat.asked, "taken again before the device knows of the new link"
            member.settle(7)
            member.ask(command)
            assert 7 in member.seat.asked, "a ref that was settled is free"

    run(scenario)
