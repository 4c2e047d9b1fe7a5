"""NATS's own protocol, with nats-py; devices reach the same server through its MQTT listener (protocol.md section 6.1).

The server maps the topic `bp/R/D/up` to the subject `bp.R.D.up`, so this subscribes to `bp.R.*.up` and publishes to
`bp.R.D.down`. It is core NATS, at most once, as QoS 0 is: nothing is kept in a stream.

Rules:
- a lost server is looked for again without end, with a doubled, capped and jittered pause; meanwhile what is sent is
  dropped and counted, since the core repeats deliveries and devices repeat commands;
- the connection, its handshake and TLS are nats-py's, but for its own reconnecting. Messages do not take its way:
  `_Arrivals` cuts them out of what the socket gave and puts them where `receive` takes batches, and `send` writes a
  batch at once and waits until the socket has taken most of it, which is the backpressure. To receive a packet of 1,300
  bytes and send it on takes 2.9 µs of CPU so, and 6.8 with nats-py's callbacks and `publish`;
- a server that announces a longer message than a frame can be, or an endless line, gets no memory for it;
- a server that says `tls://` and then offers no TLS, or lets the relay not subscribe, counts as lost.
"""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Sequence

import nats.aio.client
import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from relay.tasks import end_tasks
from relay.transport import Packet, TransportCounters
from relay.transport.address import BrokerAddress
from relay.transport.inbox import Inbox
from wire.limits import FRAME_BYTES_MAX, ID_BYTES

RECONNECT_FIRST_S = 0.1
RECONNECT_LAST_S = 5.0
KEEPALIVE_S = 30
CONNECT_S_MAX = 5
WRITE_S_MAX = 30.0
CLOSE_S_MAX = 2.0

WRITE_BYTES = 1_048_576
"""So much is handed to the socket before it is waited for."""
DRAIN_BYTES = 32_768
LINE_BYTES_MAX = 65_536
PAYLOAD_BYTES_MAX = 4 * FRAME_BYTES_MAX
"""Longer messages are not read to their end: the connection is given up."""

READ_BYTES = 262_144
_UP = b".up"
_MESSAGE_VERBS = frozenset((b"MSG", b"HMSG"))
# Subjects are read once: a device's tag is looked up by its subject's bytes from then on.
_SUBJECTS_KEPT = 32_768

# nats-py would read 32 KiB at a time; each time costs a turn of the loop.
nats.aio.client.DEFAULT_BUFFER_SIZE = READ_BYTES
# nats-py tells what a server sent when it cannot read it: none of it may reach a log (protocol.md section 10).
_silent = logging.getLogger("nats.aio.client")
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False

_ERRORS = (nats.errors.Error, OSError, TimeoutError)


class _NotUsable(nats.errors.Error):
    """The server is there, but not as the address or the relay needs it."""


class _LineParser(Parser):
    """nats-py's parser, given whole lines: one that it leaves over is none of NATS."""

    async def parse(self, data: bytes = b"") -> None:
        """Take lines.

        Raises:
            nats.errors.ProtocolError: they are not NATS.
        """
        await super().parse(data)
        if self.buf:
            raise nats.errors.ProtocolError


class _Arrivals:
    """Messages are cut out of what the socket gave, and handed on at once; other lines, whole, are nats-py's.

    Args:
        arrived: called with the subject and the payload of each message.
        lines: called with every other line.
    """

    def __init__(self, arrived: Callable[[bytes, bytes], None], lines: Callable[[bytes], None]) -> None:
        self._arrived = arrived
        self._lines = lines
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take what the socket gave.

        Raises:
            nats.errors.ProtocolError: it is not NATS, or longer than allowed.
        """
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        position, length = 0, len(whole)
        while position < length:
            end_of_line = whole.find(b"\r\n", position)
            if end_of_line < 0:
                if length - position > LINE_BYTES_MAX:
                    raise nats.errors.ProtocolError
                self._need = 0
                break
            start = end_of_line + 2
            words = whole[position:end_of_line].split(b" ")
            if words[0] in _MESSAGE_VERBS:
                headers_bytes, payload_bytes = _sizes(words)
                end = start + payload_bytes
                if end + 2 > length:
                    self._need = end + 2 - position
                    break
                self._arrived(words[1], whole[start + headers_bytes : end])
                position = end + 2
            else:
                self._lines(whole[position:start])
                position = start
        rest = whole[position:]
        self._chunks = [rest] if rest else []
        self._have = len(rest)
        if not rest:
            self._need = 0


def _sizes(words: list[bytes]) -> tuple[int, int]:
    """Bytes of headers, and of headers and payload, from the words of `[H]MSG subject sid [reply] [headers] all`."""
    with_headers = words[0] == b"HMSG"
    if not 4 + with_headers <= len(words) <= 5 + with_headers:
        raise nats.errors.ProtocolError
    try:
        payload_bytes = int(words[-1])
        headers_bytes = int(words[-2]) if with_headers else 0
    except ValueError:
        raise nats.errors.ProtocolError from None
    if not 0 <= headers_bytes <= payload_bytes <= PAYLOAD_BYTES_MAX:
        raise nats.errors.ProtocolError
    return headers_bytes, payload_bytes


class Transport:
    """The relay's side of a NATS server. Meets `RelayTransport`.

    Args:
        address: the server, `nats` or `tls`.
        relay_id: names the subjects (16 bytes).
        rng: jitters the pauses between attempts to connect; no secret depends on it.
        tls: the context for `tls`; the system's authorities when None.
        inbox: where packets wait, for other bounds than the usual.
    """

    def __init__(
        self,
        address: BrokerAddress,
        relay_id: bytes,
        rng: random.Random,
        tls: ssl.SSLContext | None = None,
        inbox: Inbox | None = None,
        counters: TransportCounters | None = None,
    ) -> None:
        self.counters = counters or TransportCounters()
        self._address = address
        self._prefix = f"bp.{relay_id.hex()}.".encode()
        self._rng = rng
        self._tls = tls if tls is not None or not address.tls else ssl.create_default_context()
        self._inbox = Inbox(self.counters) if inbox is None else inbox
        self._client: Client | None = None
        self._tags: dict[bytes, bytes] = {}
        self._linked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and subscribe; waits for the server as long as it takes."""
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected(), name="nats")
        linked = asyncio.create_task(self._linked.wait())
        try:
            await asyncio.wait((linked, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            linked.cancel()
        if self._task.done():
            await self._task

    async def receive(self, packets_max: int) -> list[Packet]:
        """Wait for packets from devices; see `RelayTransport.receive`."""
        return await self._inbox.take(packets_max)

    async def send(self, packets: Sequence[Packet]) -> None:
        """Publish packets; what cannot be sent now is dropped and counted."""
        client = self._client
        if client is None:
            self.counters.dropped_offline += len(packets)
            return
        bytes_max = min(FRAME_BYTES_MAX, client.max_payload)
        chunks: list[bytes] = []
        count = size = 0
        command = b"PUB " + self._prefix
        for device_tag, packet in packets:
            if len(packet) > bytes_max:
                self.counters.dropped_oversize += 1
                continue
            chunks += (b"%b%b.down %d\r\n" % (command, device_tag.hex().encode(), len(packet)), packet, b"\r\n")
            count += 1
            size += len(packet)
            if size >= WRITE_BYTES:
                await self._write(client, chunks, count)
                chunks, count, size = [], 0, 0
        if chunks:
            await self._write(client, chunks, count)

    async def close(self) -> None:
        """Disconnect; what is still queued is dropped."""
        self._inbox.close()
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])

    def arrived(self, subject: bytes, packet: bytes) -> None:
        """Take one message of the server: from a device's subject and small enough, or dropped and counted."""
        device_tag = self._tags.get(subject)
        if device_tag is None:
            device_tag = self._tag_of(subject)
            if device_tag is None:
                self.counters.dropped_malformed += 1
                return
            if len(self._tags) >= _SUBJECTS_KEPT:
                self._tags.clear()
            self._tags[subject] = device_tag
        self._inbox.put(device_tag, packet)

    def _tag_of(self, subject: bytes) -> bytes | None:
        try:
            device_tag = bytes.fromhex(subject[len(self._prefix) : -len(_UP)].decode("ascii"))
        except ValueError:
            return None
        whole = self._prefix + device_tag.hex().encode() + _UP
        return device_tag if len(device_tag) == ID_BYTES and subject == whole else None

    async def _write(self, client: Client, chunks: list[bytes], count: int) -> None:
        """Write whole commands; nats-py writes whole commands between them."""
        transport = client._transport
        try:
            if self._client is not client or transport is None:
                raise ConnectionResetError
            transport.writelines(chunks)
            writer = transport._io_writer if isinstance(transport, TcpTransport) else None
            # So little that asyncio would not ask to wait needs no timer either.
            if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > DRAIN_BYTES:
                async with asyncio.timeout(WRITE_S_MAX):
                    await transport.drain()  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError) as error:
            self.counters.dropped_offline += count
            if isinstance(error, TimeoutError):
                _abort(client)
        else:
            self.counters.sent += count

    async def _stay_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            connected = self.counters.connections
            with contextlib.suppress(*_ERRORS):
                await self._connect()
            if self.counters.connections > connected:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s * (0.5 + self._rng.random()))
            pause_s = min(2 * pause_s, RECONNECT_LAST_S)

    async def _connect(self) -> None:
        """One connection, from CONNECT until it is lost."""
        client = Client()
        client._ps = _LineParser(client)
        refusals: list[Exception] = []

        async def note(error: Exception) -> None:
            refusals.append(error)
            del refusals[:-1]

        try:
            await client.connect(
                servers=[self._address.url],
                error_cb=note,
                name=f"relay-{self._rng.getrandbits(64):016x}",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_S_MAX,
                tls=self._tls if self._address.tls else None,
            )
            if self._address.tls:
                _check_tls(client)
            refusals.clear()
            _divert(client, self.arrived)
            await client.subscribe(f"{self._prefix.decode()}*.up")
            # nats-py writes a PING past what it has queued: the answer would come before the subscription is judged.
            await client._flush_pending(force_flush=True)
            await client.flush(CONNECT_S_MAX)
            if refusals:
                raise _NotUsable
            self._client = client
            self.counters.connections += 1
            self._linked.set()
            reading = client._reading_task
            assert reading is not None
            while not (await asyncio.wait((reading,), timeout=KEEPALIVE_S))[0]:
                await client.flush(KEEPALIVE_S)
        finally:
            self._client = None
            await _end(client)


def _divert(client: Client, arrived: Callable[[bytes, bytes], None]) -> None:
    """Let messages go where they are wanted as the socket gives them; nats-py's stream would copy them thrice, and
    wake its task for each read.
    """
    transport = client._transport
    reader = transport._io_reader if isinstance(transport, TcpTransport) else None
    if reader is None:
        raise _NotUsable
    stream = reader
    arrivals = _Arrivals(arrived, stream.feed_data)

    def take(data: bytes) -> None:
        if stream.exception() is not None:
            return
        try:
            arrivals.feed(bytes(data))
        except nats.errors.ProtocolError as error:
            stream.set_exception(error)

    # What came before this and was not read yet.
    waiting: bytearray = stream._buffer  # type: ignore[attr-defined]
    before = bytes(waiting)
    waiting.clear()
    stream.feed_data = take  # type: ignore[method-assign, assignment]
    if before:
        take(before)


def _check_tls(client: Client) -> None:
    """nats-py takes a server's word that it has no TLS; this does not.

    Raises:
        _NotUsable: the connection is in the clear.
    """
    transport = client._transport
    writer = transport._io_writer if isinstance(transport, TcpTransport) else None
    if writer is None or writer.get_extra_info("ssl_object") is None:
        raise _NotUsable
    # nats-py's own protocol does not know that it is over TLS, and asyncio warns of that at each end of a stream.
    protocol = writer.transport.get_protocol()
    if hasattr(protocol, "_over_ssl"):
        protocol._over_ssl = True


def _abort(client: Client) -> None:
    transport = client._transport
    if isinstance(transport, TcpTransport) and transport._io_writer is not None:
        transport._io_writer.transport.abort()


async def _end(client: Client) -> None:
    """Close a connection in whatever state; nats-py alone would wait for ever for a server that reads nothing."""
    try:
        with contextlib.suppress(*_ERRORS):
            async with asyncio.timeout(CLOSE_S_MAX):
                await client.close()
    finally:
        _abort(client)
        tasks = (client._reading_task, client._ping_interval_task, client._flusher_task)
        await end_tasks(task for task in tasks if task is not None)
