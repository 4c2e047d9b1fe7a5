"""The gateway sees ciphertext: nothing that it is given, holds or sends has what was said, or a key that opens it.

Beside each search its twin: a device, or a gateway, that cheats in exactly that way, and is found.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client.content import Kind
from client.device import Device
from client.gateway import Door, Gateway
from client.gateway.messages import Confirmed, Offer, answer_offer
from client.gateway_link import GatewayLink, GatewayTransport
from client.link import WelcomeRefusedEvent
from keys.session import Session
from tests.client.gateway_world import a_gateway, behind
from tests.client.test_device import heard, say
from tests.client.world import World, run
from wire.card import RelayCard
from wire.codec import encode
from wire.commands import LinkedDevice
from wire.errors import FormatError, SignatureError
from wire.link import answer_hello, begin_hello
from wire.padding import pad
from wire.rotation import sign_rotation
from wire.signing import SigningKey

ANA, BO = "ana@acme.example", "bo@globex.example"
CANARY = b"the quiet fox waits by the western gate"


class Listening(GatewayTransport):
    """A gateway's doors, with all that is said through them."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.given: list[bytes] = []

    @asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> Any:
        door = Door(self.gateway)
        send, receive = door.send, door.receive

        async def heard_send(packet: bytes) -> None:
            self.given.append(packet)
            await send(packet)

        async def heard_receive() -> bytes:
            self.given.append(await receive())
            return self.given[-1]

        door.send, door.receive = heard_send, heard_receive  # type: ignore[method-assign]
        try:
            yield door
        finally:
            door.close()


def held(thing: Any, seen: set[int]) -> Iterator[bytes]:
    """Every byte string that an object of the gateway leads to, by whatever container."""
    if id(thing) in seen or isinstance(thing, type | asyncio.Task | World):
        return
    seen.add(id(thing))
    if isinstance(thing, bytes | bytearray):
        yield bytes(thing)
    elif isinstance(thing, str):
        yield thing.encode()
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from held(key, seen)
            yield from held(value, seen)
    elif isinstance(thing, msgspec.Struct):
        yield msgspec.msgpack.encode(thing)
    elif type(thing).__module__.startswith(("client", "wire")):
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*getattr(thing, "__dict__", {}), *slots]:
            yield from held(getattr(thing, name, None), seen)
    elif hasattr(thing, "__iter__") and not hasattr(thing, "read"):
        for one in list(thing):
            yield from held(one, seen)


def test_what_the_gateway_is_given_holds_and_sends_has_no_content(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        sent: list[bytes] = []

        def tap(tag: bytes, packet: bytes) -> bytes:
            sent.append(packet)
            return packet

        async with a_gateway(world) as gateway:
            transport = Listening(gateway)
            world.up_taps.append(tap)
            async with behind(world, gateway, ANA, transport=transport) as ana, world.new(BO) as bo:
                await ana.enrolled(60)
                await bo.enrolled(60)
                for number in range(3):
                    await say(ana, f"{CANARY.decode()} {number}", BO)
                    await say(bo, f"{CANARY.decode()} back {number}", ANA)
                    assert len(await heard(ana, 1)) == 1
                world.kill()
                for _ in range(3):
                    ana.post(ana.compose(Kind.CHAT, CANARY, [BO]), [BO])
                await asyncio.sleep(1)
                assert sum(len(seat.asked) for seat in gateway.lanes[0].link.seats) > 0, "something waits in its queues"
                in_it = list(held(gateway, set()))
        assert sum(map(len, in_it)) > 2_000
        assert sum(map(len, transport.given)) > 10_000
        assert not [one for one in [*in_it, *transport.given, *sent] if CANARY in one]

    run(scenario)


def test_attack_twin_a_device_that_hands_its_gateway_plaintext_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encrypt = Session.encrypt

    def cheating(self: Session, content: bytes, envelope_id: bytes) -> bytes:
        body = encrypt(self, content, envelope_id)
        padded = pad(content)
        return body if CANARY not in content else body[: len(body) - len(padded)] + padded

    async def scenario() -> None:
        world = World(tmp_path)
        found: list[bytes] = []
        async with a_gateway(world) as gateway:
            transport = Listening(gateway)
            async with behind(world, gateway, ANA, transport=transport) as ana, world.new(BO) as bo:
                await ana.enrolled(60)
                await bo.enrolled(60)
                monkeypatch.setattr(Session, "encrypt", cheating)
                world.kill()
                ana.post(ana.compose(Kind.CHAT, CANARY, [BO]), [BO])
                await asyncio.sleep(1)
                world.start()
                await ana.idle(600)
                world.kill()
                ana.post(ana.compose(Kind.CHAT, CANARY, [BO]), [BO])
                await asyncio.sleep(1)
                found.extend(held(gateway, set()))
        assert [one for one in found if CANARY in one], "in the gateway's queues"
        assert [one for one in transport.given if CANARY in one], "in what it was given"

    run(scenario)


def secrets_of(device: Device) -> dict[str, bytes]:
    """Keys that only a device may have: those of its identity, its prekeys and its ratchets."""
    state = device.state
    assert state.ring is not None
    named = [*state.keys.secrets(), *state.ring.secrets()]
    for session in state.sessions.all_sessions():
        named.extend(session.ratchet.secrets())
    return {f"{name} {number}": secret for number, (name, secret) in enumerate(named) if secret}


def test_no_key_of_a_device_comes_to_the_gateway_and_the_twin_that_gives_one_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway:
            transport = Listening(gateway)
            async with behind(world, gateway, ANA, transport=transport) as ana, world.new(BO) as bo:
                await bo.enrolled(60)
                await say(ana, "salam", BO)
                secrets = secrets_of(ana)
                assert len(secrets) >= 20

                def search() -> set[str]:
                    found = [*held(gateway, set()), *transport.given]
                    return {name for name, secret in secrets.items() for one in found if secret in one}

                assert search() == set()
                # The twin: a gateway that was handed the device's signing key.
                gateway.lanes[0].link.key = SigningKey(ana.state.keys.signing.seed)
                assert search() == {"device signing seed 0"}

    run(scenario)


def test_the_gateways_process_loads_nothing_of_keys() -> None:
    program = (
        "import sys, client.gateway, client.transport; "
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'keys' or name in "
        "{'client.device', 'client.sessions', 'client.store', 'client.gateway_link'}))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


class TestWhatADeviceSigns:
    """A gateway may show a device anything; a signature is given for a link with the card's relay only."""

    RELAY, OTHER, DEVICE = SigningKey(b"r" * 32), SigningKey(b"o" * 32), SigningKey(b"d" * 32)

    def offer(self, relay: SigningKey, relay_id: bytes, rotations: Any = ()) -> Offer:
        pending = begin_hello(relay_id, bytes)
        _link, welcome = answer_hello(relay_id, relay, rotations, pending.packet, lambda size: b"e" * size)
        return Offer(pending.hello, welcome)

    def link(self, rotations: Any = ()) -> GatewayLink:
        card = RelayCard(self.RELAY.public, "mqtt://127.0.0.1:1")
        return GatewayLink(card, self.DEVICE, bytes(16), bytes, rotations, 1_048_576)

    def test_attack_a_welcome_that_the_cards_relay_did_not_sign_gets_no_signature(self) -> None:
        card = self.link()._card
        with pytest.raises(SignatureError, match="link-relay"):
            answer_offer(self.DEVICE, card.relay_id, card.signing_key, self.offer(self.OTHER, card.relay_id))

    def test_attack_a_hello_to_another_relay_gets_no_signature(self) -> None:
        card = self.link()._card
        with pytest.raises(FormatError, match="hello: is to another relay"):
            answer_offer(self.DEVICE, card.relay_id, card.signing_key, self.offer(self.RELAY, bytes(16)))

    def test_attack_the_welcome_of_one_hello_with_another_hello_gets_no_signature(self) -> None:
        card = self.link()._card
        offer = self.offer(self.RELAY, card.relay_id)
        other = begin_hello(card.relay_id, lambda size: b"x" * size)
        with pytest.raises(SignatureError, match="link-relay"):
            answer_offer(self.DEVICE, card.relay_id, card.signing_key, Offer(other.hello, offer.welcome))

    def test_attack_a_key_from_before_a_rotation_gets_no_signature(self) -> None:
        link = self.link()
        rotation = sign_rotation(link._card.relay_id, self.RELAY, self.OTHER, 0, bytes(32), 1_448_928_000)
        proof, chain = answer_offer(
            self.DEVICE,
            link._card.relay_id,
            link._card.signing_key,
            self.offer(self.OTHER, link._card.relay_id, (rotation,)),
        )
        assert len(proof.signature) == 64
        seen = self.link(chain)
        (event,) = seen._offered(self.offer(self.RELAY, link._card.relay_id))
        assert isinstance(event, WelcomeRefusedEvent)
        assert "do not go on from those seen before" in str(event.error)
        assert seen.take_packets(0.0) == []

    def test_attack_a_link_that_the_device_has_not_signed_is_not_taken_for_its_own(self) -> None:
        link = self.link()
        device = LinkedDevice(self.DEVICE.public, True, 0, 0)
        assert link.receive(encode(Confirmed(bytes(32), 1, device)), 0.0) == []
        assert link.receive(b"junk", 0.0) == []
        assert not link.up
