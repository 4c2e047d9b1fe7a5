"""What only the MQTT transport does: it finds a lost broker again, and takes nothing from other topics."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import aiomqtt
import pytest

from relay.transport import mqtt
from relay.transport.address import BrokerAddress, ListenFailed, free_port
from relay.transport.broker import EmbeddedBroker, RelayTopics
from relay.transport.mqtt import Transport
from tests.relay.running import WAIT_S, until
from wire.errors import FormatError
from wire.limits import FRAME_BYTES_MAX

RELAY_ID = bytes(16)
TAG = bytes(range(16))


async def test_a_lost_broker_is_found_again_and_what_is_sent_meanwhile_is_counted() -> None:
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    transport = Transport(address, RELAY_ID, random.Random(1))
    starting = asyncio.create_task(transport.start())
    await asyncio.sleep(0.05)
    assert not starting.done(), "there is no broker yet"
    for connections in (1, 2):
        broker = EmbeddedBroker(address)
        await broker.start()
        await until(lambda connections=connections: transport.counters.connections == connections, "the connection")
        await asyncio.wait_for(starting, WAIT_S)
        async with aiomqtt.Client(address.host, address.port) as device:
            await device.publish(f"bp/{RELAY_ID.hex()}/{TAG.hex()}/up", b"packet")
            assert await asyncio.wait_for(transport.receive(8), WAIT_S) == [(TAG, b"packet")]
        await broker.stop()
        before = transport.counters.dropped_offline

        async def lost(before: int = before) -> None:
            while transport.counters.dropped_offline == before:
                await transport.send([(TAG, b"lost")])
                await asyncio.sleep(0.01)

        await asyncio.wait_for(lost(), WAIT_S)
    await transport.close()


@pytest.mark.parametrize(
    "topic",
    [
        "bp/00000000000000000000000000000000/00/up",
        "bp/00000000000000000000000000000000/000102030405060708090A0B0C0D0E0F/up",
        "bp/00000000000000000000000000000000/000102030405060708090a0b0c0d0e0f/down",
        "bp/00000000000000000000000000000000/zz0102030405060708090a0b0c0d0e0f/up",
        "bp/11111111111111111111111111111111/000102030405060708090a0b0c0d0e0f/up",
        "bp/00000000000000000000000000000000/0001 02030405060708090a0b0c0d0e0f/up",
        "",
        "/up",
    ],
)
async def test_a_message_on_another_topic_is_dropped_and_counted(topic: str) -> None:
    transport = Transport(BrokerAddress("127.0.0.1", 1), RELAY_ID, random.Random(1))
    transport.arrived(topic, b"packet")
    assert transport.counters.dropped_malformed == 1
    assert transport.counters.received == 0
    transport.arrived(f"bp/{RELAY_ID.hex()}/{TAG.hex()}/up", b"packet")
    assert transport.counters.received == 1


async def test_the_embedded_broker_refuses_other_topics_and_retains_nothing() -> None:
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    broker = EmbeddedBroker(address)
    await broker.start()
    topic = f"bp/{RELAY_ID.hex()}/{TAG.hex()}/up"
    try:
        async with aiomqtt.Client(address.host, address.port) as device:
            await device.publish(topic, b"retained", retain=True)
            await device.publish("secrets", b"other topic")
            await device.subscribe(topic)
            await device.publish(topic, b"fresh")
            async with asyncio.timeout(WAIT_S):
                assert (await anext(aiter(device.messages))).payload == b"fresh"
            granted = await device.subscribe("#")
            assert [str(code) for code in granted] == ["Unspecified error"]
    finally:
        await broker.stop()
        await broker.stop()


async def test_a_broker_that_refuses_the_subscription_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    refused = 0

    async def nobody(self: object, *, topic: str, **_: object) -> bool:
        nonlocal refused
        refused += 1
        return False

    monkeypatch.setattr(RelayTopics, "topic_filtering", nobody)
    broker = EmbeddedBroker(address)
    await broker.start()
    transport = Transport(address, RELAY_ID, random.Random(1))
    starting = asyncio.create_task(transport.start())
    try:
        await until(lambda: refused >= 2, "the second attempt")
        assert not starting.done()
        assert transport.counters.connections == 0
    finally:
        starting.cancel()
        await transport.close()
        await broker.stop()


@contextlib.asynccontextmanager
async def broker_that(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Transport]:
    """A transport that looks for a broker which does this with each client."""
    served: set[asyncio.Task[None]] = set()

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        with contextlib.suppress(OSError, EOFError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    transport = Transport(BrokerAddress(*server.sockets[0].getsockname()), RELAY_ID, random.Random(1))
    try:
        await asyncio.wait_for(transport.start(), WAIT_S)
        yield transport
    finally:
        await transport.close()
        server.close()
        await asyncio.wait(served, timeout=WAIT_S)
        await asyncio.sleep(0)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A broker that lets a client in and grants its subscription, of which packet id 1 is the first."""
    await reader.readexactly((await reader.readexactly(2))[1])
    writer.write(b"\x20\x02\x00\x00")
    await reader.readexactly((await reader.readexactly(2))[1])
    writer.write(b"\x90\x03\x00\x01\x00")


async def test_attack_broker_that_takes_nothing_is_left_after_a_while_and_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "WRITE_S_MAX", 0.05)
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await over.wait()

    async with broker_that(serve) as transport:
        async with asyncio.timeout(WAIT_S):
            while transport.counters.connections < 2:
                await transport.send([(TAG, bytes(FRAME_BYTES_MAX))] * 40)
                await asyncio.sleep(0)
        assert transport.counters.dropped_offline > 0
        over.set()


async def test_a_slow_broker_holds_the_sender_back_and_gets_everything() -> None:
    go = asyncio.Event()
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await greet(reader, writer)
        await go.wait()
        while data := await reader.read(1_000_000):
            got += len(data)

    async with broker_that(serve) as transport:
        sending = asyncio.create_task(transport.send([(TAG, bytes(FRAME_BYTES_MAX))] * 40))
        await asyncio.sleep(0.05)
        assert not sending.done(), "ten megabytes are more than the socket takes"
        go.set()
        await asyncio.wait_for(sending, WAIT_S)
        assert transport.counters.sent == 40
        await until(lambda: got > 40 * FRAME_BYTES_MAX, "all bytes")


async def test_the_embedded_broker_logs_no_payload_and_no_topic(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    broker = EmbeddedBroker(address)
    await broker.start()
    transport = Transport(address, RELAY_ID, random.Random(1))
    await transport.start()
    async with aiomqtt.Client(address.host, address.port, logger=logging.getLogger("device")) as device:
        await device.publish(f"bp/{RELAY_ID.hex()}/{TAG.hex()}/up", b"payload-canary")
        assert await asyncio.wait_for(transport.receive(8), WAIT_S) == [(TAG, b"payload-canary")]
    await transport.close()
    await broker.stop()
    words = [record.getMessage() for record in caplog.records if record.name != "device"]
    assert not [word for word in words if "canary" in word or TAG.hex() in word]


async def test_an_address_in_use_is_a_typed_error() -> None:
    address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
    broker = EmbeddedBroker(address)
    await broker.start()
    try:
        with pytest.raises(ListenFailed, match="listen"):
            await EmbeddedBroker(address).start()
    finally:
        await broker.stop()


def test_a_host_that_is_not_of_this_machine_has_no_free_port() -> None:
    with pytest.raises(ListenFailed):
        free_port("192.0.2.1")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtts://broker.example/", "broker.example", 8883, True),
        ("mqtt://[::1]:1884", "::1", 1884, False),
        ("nats://localhost", "localhost", 4222, False),
        ("tls://broker.example:4443", "broker.example", 4443, True),
    ],
)
def test_a_broker_url_is_read(url: str, host: str, port: int, tls: bool) -> None:
    address = BrokerAddress.from_url(url)
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert address.nats == url.startswith(("nats:", "tls:"))
    assert BrokerAddress.from_url(address.url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://broker", "must begin with"),
        ("mqtt://ana:secret@broker", "credentials"),
        ("mqtt://:1883", "SCHEME://HOST:PORT"),
        ("mqtt://broker:0", "port"),
        ("mqtt://broker:99999", "no URL"),
        ("mqtt://broker/path", "SCHEME://HOST:PORT"),
        ('mqtt://bro"ker', "SCHEME://HOST:PORT"),
        ("", "must begin with"),
    ],
)
def test_another_url_is_refused_without_repeating_a_secret(url: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem) as caught:
        BrokerAddress.from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "listen", ["", "1883", ":1883", "host:", "host:x", "host:65536", "host:-1", "a b:1", 'a"b:1', "host:٣"]
)
def test_another_listen_address_is_refused(listen: str) -> None:
    with pytest.raises(FormatError, match="listen"):
        BrokerAddress.from_listen(listen)
