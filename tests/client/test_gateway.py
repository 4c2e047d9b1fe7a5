"""Whole devices behind a gateway: the same code, another way to the relay; loss, restarts, coming and going."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from client.content import Kind
from client.device import Device
from client.errors import TransportClosed, Unknown
from client.gateway import Gateway, link_key
from client.gateway_link import GatewayTransport
from client.message import Message
from keys.vault import CHEAP_FOR_TESTS
from tests.client.gateway_world import SEED, a_gateway, behind
from tests.client.test_device import heard, say
from tests.client.world import PASSPHRASE, Faults, World, run
from wire.identity import device_tag
from wire.signing import SigningKey

ANA, BO, DI = "ana@acme.example", "bo@acme.example", "di@acme.example"
CY = "cy@globex.example"


def test_devices_behind_a_gateway_write_to_each_other_and_to_one_outside_over_one_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
            world.new(CY) as cy,
        ):
            for device in (ana, bo, cy):
                await device.enrolled(60)
            assert world.core.counters.links == 2
            chat = ana.compose(Kind.CHAT, b"salam", [BO, CY])
            receipts = await ana.send(chat, [BO, CY], wait_s=60)
            assert {receipt.account for receipt in receipts} == {BO, CY}
            assert await heard(bo, 1) == ["salam"]
            assert await heard(cy, 1) == ["salam"]
            await say(cy, "and you", ANA)
            assert await heard(ana, 1) == ["and you"]
            await asyncio.sleep(60)
            status = ana.status(chat.message_id)
            assert status is not None
            assert set(status.delivered_to) == {BO, CY}
            # Receipts went to the sender, and to nobody else.
            assert not bo.receipts_of(chat.message_id)
            assert world.held() == 0
            assert world.core.counters.refusals == {}

    run(scenario)


def test_a_message_with_attachments_goes_behind_a_gateway_in_chunks_while_others_chat(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
            world.new(CY) as cy,
        ):
            for device in (ana, bo, cy):
                await device.enrolled(60)
            large = random.Random(3).randbytes(3_000_000)
            mail = ana.compose(Kind.EMAIL, large, [CY])
            sending = asyncio.create_task(ana.send(mail, [CY], wait_s=3_600))
            await say(bo, "meanwhile", CY)
            await sending
            messages: list[Message] = []
            while len(messages) < 2:
                messages.extend(await cy.receive(600))
            assert {message.payload for message in messages} == {large, b"meanwhile"}

    run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_loss_doubles_and_delays_between_gateway_and_relay_lose_and_double_no_mail(tmp_path: Path, seed: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path, seed)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
            world.new(CY) as cy,
        ):
            world.faults = Faults(drop=0.15, duplicate=0.2, delay=0.2)
            for device in (ana, bo, cy):
                await device.enrolled(3_600)
            for number in range(8):
                ana.post(ana.compose(Kind.CHAT, f"ana {number}".encode(), [CY, BO]), [CY, BO])
                bo.post(bo.compose(Kind.CHAT, f"bo {number}".encode(), [CY]), [CY])
                cy.post(cy.compose(Kind.CHAT, f"cy {number}".encode(), [ANA]), [ANA])
                await asyncio.sleep(0.5)
            assert sorted(await heard(cy, 16, 3_600)) == sorted(f"{who} {n}" for who in ("ana", "bo") for n in range(8))
            assert sorted(await heard(bo, 8, 3_600)) == [f"ana {n}" for n in range(8)]
            assert sorted(await heard(ana, 8, 3_600)) == [f"cy {n}" for n in range(8)]
            await asyncio.sleep(900)
            for device in (ana, bo, cy):
                assert await device.receive(0) == []
                assert device.notices() == []
            assert world.held() == 0

    run(scenario)


def test_the_relay_restarts_and_the_gateway_is_linked_again_with_fresh_signatures(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
        ):
            await ana.enrolled(60)
            await bo.enrolled(60)
            for number in range(4):
                ana.post(ana.compose(Kind.CHAT, str(number).encode(), [BO]), [BO])
                await asyncio.sleep(0.01)
                world.kill()
                await asyncio.sleep(30)
                world.start()
            assert sorted(await heard(bo, 4)) == ["0", "1", "2", "3"]
            await ana.idle(600)
            assert gateway.members[0].on_link
            assert gateway.members[1].on_link

    run(scenario)


def test_the_brokers_connection_is_cut_again_and_again_and_what_was_under_way_goes_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
        ):
            (tag,) = await cut_soon(world)
            await ana.enrolled(60)
            await bo.enrolled(60)
            made = world.core.counters.links_made
            for number in range(10):
                ana.post(ana.compose(Kind.CHAT, str(number).encode(), [BO]), [BO])
                await asyncio.sleep(0.001 * number)
                world.ports.pop(tag).queue.put_nowait(None)
                await asyncio.sleep(1)
            assert sorted(await heard(bo, 10)) == [str(number) for number in range(10)]
            await ana.idle(60)
            # The link outlives its connections.
            assert world.core.counters.links_made == made
            assert str(gateway.lanes[0].last_error) == "cut"

    async def cut_soon(world: World) -> set[bytes]:
        """Cut while the first hello is on its way."""
        await asyncio.sleep(0.2501)
        tags = set(world.ports)
        for tag in tags:
            world.ports.pop(tag).queue.put_nowait(None)
        return tags

    run(scenario)


def test_the_relays_key_rotates_and_devices_behind_a_gateway_check_it_themselves(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
        ):
            await ana.enrolled(60)
            await bo.enrolled(60)
            await say(ana, "before", BO)
            world.seed = b"n" * 32
            world.core.rotate(world.seed, world.now_ms())
            world.work_soon()
            await say(ana, "after", BO)
            assert await heard(bo, 2) == ["before", "after"]
            assert [record.new_key for record in ana.state.rotations] == [SigningKey(world.seed).public]
            # Whoever has the old key, from a memory image say, gets no device's signature any more.
            world.kill()
            world.seed = SigningKey(b"r" * 32).seed
            before = ana.engine.link
            world.store.rotations.clear()
            world.start()
            await asyncio.sleep(120)
            assert ana.engine.link is before
            assert world.core.counters.links == 0

    run(scenario)


def test_devices_join_later_and_nobody_loses_mail_while_the_link_is_made_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with (
            a_gateway(world) as gateway,
            behind(world, gateway, ANA) as ana,
            behind(world, gateway, BO) as bo,
            AsyncExitStack() as stack,
        ):
            await ana.enrolled(60)
            await bo.enrolled(60)
            made = world.core.counters.links_made
            later = None
            for number in range(60):
                ana.post(ana.compose(Kind.CHAT, str(number).encode(), [BO]), [BO])
                if number == 20:
                    later = await stack.enter_async_context(behind(world, gateway, DI))
                await asyncio.sleep(0.1)
            assert later is not None
            await later.enrolled(60)
            await say(later, "60", BO)
            assert sorted(await heard(bo, 61), key=int) == [str(number) for number in range(61)]
            # One more handshake for all three, and only one link stands.
            assert world.core.counters.links_made == made + 1
            assert world.core.counters.links == 1
            assert gateway.lanes[0].link.seats[0].unheard == 0

    run(scenario)


def test_a_device_leaves_its_gateway_for_a_link_of_its_own_and_takes_its_mail_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway, behind(world, gateway, ANA) as ana:
            async with behind(world, gateway, BO) as bo:
                await ana.enrolled(60)
                await bo.enrolled(60)
                await say(ana, "behind", BO)
                assert await heard(bo, 1) == ["behind"]
                await bo.idle(60)
            await asyncio.sleep(30)
            assert [member.device_key for member in gateway.members] == [ana.device_key]
            await say(ana, "away", BO)
            async with world.open(BO) as bo:
                assert await heard(bo, 1) == ["away"]
                await say(bo, "from outside", ANA)
                assert await heard(ana, 1) == ["from outside"]

    run(scenario)


def test_the_gateway_is_killed_and_another_one_with_the_same_seed_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(a_gateway(world))
            transport = GatewayTransport(first)
            ana = await stack.enter_async_context(behind(world, first, ANA, transport=transport))
            bo = await stack.enter_async_context(behind(world, first, BO, transport=transport))
            await ana.enrolled(60)
            await bo.enrolled(60)
            topics = set(world.ports)
            await first.__aexit__(None, None, None)
            ana.post(ana.compose(Kind.CHAT, b"while it was away", [BO]), [BO])
            with pytest.raises(Unknown):
                await ana.idle(60)
            transport.gateway = await stack.enter_async_context(a_gateway(world))
            assert await heard(bo, 1) == ["while it was away"]
            await ana.idle(60)
            assert set(world.ports) == topics == {device_tag(link_key(SEED, 0).public)}

    run(scenario)


def test_a_further_device_is_approved_behind_the_gateway(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway, behind(world, gateway, ANA) as ana, world.new(CY) as cy:
            await ana.enrolled(60)
            await cy.enrolled(60)
            arguments = world._arguments(None) | {"transport": GatewayTransport(gateway)}
            second = Device.request(tmp_path / "second", world.card, PASSPHRASE, cost=CHEAP_FOR_TESTS, **arguments)
            async with second:
                second.accept(await ana.approve(second.request_text(), 60))
                await second.enrolled(120)
                await say(cy, "to both", ANA)
                assert await heard(ana, 1) == ["to both"]
                assert await heard(second, 1) == ["to both"]

    run(scenario)


def test_a_gateway_that_does_not_run_lets_nobody_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        gateway = Gateway(world.card, SEED, world, random=world.entropy)
        with pytest.raises(TransportClosed, match="does not run"):
            gateway.join(bytes(32), bytes(16))
        async with behind(world, gateway, ANA) as ana:
            with pytest.raises(Unknown, match="does not run"):
                await ana.enrolled(5)

    run(scenario)


def test_a_link_that_ends_by_a_fault_is_told_and_ends_the_gateway_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        with pytest.raises(ZeroDivisionError):
            async with a_gateway(world) as gateway, behind(world, gateway, ANA) as ana:
                await ana.enrolled(60)
                assert not gateway.failed.is_set()
                monkeypatch.setattr(gateway.lanes[0].link, "take_packets", lambda now_s: 1 // 0)
                gateway.lanes[0].wake()
                await asyncio.wait_for(gateway.failed.wait(), 60)

    run(scenario)
