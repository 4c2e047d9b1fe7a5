"""What only the NATS transport does: its own reading of messages, and what it does with servers that misbehave."""

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiomqtt
import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from relay.transport import nats as subject
from relay.transport.address import BrokerAddress
from relay.transport.inbox import PACKETS_MAX
from relay.transport.nats import LINE_BYTES_MAX, PAYLOAD_BYTES_MAX, Transport, _Arrivals, _LineParser
from tests.relay.running import WAIT_S, nats_server, until
from wire.limits import FRAME_BYTES_MAX

RELAY_ID = bytes(16)
TAG = bytes(range(16))
SUBJECT = f"bp.{RELAY_ID.hex()}.{TAG.hex()}.up"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[BrokerAddress]:
    """A server of a few lines, as false as it likes to be."""
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield BrokerAddress("127.0.0.1", listener.sockets[0].getsockname()[1], "nats")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: bytes = b"{}") -> None:
    """Answer as a NATS server does, until the client has subscribed."""
    writer.write(b"INFO " + info + b"\r\n")
    while not (line := await reader.readline()).startswith(b"SUB"):
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")
    assert await reader.readline() == b"PING\r\n"
    writer.write(b"PONG\r\n")


@contextlib.asynccontextmanager
async def started(address: BrokerAddress) -> AsyncIterator[Transport]:
    transport = Transport(address, RELAY_ID, random.Random(1))
    await asyncio.wait_for(transport.start(), WAIT_S)
    try:
        yield transport
    finally:
        await asyncio.wait_for(transport.close(), WAIT_S)


@pytest.mark.nats_server
async def test_a_lost_server_is_found_again_and_what_is_sent_meanwhile_is_counted(tmp_path: Path) -> None:
    transport = Transport(BrokerAddress("127.0.0.1", 1, "nats"), RELAY_ID, random.Random(1))
    counters = transport.counters
    for connections in (1, 2):
        with nats_server(tmp_path) as (address, device_address):
            # Each server listens elsewhere; what matters here is that the transport goes on looking.
            transport._address = address
            await asyncio.wait_for(transport.start(), WAIT_S)
            await until(lambda count=connections: counters.connections == count, "the connection")
            async with aiomqtt.Client(device_address.host, device_address.port) as device:
                await device.publish(SUBJECT.replace(".", "/"), b"packet")
                assert await asyncio.wait_for(transport.receive(8), WAIT_S) == [(TAG, b"packet")]
        before = counters.dropped_offline
        async with asyncio.timeout(WAIT_S):
            while counters.dropped_offline == before:
                await transport.send([(TAG, b"lost")])
                await asyncio.sleep(0.01)
    await transport.close()


@pytest.mark.parametrize(
    "other",
    [
        b"bp.00000000000000000000000000000000.00.up",
        b"bp.00000000000000000000000000000000.000102030405060708090A0B0C0D0E0F.up",
        b"bp.00000000000000000000000000000000.000102030405060708090a0b0c0d0e0f.down",
        b"bp.00000000000000000000000000000000.zz0102030405060708090a0b0c0d0e0f.up",
        b"bp.11111111111111111111111111111111.000102030405060708090a0b0c0d0e0f.up",
        b"bp.00000000000000000000000000000000.\xff.up",
        b"",
        b".up",
    ],
)
async def test_a_message_on_another_subject_is_dropped_and_counted(other: bytes) -> None:
    transport = Transport(BrokerAddress("127.0.0.1", 1, "nats"), RELAY_ID, random.Random(1))
    transport.arrived(other, b"packet")
    assert (transport.counters.dropped_malformed, transport.counters.received) == (1, 0)
    transport.arrived(SUBJECT.encode(), b"packet")
    assert transport.counters.received == 1


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


MESSAGES = st.lists(
    st.tuples(st.from_regex(rb"[a-z.]{1,20}", fullmatch=True), st.binary(max_size=80), st.sampled_from("mrhH")),
    max_size=8,
)


@given(MESSAGES, st.lists(st.integers(0, 2_000), max_size=12))
async def test_messages_are_read_whole_however_the_stream_is_cut(
    messages: list[tuple[bytes, bytes, str]], places: list[int]
) -> None:
    stream = b""
    for name, payload, form in messages:
        size = len(payload)
        stream += {
            "m": b"MSG %b 1 %d\r\n%b\r\n" % (name, size, payload),
            "r": b"+OK\r\nMSG %b 1 reply %d\r\n%b\r\n" % (name, size, payload),
            "h": b"HMSG %b 1 12 %d\r\nNATS/1.0\r\n\r\n%b\r\n" % (name, 12 + size, payload),
            "H": b"+OK\r\nHMSG %b 1 reply 12 %d\r\nNATS/1.0\r\n\r\n%b\r\n" % (name, 12 + size, payload),
        }[form]
    got: list[tuple[bytes, bytes]] = []
    lines: list[bytes] = []
    arrivals = _Arrivals(lambda name, payload: got.append((name, payload)), lines.append)
    for part in cut(stream, places):
        arrivals.feed(part)
    assert got == [(name, payload) for name, payload, _ in messages]
    assert lines == [b"+OK\r\n" for _, _, form in messages if form in "rH"]
    assert arrivals._have == 0


@pytest.mark.parametrize(
    "stream",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 b c 5\r\n",
        b"MSG a 1 five\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 %d\r\n" % (PAYLOAD_BYTES_MAX + 1),
        b"HMSG a 1 9 5\r\n",
        b"HMSG a 1 5\r\n",
        b"HELLO\r\n",
        b"HELLO " + bytes(8_192) + b"\r\n",
        b"INFO " + bytes(LINE_BYTES_MAX),
    ],
)
async def test_what_is_no_nats_or_too_long_is_given_up(stream: bytes) -> None:
    lines: list[bytes] = []
    arrivals, parser = _Arrivals(lambda name, payload: None, lines.append), _LineParser(Client())
    with pytest.raises(nats.errors.ProtocolError):
        arrivals.feed(stream)
        await parser.parse(b"".join(lines))


async def test_a_server_that_sends_nonsense_is_left_and_found_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"MSG %b 1 6\r\npacket\r\nMSG a 1 nonsense\r\n" % SUBJECT.encode())
        await reader.read()
        writer.close()

    async with server(serve) as address, started(address) as transport:
        await until(lambda: transport.counters.connections == 2, "the second connection")
        assert (TAG, b"packet") in await asyncio.wait_for(transport.receive(8), WAIT_S)


async def test_a_server_that_refuses_the_subscription_counts_as_lost() -> None:
    attempts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(b"INFO {}\r\n")
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB"):
                writer.write(b"-ERR 'Permissions Violation for Subscription to \"bp\"'\r\n")
        writer.close()

    async with server(serve) as address:
        transport = Transport(address, RELAY_ID, random.Random(1))
        starting = asyncio.create_task(transport.start())
        await until(lambda: attempts >= 2, "the second attempt")
        assert not starting.done()
        assert transport.counters.connections == 0
        starting.cancel()
        await asyncio.wait_for(transport.close(), WAIT_S)


async def test_an_address_with_tls_is_not_spoken_to_without_it() -> None:
    said = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        writer.write(b"INFO {}\r\n")
        while line := await reader.readline():
            said += line
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with server(serve) as address:
        transport = Transport(BrokerAddress(address.host, address.port, "tls"), RELAY_ID, random.Random(1))
        starting = asyncio.create_task(transport.start())
        await until(lambda: said.count(b"CONNECT") >= 2, "the second attempt")
        assert not starting.done()
        starting.cancel()
        await asyncio.wait_for(transport.close(), WAIT_S)
    assert b"SUB" not in said
    assert RELAY_ID.hex().encode() not in said


async def test_a_server_that_answers_no_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "KEEPALIVE_S", 0.05)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.read()
        writer.close()

    async with server(serve) as address, started(address) as transport:
        await until(lambda: transport.counters.connections == 2, "the second connection")


async def test_a_server_that_reads_nothing_is_left_and_what_it_did_not_take_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "WRITE_S_MAX", 0.05)
    monkeypatch.setattr(subject, "CLOSE_S_MAX", 0.05)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await ended.wait()
        writer.transport.abort()

    async with server(serve) as address, started(address) as transport:
        packets = [(TAG, bytes(FRAME_BYTES_MAX))] * 200
        await asyncio.wait_for(transport.send(packets), WAIT_S)
        counters = transport.counters
        assert counters.dropped_offline > 0
        assert counters.sent + counters.dropped_offline == len(packets)
        await until(lambda: counters.connections == 2, "the second connection")
        ended.set()


async def test_a_packet_above_what_the_server_takes_is_dropped_and_counted() -> None:
    got = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await greet(reader, writer, b'{"max_payload":1000}')
        while data := await reader.read(65_536):
            got += data
        writer.close()

    async with server(serve) as address, started(address) as transport:
        await transport.send([(TAG, bytes(1_001)), (TAG, b"small"), (TAG, bytes(FRAME_BYTES_MAX + 1))])
        assert (transport.counters.sent, transport.counters.dropped_oversize) == (1, 2)
        await until(lambda: got.endswith(b"\r\n"), "the packet")
    assert got == b"PUB %b 5\r\nsmall\r\n" % SUBJECT.replace(".up", ".down").encode()


async def test_a_full_queue_drops_what_a_fast_server_sends_and_counts_it() -> None:
    count = PACKETS_MAX + 100

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"MSG %b 1 6\r\npacket\r\n" % SUBJECT.encode() * count)
        await reader.read()
        writer.close()

    async with server(serve) as address, started(address) as transport:
        counters = transport.counters
        await until(lambda: counters.received + counters.dropped_full == count, "the packets")
        assert counters.dropped_full == 100


async def test_neither_payload_nor_topic_nor_what_a_server_says_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"MSG %b 1 6\r\ncanary\r\nINFO canary\r\n" % SUBJECT.encode())
        await reader.read()
        writer.close()

    async with server(serve) as address, started(address) as transport:
        await until(lambda: transport.counters.connections == 2, "the second connection")
    words = [record.getMessage() for record in caplog.records]
    assert not [word for word in words if "canary" in word or TAG.hex() in word]
