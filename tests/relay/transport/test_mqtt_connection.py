"""The relay's MQTT connection: whatever way the bytes arrive, and whatever the broker does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.transport import mqtt_connection
from relay.transport.mqtt_connection import MqttConnection, connect, publication
from tests.relay.running import WAIT_S, until
from wire.limits import FRAME_BYTES_MAX

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x00"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heard:
    """What a connection handed on."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.skipped = 0

    def arrived(self, topic: bytes, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def oversize(self) -> None:
        self.skipped += 1


class FakeTransport(asyncio.Transport):
    """A socket that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high

    def abort(self) -> None:
        self.aborted = True


def fed(chunks: list[bytes]) -> tuple[Heard, FakeTransport]:
    """What comes of these bytes, in these pieces."""

    async def feed() -> tuple[Heard, FakeTransport]:
        heard, transport = Heard(), FakeTransport()
        connection = MqttConnection(heard.arrived, heard.oversize)
        connection.connection_made(transport)
        for chunk in chunks:
            connection.data_received(chunk)
        connection.connection_lost(None)
        return heard, transport

    return asyncio.run(feed())


messages = st.lists(
    st.tuples(st.binary(max_size=40), st.one_of(st.binary(max_size=300), st.just(bytes(70_000)))), max_size=5
)


@given(messages, st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_messages_arrive_whole_however_the_stream_is_cut(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(b"".join(publication(*message)) for message in sent)
    chunks, position, turn = [], 0, 0
    while position < len(stream):
        # Small pieces through every header, then a large one, so that a large payload takes few turns.
        size = cuts[turn % len(cuts)] if turn % 16 < 12 else 20_000
        chunks.append(stream[position : position + size])
        position, turn = position + size, turn + 1
    heard, transport = fed(chunks)
    assert heard.messages == sent
    assert not transport.aborted


@pytest.mark.parametrize("size", [1, 7, 5_000, 10_000_000])
def test_a_packet_too_long_for_a_frame_is_skipped_and_what_follows_arrives(size: int) -> None:
    long = b"".join(publication(b"t", bytes(FRAME_BYTES_MAX + 2_000)))
    stream = b"".join(publication(b"t", b"before")) + long + b"".join(publication(b"t", b"after"))
    if size < 100:
        # The long payload in large pieces, its edges in small ones.
        edge = 40
        pieces = [stream[at : at + size] for at in range(0, edge, size)]
        at = sum(map(len, pieces))
        pieces += [stream[at:-edge], *[stream[-edge:][at : at + size] for at in range(0, edge, size)]]
    else:
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert b"".join(pieces) == stream
    heard, transport = fed(pieces)
    assert heard.messages == [(b"t", b"before"), (b"t", b"after")]
    assert heard.skipped == 1
    assert not transport.aborted


@pytest.mark.parametrize(
    "stream",
    [
        b"\x30\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\x00",  # no topic
        b"\x30\x01\x00",
        b"\x30\x04\x00\x03ab",  # a topic longer than the packet
    ],
)
def test_what_is_not_mqtt_ends_the_connection(stream: bytes) -> None:
    for chunks in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        heard, transport = fed(chunks)
        assert transport.aborted
        assert not heard.messages


def test_other_packets_of_the_broker_change_nothing() -> None:
    after = b"".join(publication(b"t", b"after"))
    heard, transport = fed([b"\xd0\x00" + b"\x40\x02\x00\x01" + CONNACK + CONNACK + SUBACK + SUBACK + after])
    assert heard.messages == [(b"t", b"after")]
    assert not transport.aborted


@contextlib.asynccontextmanager
async def broker(serve: Serve) -> AsyncIterator[int]:
    """A server that speaks as `serve` says to whoever connects; its port."""
    over = asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            over.set()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(over.wait(), WAIT_S)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def opened(port: int, heard: Heard) -> AsyncIterator[MqttConnection]:
    connection = await connect("127.0.0.1", port, None, heard.arrived, heard.oversize)
    try:
        async with asyncio.timeout(WAIT_S):
            await connection.open("relay-1", "bp/+/up")
        yield connection
    finally:
        connection.abort()
        await asyncio.wait_for(asyncio.shield(connection.lost), WAIT_S)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readexactly(2 + 10 + 9) == b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07relay-1"
    writer.write(CONNACK)
    assert await reader.readexactly(2 + 12) == b"\x82\x0c\x00\x01\x00\x07bp/+/up\x00"
    writer.write(SUBACK)


@pytest.mark.parametrize(
    ("connack", "suback"),
    [
        (b"\x20\x02\x00\x05", SUBACK),
        (CONNACK, b"\x90\x03\x00\x01\x80"),
        (CONNACK, b"\x90\x03\x00\x02\x00"),
        (CONNACK, b"\x90\x02\x00\x01"),
    ],
)
async def test_a_refusal_is_an_error(connack: bytes, suback: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(connack)
        await reader.read(1_000)
        writer.write(suback)
        await writer.drain()

    async with broker(serve) as port:
        with pytest.raises(ConnectionRefusedError):
            async with opened(port, Heard()):
                raise AssertionError("it was refused")


async def test_a_broker_that_hangs_up_ends_the_connection_and_every_send() -> None:
    async with broker(greet) as port, opened(port, Heard()) as connection:
        await asyncio.wait_for(asyncio.shield(connection.lost), WAIT_S)
        with pytest.raises(ConnectionError):
            await connection.send(publication(b"t", b"late"))
        connection.close()


async def test_a_broker_that_hangs_up_at_once_is_an_error() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with broker(serve) as port:
        with pytest.raises(ConnectionError):
            async with opened(port, Heard()):
                raise AssertionError("it is gone")


async def test_the_last_words_leave_before_the_connection_closes() -> None:
    said = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        while data := await reader.read(1_000):
            said.extend(data)

    async with broker(serve) as port, opened(port, Heard()) as connection:
        await connection.send(publication(b"t", b"last"))
        connection.close()
        connection.close()
        await asyncio.wait_for(asyncio.shield(connection.lost), WAIT_S)
    assert bytes(said) == b"\xc0\x00" + b"\x30\x07\x00\x01tlast" + b"\xe0\x00"


async def test_a_silent_broker_is_lost_after_two_keepalives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_connection, "KEEPALIVE_S", 0.02)
    pings = 0
    answering = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pings
        await reader.read(1_000)
        writer.write(CONNACK)
        await reader.read(1_000)
        writer.write(SUBACK)
        while data := await reader.read(1_000):
            pings += data.count(b"\xc0\x00")
            if answering:
                writer.write(b"\xd0\x00")

    async with broker(serve) as port, opened(port, Heard()) as connection:
        await until(lambda: pings >= 3, "answered pings")
        assert not connection.lost.done()
        answering = False
        await asyncio.wait_for(asyncio.shield(connection.lost), WAIT_S)


async def test_a_broker_that_takes_nothing_is_lost_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_connection, "WRITE_S_MAX", 0.05)
    held = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await held.wait()

    big = publication(b"t", bytes(FRAME_BYTES_MAX))
    async with broker(serve) as port, opened(port, Heard()) as connection:
        sending = asyncio.create_task(fill(connection, big))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, WAIT_S)
        await asyncio.wait_for(asyncio.shield(connection.lost), WAIT_S)
        held.set()


async def fill(connection: MqttConnection, big: tuple[bytes, bytes]) -> None:
    while True:
        await connection.send(big * 40)


async def test_a_slow_broker_holds_the_sender_back_and_gets_everything() -> None:
    go = asyncio.Event()
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await greet(reader, writer)
        await go.wait()
        while data := await reader.read(1_000_000):
            got += len(data)

    big = publication(b"t", bytes(FRAME_BYTES_MAX))
    async with broker(serve) as port, opened(port, Heard()) as connection:
        sending = asyncio.create_task(connection.send(big * 40))
        await asyncio.sleep(0.02)
        assert not sending.done(), "ten megabytes are more than the socket takes"
        go.set()
        await asyncio.wait_for(sending, WAIT_S)
        await until(lambda: got == 40 * sum(map(len, big)) + 2, "all bytes and the ping")
