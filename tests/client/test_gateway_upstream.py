"""A gateway's way to its broker: real Mosquitto and NATS servers, and servers that are not what they should be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client.content import Kind
from client.device import Device
from client.errors import TransportClosed
from client.gateway import Gateway
from client.gateway.upstream import Upstream
from client.gateway_link import GatewayTransport
from client.state import Settings
from client.transport import topics_of
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from relay.transport.address import free_port
from tests.relay.running import ADMIN, TENANT, WAIT_S, RelayProcess, make_home, mosquitto, nats_server
from wire.limits import FRAME_BYTES_MAX

PASSPHRASE = b"correct horse"
QUICK = Settings(reconnect_first_s=0.05, reconnect_last_s=0.5)
UP, DOWN = topics_of(bytes(16), bytes(range(16)))
BROKERS = [
    pytest.param("mosquitto", marks=pytest.mark.mosquitto),
    pytest.param("nats", marks=pytest.mark.nats_server),
    pytest.param("nats-mqtt", marks=pytest.mark.nats_server),
]


@pytest.mark.parametrize("kind", BROKERS)
async def test_devices_behind_a_gateway_write_to_each_other_through_a_real_broker(tmp_path: Path, kind: str) -> None:
    with ExitStack() as stack:
        if kind == "mosquitto":
            url = device_url = stack.enter_context(mosquitto(tmp_path)).url
            home = make_home(tmp_path / "relay", url)
        else:
            native, listener = stack.enter_context(nats_server(tmp_path))
            home = make_home(tmp_path / "relay", native.url, listener.url)
            url, device_url = native.url if kind == "nats" else listener.url, listener.url
        assert home.card.broker == device_url
        relay = stack.enter_context(RelayProcess(home))
        async with Gateway(home.card, b"s" * 32, Upstream(url)) as gateway, AsyncExitStack() as devices:
            ana, bo = [
                await devices.enter_async_context(
                    Device.new(
                        tmp_path / name,
                        home.card,
                        TenantAdminKey(ADMIN).activate(f"{name}@{TENANT}", 4_102_444_800),
                        PASSPHRASE,
                        settings=QUICK,
                        cost=CHEAP_FOR_TESTS,
                        transport=GatewayTransport(gateway),
                    )
                )
                for name in ("ana", "bo")
            ]
            await ana.enrolled(WAIT_S)
            await bo.enrolled(WAIT_S)
            to = [f"bo@{TENANT}"]
            large = bytes(600_000)
            await ana.send(ana.compose(Kind.EMAIL, large, to), to, wait_s=WAIT_S)
            assert [message.payload for message in await bo.receive(WAIT_S)] == [large]
            relay.kill()
            ana.post(ana.compose(Kind.CHAT, b"after the crash", to), to)
            relay.start()
            assert [message.payload for message in await bo.receive(WAIT_S)] == [b"after the crash"]
            assert len(gateway.lanes) == 1
        assert relay.stop()[0] == 0


@pytest.mark.nats_server
async def test_a_link_hears_what_is_for_it_and_of_its_size_only(tmp_path: Path) -> None:
    with nats_server(tmp_path) as (native, _listener):
        upstream = Upstream(native.url)
        other_up, other_down = topics_of(bytes(16), b"o" * 16)
        # Who subscribes to `down` of one and writes to it as `up` stands for the relay here.
        async with upstream.connect(UP, DOWN) as link, upstream.connect(DOWN, UP) as relay_side:
            async with upstream.connect(other_down, other_up) as other:
                await other.send(b"for another")
            await relay_side.send(bytes(FRAME_BYTES_MAX + 1))
            await relay_side.send(b"for the link")
            assert await asyncio.wait_for(link.receive(), WAIT_S) == b"for the link"
            await link.send(b"for the relay")
            assert await asyncio.wait_for(relay_side.receive(), WAIT_S) == b"for the relay"
            # More than waits for its reader at a time: in order, and none lost.
            for number in range(300):
                await relay_side.send(b"%d" % number)
            heard = [await asyncio.wait_for(link.receive(), WAIT_S) for _ in range(300)]
            assert heard == [b"%d" % number for number in range(300)]


@pytest.mark.nats_server
async def test_a_server_that_goes_away_is_told_of_and_found_again(tmp_path: Path) -> None:
    with nats_server(tmp_path) as (native, _listener):
        connection = Upstream(native.url).connect(UP, DOWN)
        link = await connection.__aenter__()
    with pytest.raises(TransportClosed, match="ended"):
        await asyncio.wait_for(link.receive(), WAIT_S)
    with pytest.raises(TransportClosed, match="took no packet"):
        await link.send(b"lost")
    await connection.__aexit__(None, None, None)
    with pytest.raises(TransportClosed):
        async with Upstream(native.url).connect(UP, DOWN):
            pass


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def a_server(serve: Handler) -> AsyncIterator[int]:
    """Something that listens where a NATS server should be."""
    port = free_port("127.0.0.1")
    over: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.add(writer)
        try:
            await serve(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            over.discard(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    async with server:
        yield port
        async with asyncio.timeout(WAIT_S):
            while over:
                await asyncio.sleep(0.01)
    await asyncio.sleep(0)


def speaking(info: dict[str, Any], after: bytes = b"") -> Handler:
    """A server with that INFO, which answers each PING, and says more when it is subscribed to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps({"server_id": "x", "proto": 1} | info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB"):
                writer.write(after)

    return serve


async def test_attack_a_server_without_tls_where_tls_is_written_gets_no_link() -> None:
    async with a_server(speaking({"max_payload": 1_048_576})) as port:
        with pytest.raises(TransportClosed, match="offers no TLS"):
            async with Upstream(f"tls://127.0.0.1:{port}").connect(UP, DOWN):
                pass


async def test_a_server_that_takes_no_frame_is_told_of() -> None:
    async with a_server(speaking({"max_payload": FRAME_BYTES_MAX - 1})) as port:
        with pytest.raises(TransportClosed, match="max_payload is below a frame's 262144 bytes"):
            async with Upstream(f"nats://127.0.0.1:{port}").connect(UP, DOWN):
                pass


async def test_a_server_that_lets_the_link_not_subscribe_is_told_of() -> None:
    refusal = b"-ERR 'Permissions Violation for Subscription'\r\n"
    async with a_server(speaking({"max_payload": 1_048_576}, refusal)) as port:
        with pytest.raises(TransportClosed, match="not subscribe to its own topic"):
            async with Upstream(f"nats://127.0.0.1:{port}").connect(UP, DOWN):
                pass


@pytest.mark.parametrize("attack", [b"MSG x 1 4000000000\r\n" + bytes(1_000), bytes(200_000)], ids=["message", "line"])
async def test_attack_a_server_that_announces_endless_things_gets_no_memory_for_them(attack: bytes) -> None:
    async with (
        a_server(speaking({"max_payload": 1_048_576}, attack)) as port,
        asyncio.timeout(WAIT_S),
    ):
        with pytest.raises(TransportClosed):
            async with Upstream(f"nats://127.0.0.1:{port}").connect(UP, DOWN) as link:
                await link.receive()
