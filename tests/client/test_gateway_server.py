"""The gateway's socket: whole devices through it, in the clear on one machine and over TLS, and who abuses it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.content import Kind
from client.device import Device
from client.errors import TransportClosed, Unknown
from client.gateway import Gateway, GatewayLimits
from client.gateway.address import GatewayAddress, GatewayCard
from client.gateway.framing import DEVICE_MESSAGE_BYTES_MAX, JOIN_BYTES_MAX, framed, read_framed
from client.gateway.messages import Ask, Challenge, Join, sign_join
from client.gateway.server import GatewayServer, ServerLimits
from client.gateway_socket import SocketTransport
from client.state import Settings
from keys.pki import Authority
from keys.vault import CHEAP_FOR_TESTS
from relay.transport.address import free_port
from tests.client.gateway_world import SEED
from tests.client.test_device import heard, say
from tests.client.world import PASSPHRASE, World
from wire.codec import decode, encode
from wire.commands import Delivered, Delivery, Subscribe
from wire.errors import FormatError
from wire.signing import SigningKey

ANA, BO = "ana@acme.example", "bo@globex.example"
QUICK = Settings(reconnect_first_s=0.05, reconnect_last_s=0.2)
WAIT_S = 20.0


@dataclass
class Place:
    """A relay, a gateway to it, and the gateway's socket, in real time."""

    world: World
    gateway: Gateway
    server: GatewayServer
    card: GatewayCard

    def device(self, account: str, card: GatewayCard | None = None) -> Device:
        arguments = self.world._arguments(QUICK) | {"transport": SocketTransport(card or self.card)}
        home = self.world.folder / account
        return Device.new(
            home, self.world.card, self.world.token(account), PASSPHRASE, cost=CHEAP_FOR_TESTS, **arguments
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.card.address.host, self.card.address.port)

    async def joined(self, key: SigningKey) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Somebody who has made a key, and joins with it."""
        reader, writer = await self.connect()
        challenge = decode(Challenge, await read_framed(reader, JOIN_BYTES_MAX), "challenge")
        writer.write(framed(encode(sign_join(key, self.world.card.relay_id, challenge.nonce, key.public[:16]))))
        await until(lambda: key.public in {member.device_key for member in self.gateway.members})
        return reader, writer


@asynccontextmanager
async def a_place(
    folder: Path, limits: ServerLimits | None = None, authority: Authority | None = None
) -> AsyncIterator[Place]:
    world = World(folder)
    address = GatewayAddress("localhost" if authority else "127.0.0.1", free_port("127.0.0.1"), authority is not None)
    tls, pem = None, ""
    if authority is not None:
        credentials = authority.issue_broker(["localhost"], int(time.time()))
        (folder / "gateway.pem").write_bytes(credentials.certificate)
        (folder / "gateway.key").write_bytes(credentials.key)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(folder / "gateway.pem", folder / "gateway.key")
        pem = authority.certificate.decode()
    gateway_limits = GatewayLimits(gather_s=0.02, change_pause_s=0.05)
    listen = GatewayAddress("127.0.0.1", address.port)
    async with (
        Gateway(world.card, SEED, world, random=world.entropy, limits=gateway_limits) as gateway,
        GatewayServer(gateway, listen, tls, limits) as server,
    ):
        yield Place(world, gateway, server, GatewayCard(world.card.relay_id, address, pem))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the gateway hangs up; what it says before is skipped."""
    async with asyncio.timeout(WAIT_S):
        try:
            while await reader.read(65_536):
                pass
        except OSError:
            pass
    return True


async def test_devices_of_other_processes_write_to_each_other_through_the_socket(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place, place.device(ANA) as ana, place.device(BO) as bo:
        await ana.enrolled(WAIT_S)
        await bo.enrolled(WAIT_S)
        large = bytes(300_000)
        ana.post(ana.compose(Kind.EMAIL, large, [BO]), [BO])
        await say(bo, "back", ANA)
        assert await heard(ana, 1) == ["back"]
        (message,) = await bo.receive(WAIT_S)
        assert message.payload == large
        assert place.server.counters.joined == 2
        assert len(place.gateway.lanes) == 1


async def test_a_device_comes_back_when_its_connection_is_cut(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place, place.device(ANA) as ana:
        await ana.enrolled(WAIT_S)
        for task in list(place.server._tasks):
            task.cancel()
        await say(ana, "to myself", ANA)
        await until(lambda: place.server.counters.joined == 2)


async def test_over_tls_the_gateways_certificate_is_checked_by_the_card(tmp_path: Path) -> None:
    authority = Authority.new("Acme gateways", int(time.time()))
    async with a_place(tmp_path, authority=authority) as place, place.device(ANA) as ana:
        await ana.enrolled(WAIT_S)
        other = Authority.new("Acme gateways", int(time.time())).certificate.decode()
        address = place.card.address
        by_number = GatewayAddress("127.0.0.1", address.port, tls=True)
        for card in (
            GatewayCard(place.card.relay_id, address, other),
            GatewayCard(place.card.relay_id, by_number, place.card.authority),
            GatewayCard(place.card.relay_id, address),
        ):
            with pytest.raises(TransportClosed, match="certificate verify failed"):
                async with SocketTransport(card).connect("", ""):
                    pass
        joined = place.server.counters.taken
        reader, writer = await place.connect()
        writer.write(framed(b"in the clear"))
        assert await ended(reader)
        writer.close()
        assert place.server.counters.taken == joined, "a connection in the clear never comes as far as a challenge"


async def test_attack_a_join_that_another_key_signed_ends_the_connection(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        reader, writer = await place.connect()
        challenge = decode(Challenge, await read_framed(reader, JOIN_BYTES_MAX), "challenge")
        mine, victim = SigningKey(b"m" * 32), SigningKey(b"v" * 32)
        forged = sign_join(mine, place.world.card.relay_id, challenge.nonce, bytes(16))
        writer.write(framed(encode(Join(victim.public, forged.mailbox, forged.signature))))
        assert await ended(reader)
        writer.close()
        assert place.gateway.members == ()
        assert place.server.counters.ended_unjoined == 1


@pytest.mark.parametrize(
    "said",
    [
        bytes(4),
        (JOIN_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff" + bytes(100),
        framed(b"no message"),
        framed(encode(Ask(encode([Subscribe(1, bytes(16), 0, 1)])))),
    ],
    ids=["empty", "too long", "endless", "garbage", "asks before it joins"],
)
async def test_attack_a_first_message_that_is_no_join_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    async with a_place(tmp_path) as place:
        reader, writer = await place.connect()
        writer.write(said)
        assert await ended(reader)
        writer.close()
        await until(lambda: place.server.counters.ended_unjoined == 1)
        assert place.gateway.members == ()


async def test_attack_a_message_above_a_frame_from_a_device_that_joined_ends_its_connection_only(
    tmp_path: Path,
) -> None:
    async with a_place(tmp_path) as place, place.device(ANA) as ana:
        await ana.enrolled(WAIT_S)
        reader, writer = await place.joined(SigningKey(b"e" * 32))
        writer.write((DEVICE_MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))
        assert await ended(reader)
        writer.close()
        await until(lambda: len(place.gateway.members) == 1)
        await say(ana, "still here", ANA)


async def test_attack_who_connects_and_says_nothing_is_hung_up_on_and_takes_a_bounded_number_of_places(
    tmp_path: Path,
) -> None:
    async with a_place(tmp_path, ServerLimits(waiting_max=2, join_s=0.4)) as place:
        silent = [await place.connect() for _ in range(2)]
        await until(lambda: place.server._waiting == 2)
        reader, writer = await place.connect()
        assert await ended(reader)
        assert place.server.counters.refused_full == 1
        for reader, _writer in silent:
            assert await ended(reader)
        assert place.server.counters.ended_unjoined == 2
        # There is room again.
        last_reader, last_writer = await place.joined(SigningKey(b"l" * 32))
        for _reader, one in [*silent, (reader, writer), (last_reader, last_writer)]:
            one.close()


async def test_attack_joins_that_the_relay_does_not_vouch_for_run_out_and_those_of_devices_do_not(
    tmp_path: Path,
) -> None:
    async with a_place(tmp_path, ServerLimits(joins_burst=3, joins_per_s=0.0)) as place, place.device(ANA) as ana:
        await ana.enrolled(WAIT_S)
        for times in range(2, 6):
            await until(lambda: not place.server._unvouched)
            for task in list(place.server._tasks):
                task.cancel()
            await until(lambda: place.server.counters.joined == times and ana.engine.link.up)  # noqa: B023
        await until(lambda: not place.server._unvouched)
        strangers = [await place.joined(SigningKey(bytes([number]) * 32)) for number in range(3)]
        refused, writer = await place.connect()
        assert await ended(refused)
        assert place.server.counters.refused_rate == 1
        for _reader, one in [*strangers, (refused, writer)]:
            one.close()


async def test_a_device_that_the_relay_does_not_know_keeps_no_place(tmp_path: Path) -> None:
    async with a_place(tmp_path, ServerLimits(enrol_s=0.3)) as place, place.device(ANA) as ana:
        await ana.enrolled(WAIT_S)
        arguments = place.world._arguments(QUICK) | {"transport": SocketTransport(place.card)}
        stranger = Device.request(tmp_path / "x", place.world.card, PASSPHRASE, cost=CHEAP_FOR_TESTS, **arguments)
        async with stranger:
            await until(lambda: place.server.counters.ended_unknown >= 1)
        await until(lambda: [one.device_key for one in place.gateway.members] == [ana.device_key])
        assert place.server.counters.ended_unknown >= 1


async def test_who_says_nothing_after_it_joined_is_hung_up_on_and_a_device_is_not(tmp_path: Path) -> None:
    settings = Settings(keepalive_s=0.1)
    async with a_place(tmp_path, ServerLimits(idle_s=0.8)) as place:
        arguments = place.world._arguments(settings) | {"transport": SocketTransport(place.card)}
        token = place.world.token(ANA)
        device = Device.new(tmp_path / "a", place.world.card, token, PASSPHRASE, cost=CHEAP_FOR_TESTS, **arguments)
        async with device as ana:
            await ana.enrolled(WAIT_S)
            reader, writer = await place.joined(SigningKey(b"i" * 32))
            assert await ended(reader)
            writer.close()
            await until(lambda: [one.device_key for one in place.gateway.members] == [ana.device_key])
            assert place.server.counters.joined == 2, "the device was never hung up on"


async def test_who_takes_nothing_is_hung_up_on(tmp_path: Path) -> None:
    async with a_place(tmp_path, ServerLimits(write_s=0.3)) as place:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain.connect(("127.0.0.1", place.card.address.port))
        plain.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=plain, limit=1_024)
        key = SigningKey(b"t" * 32)
        challenge = decode(Challenge, await read_framed(reader, JOIN_BYTES_MAX), "challenge")
        writer.write(framed(encode(sign_join(key, place.world.card.relay_id, challenge.nonce, bytes(16)))))
        await until(lambda: len(place.gateway.members) == 1)
        (lane,) = place.gateway.lanes
        delivery = Delivery(bytes(16), (Delivered(1, bytes(16), 1, bytes(190_000)),))
        async with asyncio.timeout(WAIT_S):
            while place.gateway.members:
                lane.link._traffic.hear([delivery], 0.0)
                lane._tell()
                await asyncio.sleep(0.005)
        writer.close()


async def test_a_gateway_that_ends_hangs_up_and_lets_go_of_its_address(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        reader, writer = await place.joined(SigningKey(b"g" * 32))
    assert await ended(reader)
    writer.close()
    with pytest.raises(TransportClosed):
        async with SocketTransport(place.card).connect("", ""):
            pass
    async with place.device(ANA) as ana:
        with pytest.raises(Unknown):
            await ana.enrolled(0.3)


async def test_attack_a_gateway_that_announces_endless_messages_gets_no_memory_of_the_device(tmp_path: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\xff\xff\xff")
        await reader.read()
        writer.transport.abort()
        hung_up.set()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        address = GatewayAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        async with SocketTransport(GatewayCard(bytes(16), address)).connect("", "") as channel:
            with pytest.raises(TransportClosed, match="would have 4294967295 bytes"):
                await channel.receive()
        await asyncio.wait_for(hung_up.wait(), WAIT_S)


async def test_framing_gives_back_what_was_framed_and_refuses_what_is_cut() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(framed(b"one") + framed(b"two")[:-1])
    reader.feed_eof()
    assert await read_framed(reader, 3) == b"one"
    with pytest.raises(EOFError):
        await read_framed(reader, 3)
    longer = asyncio.StreamReader()
    longer.feed_data(framed(b"four"))
    with pytest.raises(FormatError, match="would have 4 bytes"):
        await read_framed(longer, 3)
