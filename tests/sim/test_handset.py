"""Handsets of the historical mode speak the whole protocol; real devices refuse what they write."""

import asyncio
import os
from pathlib import Path

import pytest

from client.content import Kind
from client.errors import Refused, TransportClosed
from sim.handset import Handset
from sim.historical import read_message
from sim.pin_world import pin_world
from sim.world import ABSENT, LoopbackDevices, World, stored_envelopes
from wire.errors import RefusalCode
from wire.receipt import verify_receipt


async def test_two_handsets_talk_and_the_relay_erases_what_arrived(tmp_path: Path) -> None:
    async with World.start(tmp_path) as world:
        transport = LoopbackDevices(world.network)
        omar, nadia = (Handset(f"{name}@acme.example", world.home.card) for name in ("omar", "nadia"))
        async with omar.connected(transport), nadia.connected(transport):
            for handset in (omar, nadia):
                await handset.enrol(world.token(handset.account))
                await handset.subscribe()
            receipts = await omar.send((nadia.account,), Kind.CHAT, b"tea at five")
            await asyncio.wait_for(nadia.wait_received(1), 10)
            assert nadia.received[0].payload == b"tea at five"
            assert nadia.received[0].audience == (omar.account, nadia.account)
            verify_receipt(world.home.card.signing_key, receipts[0])
            for _ in range(100):
                if not stored_envelopes(world.home.store_path):
                    break
                await asyncio.sleep(0.02)
        with pytest.raises(TransportClosed, match="is off"):
            await omar.send((nadia.account,), Kind.CHAT, b"too late")
    assert not stored_envelopes(world.home.store_path)


async def test_a_token_works_once_and_an_unknown_recipient_is_refused(tmp_path: Path) -> None:
    async with World.start(tmp_path) as world:
        transport = LoopbackDevices(world.network)
        first, second = (Handset("omar@acme.example", world.home.card) for _ in range(2))
        token = world.token(first.account)
        async with first.connected(transport), second.connected(transport):
            await first.enrol(token)
            with pytest.raises(Refused) as caught:
                await second.enrol(token)
            assert caught.value.code in {RefusalCode.TOKEN_INVALID, RefusalCode.LIST_INVALID}
            with pytest.raises(Refused, match="unknown_account"):
                await first.send(("nobody@acme.example",), Kind.CHAT, b"x")
    assert "redacted" in repr(first)


async def test_a_real_device_shows_nothing_that_a_handset_wrote(tmp_path: Path) -> None:
    """client/ refuses the suite: such a body opens under no session, is not acknowledged, and is left to its expiry."""
    async with World.start(tmp_path) as world:
        omar = Handset("omar@acme.example", world.home.card)
        async with omar.connected(LoopbackDevices(world.network)):
            await omar.enrol(world.token(omar.account))
            await omar.send(("bilal@acme.example",), Kind.CHAT, b"read me")
            assert await world.devices["bilal@acme.example"].receive(0.5) == []
    (left,) = stored_envelopes(world.home.store_path)
    assert read_message(left.body).payload == b"read me"


async def test_everybodys_messages_wait_for_the_absent_one_under_one_key(tmp_path: Path) -> None:
    home, evidence = await pin_world(tmp_path / "world")
    read = [read_message(envelope.body) for envelope in stored_envelopes(home / "store.sqlite")]
    assert [message.payload.decode() for message in read] == [canary.text for canary in evidence.canaries]
    assert {message.audience[1] for message in read} == {ABSENT}
    assert len({message.audience[0] for message in read}) == 3


async def test_a_handset_draws_its_keys_from_the_entropy_that_it_is_given(tmp_path: Path) -> None:
    drawn: list[int] = []

    def entropy(size: int) -> bytes:
        drawn.append(size)
        return os.urandom(size)

    async with World.start(tmp_path) as world:
        Handset("omar@acme.example", world.home.card, entropy)
    assert drawn.count(32) >= 3
