"""A gateway's links over NATS's own protocol, with nats-py (docs/brokers.md).

The server maps the topic `bp/R/D/up` to the subject `bp.R.D.up`, so a link publishes to that and subscribes to
`bp.R.D.down`, and nothing else. One connection for each link, since each link has a certificate and permissions of its
own. It is core NATS, at most once, as QoS 0 is.

Rules, as on the relay's side: connecting again and the waits are left to the caller; a server that offers no TLS where
`tls://` is written, lets the link not subscribe, takes shorter packets than a frame, or answers no ping counts as lost;
a message longer than a frame can be gets no memory; what arrives faster than it is taken is dropped. Frames of many
devices come here as one, so nats-py's own way is quick enough.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from client.errors import TransportClosed
from client.transport import Channel
from wire.broker_tls import TlsInvalid, client_context
from wire.limits import FRAME_BYTES_MAX

__all__ = ["NatsTransport"]

_CONNECT_S_MAX: Final = 10
_KEEPALIVE_S: Final = 30
_CLOSE_S_MAX: Final = 2.0
_INCOMING_MAX: Final = 64
_PENDING_PACKETS_MAX: Final = 1_024
_PENDING_BYTES_MAX: Final = 33_554_432
_LINE_BYTES_MAX: Final = 65_536
_PAYLOAD_BYTES_MAX: Final = 4 * FRAME_BYTES_MAX
_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError)

# nats-py tells what a server sent when it cannot read it: none of it may reach a log.
_silent = logging.getLogger("nats.aio.client")
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False


class _BoundedParser(Parser):
    """nats-py's parser, which would wait for a message or a line of any length."""

    async def parse(self, data: bytes = b"") -> None:
        """Take what the socket gave.

        Raises:
            nats.errors.ProtocolError: it is not NATS, or longer than allowed.
        """
        await super().parse(data)
        is_message = self.state == AWAITING_MSG_PAYLOAD
        if (is_message and self.needed > _PAYLOAD_BYTES_MAX) or (not is_message and len(self.buf) > _LINE_BYTES_MAX):
            raise nats.errors.ProtocolError


class _NatsChannel:
    def __init__(self, client: Client, subject_up: str) -> None:
        self._client = client
        self._subject_up = subject_up
        self._packets: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    async def arrive(self, message: Msg) -> None:
        """Take a message; waits while many are not taken, and nats-py's bounded queue fills."""
        if 0 < len(message.data) <= FRAME_BYTES_MAX:
            self._packets.append(message.data)
            self._arrived.set()
        while len(self._packets) >= _INCOMING_MAX:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """The connection ended."""
        self._closed = True
        self._arrived.set()

    async def send(self, packet: bytes) -> None:
        try:
            await self._client.publish(self._subject_up, packet)
        except _ERRORS as error:
            raise TransportClosed(f"the broker took no packet: {type(error).__name__}") from None

    async def receive(self) -> bytes:
        while not self._packets:
            if self._closed:
                raise TransportClosed("the broker ended the connection")
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._packets.popleft()


class NatsTransport:
    """Core NATS through nats-py. Meets `client.transport.Transport`.

    Args:
        broker: `nats://HOST:PORT` or `tls://HOST:PORT`.
        home: a folder that may hold certificates for the broker; without it, the system's authorities.
    """

    def __init__(self, broker: str, home: Path | None = None) -> None:
        self.broker = broker
        self._home = home
        self._over_tls = broker.startswith("tls://")

    def _context(self) -> ssl.SSLContext | None:
        if not self._over_tls:
            return None
        if self._home is None:
            return ssl.create_default_context()
        try:
            return client_context(self._home)
        except TlsInvalid as error:
            raise TransportClosed(f"{self.broker}: {error}") from None

    @asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator[Channel]:
        """A connection, subscribed to `topic_down`."""
        client = Client()
        client._ps = _BoundedParser(client)
        channel = _NatsChannel(client, topic_up.replace("/", "."))
        try:
            try:
                await self._subscribe(client, channel, topic_down.replace("/", "."))
            except _ERRORS as error:
                raise TransportClosed(f"{self.broker}: {str(error) or type(error).__name__}") from None
            yield channel
        finally:
            await _end(client)

    async def _subscribe(self, client: Client, channel: _NatsChannel, subject: str) -> None:
        refusals: list[Exception] = []

        async def note(error: Exception) -> None:
            refusals.append(error)
            del refusals[:-1]

        await client.connect(
            servers=[self.broker],
            error_cb=note,
            name=f"gateway-{os.urandom(8).hex()}",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_S_MAX,
            ping_interval=_KEEPALIVE_S,
            tls=self._context(),
        )
        if self._over_tls:
            _check_tls(client)
        if client.max_payload < FRAME_BYTES_MAX:
            raise TransportClosed(f"{self.broker}: max_payload is below a frame's {FRAME_BYTES_MAX} bytes")
        reading = client._reading_task
        assert reading is not None, "nats-py reads once it is connected"
        reading.add_done_callback(lambda _: channel.end())
        refusals.clear()
        await client.subscribe(
            subject,
            cb=channel.arrive,
            pending_msgs_limit=_PENDING_PACKETS_MAX,
            pending_bytes_limit=_PENDING_BYTES_MAX,
        )
        # nats-py writes a PING past what it has queued: the answer would come before the subscription is judged.
        await client._flush_pending(force_flush=True)
        flushed = asyncio.create_task(client.flush(_CONNECT_S_MAX))
        try:
            # A server whose answer cannot be read ends the reading, and nothing tells the flush.
            await asyncio.wait({flushed, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flushed.cancel()
        (outcome,) = await asyncio.gather(flushed, return_exceptions=True)
        if outcome is not None and not refusals:
            raise TransportClosed(f"{self.broker}: the server did not answer: {type(outcome).__name__}")
        if refusals:
            raise TransportClosed(f"{self.broker}: the broker lets this link not subscribe to its own topic")


def _check_tls(client: Client) -> None:
    """nats-py takes a server's word that it has no TLS; this does not.

    Raises:
        TransportClosed: the connection is in the clear.
    """
    transport = client._transport
    writer = transport._io_writer if isinstance(transport, TcpTransport) else None
    if writer is None or writer.get_extra_info("ssl_object") is None:
        raise TransportClosed("the broker offers no TLS")
    # nats-py's own protocol does not know that it is over TLS, and asyncio warns of that at each end of a stream.
    protocol = writer.transport.get_protocol()
    if hasattr(protocol, "_over_ssl"):
        protocol._over_ssl = True


async def _end(client: Client) -> None:
    """Close a connection in whatever state; nats-py alone would wait for ever for a server that reads nothing."""
    tasks = [task for task in (client._reading_task, client._ping_interval_task, client._flusher_task) if task]
    try:
        with contextlib.suppress(*_ERRORS):
            async with asyncio.timeout(_CLOSE_S_MAX):
                await client.close()
    finally:
        transport = client._transport
        if isinstance(transport, TcpTransport) and transport._io_writer is not None:
            transport._io_writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
