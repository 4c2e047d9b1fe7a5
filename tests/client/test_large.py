"""Large messages: chunks, resumption, bounded memory, typed failure when they stay incomplete."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from client.attachments import plan_chunks
from client.content import Kind
from client.device import Device
from client.errors import StoreFailed
from client.state import Settings
from client.store import Kind as RowKind
from tests.client.test_device import ANA, BO, CY, leave, two_devices
from tests.client.world import Faults, World, run

MIB = 1024 * 1024


def mail_of(size: int, seed: int = 7) -> bytes:
    return b"Subject: large\r\n\r\n" + random.Random(seed).randbytes(size)


async def post(device: Device, payload: bytes, *to: str) -> bytes:
    mail = device.compose(Kind.EMAIL, payload, to)
    await device.send(mail, to, wait_s=3_600)
    return mail.message_id


def rows(device: Device, kind: RowKind) -> int:
    return device.state.store.count(kind)


@pytest.mark.parametrize("size", [65_000, 65_536, 200_000, 5 * MIB])
def test_a_large_mail_arrives_byte_for_byte_and_leaves_nothing_behind(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            payload = mail_of(size)
            await post(ana, payload, BO)
            (message,) = await bo.receive(3_600)
            assert message.payload == payload
            assert message.kind is Kind.EMAIL
            await asyncio.sleep(60)
            assert world.held() == 0
            for kind in (RowKind.PAYLOAD, RowKind.UPLOAD, RowKind.PREPARED, RowKind.OUTGOING):
                assert rows(ana, kind) == 0
            assert rows(bo, RowKind.PARTIAL) == rows(bo, RowKind.UNRESOLVED) == 0
            bo.erase([message])
            assert rows(bo, RowKind.PIECE) == 0

    run(scenario)


def test_only_a_few_chunks_are_under_way_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            most = 0

            def watch(_tag: bytes, packet: bytes) -> bytes:
                nonlocal most
                most = max(most, ana.engine.link.asked_bytes)
                return packet

            world.up_taps.append(watch)
            await post(ana, mail_of(25 * MIB - 100), BO)
            assert 0 < most < 2 * MIB
            (message,) = await bo.receive(3_600)
            assert len(message.payload) == 25 * MIB - 100 + len(mail_of(0))

    run(scenario)


def test_a_large_mail_waits_for_an_offline_recipient_and_is_resumed_after_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        payload = mail_of(3 * MIB)
        async with world.new(BO) as bo:
            await bo.enrolled(60)
        async with world.new(ANA) as ana:
            mail = ana.compose(Kind.EMAIL, payload, [BO])
            await ana.enrolled(60)
            ana.post(mail, [BO])
            while world.held() < 4:
                await asyncio.sleep(0.001)
        held = world.held()
        assert held < 16
        async with world.open(ANA) as ana:
            await ana.idle(3_600)
        assert world.held() == plan_chunks(len(payload)).chunk_count + 1
        bo = world.open(BO)
        await bo.__aenter__()
        while world.held() > 12:
            await asyncio.sleep(0.001)
        await bo.crash()
        async with world.open(BO) as bo:
            (message,) = await bo.receive(3_600)
            assert message.payload == payload

    run(scenario)


def test_a_network_that_loses_and_doubles_still_carries_a_large_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, seed=3)
        world.faults = Faults(0.1, 0.1, 0.2)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(600)
            payload = mail_of(2 * MIB)
            await post(ana, payload, BO)
            (message,) = await bo.receive(3_600)
            assert message.payload == payload

    run(scenario)


def test_chunks_beyond_the_bound_are_left_to_the_relay_and_fetched_when_the_manifest_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        small = replace(Settings(), unresolved_bytes_max=500_000)
        async with world.new(ANA) as ana, world.new(BO, settings=small) as bo:
            await bo.enrolled(60)
            payload = mail_of(2 * MIB)
            await post(ana, payload, BO)
            (message,) = await bo.receive(3_600)
            assert message.payload == payload

    run(scenario)


def test_both_own_devices_get_a_large_own_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
            payload = mail_of(MIB)
            mail = bo.compose(Kind.EMAIL, payload, [ANA])
            await bo.send(mail, [ANA], [CY][:0], wait_s=3_600)
            (message,) = await ana.receive(3_600)
            assert message.payload == payload
            (copy,) = await phone.receive(3_600)
            assert (copy.own_copy, copy.recipients, copy.payload) == (True, (ANA,), payload)
        await leave(bo, phone)

    run(scenario)


def test_a_message_whose_chunks_never_all_come_fails_typed_on_the_recipients_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
            mail = ana.compose(Kind.EMAIL, mail_of(MIB), [BO])
            await ana.send(mail, [BO], expiry_s=3_600, wait_s=600)
            lost = next(seq for seq, row in world.store.envelopes.items() if len(row.body) > 100_000)
            del world.store.envelopes[lost]
            world.restart()
            async with world.open(BO) as bo:
                await asyncio.sleep(3 * 3_600)
                assert await bo.receive(0) == []
                (notice,) = bo.notices()
                assert (notice.kind, notice.message_id, notice.accounts) == ("Incomplete", mail.message_id, (ANA,))
                assert "5 of 6 chunks" in notice.text
                assert rows(bo, RowKind.PIECE) == rows(bo, RowKind.PARTIAL) == 0

    run(scenario)


def test_a_disk_that_is_full_when_a_large_mail_is_posted_keeps_nothing_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        full = False

        def fault(boundary: str) -> None:
            if full and boundary == "before-commit":
                raise StoreFailed("device.sqlite: full")

        async with world.new(ANA, fault=fault) as ana:
            await ana.enrolled(60)
            mail = ana.compose(Kind.EMAIL, mail_of(MIB), [BO])
            full = True
            with pytest.raises(StoreFailed):
                await ana.send(mail, [BO], wait_s=60)
            full = False
            await asyncio.sleep(60)
            assert rows(ana, RowKind.PAYLOAD) == rows(ana, RowKind.OUTGOING) == 0
            assert ana.status(mail.message_id) is None

    run(scenario)
