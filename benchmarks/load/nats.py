"""A NATS client for load: core publish and subscribe on asyncio's transport, and nothing else.

nats-py takes about 20 µs a message, which on two cores the server under test would miss. This one writes what is to be
published as it comes and takes every message of a read in one pass (docs.nats.io, "Client Protocol"). It is no
general client: it trusts the server of the benchmark, and a lost connection ends the run.
"""

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["NatsConnection", "connect"]

OnMessage = Callable[[bytes, bytes, bytes], None]
"""subject, reply subject, payload; of a status without payload (`NATS/1.0 404 …`), its headers."""


class NatsConnection(asyncio.Protocol):
    """One connection. Made by `connect`."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._handlers: dict[bytes, OnMessage] = {}
        self._sids = 0
        self._pongs: list[asyncio.Future[None]] = []
        self._room = asyncio.Event()
        self._room.set()
        self.closing = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        # uvloop's transports have the methods and not the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=4 * 2**20)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self.closing:
            self._lost(f"NATS: the connection was lost: {exc}")

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take every whole message that has arrived."""
        buffer = self._buffer
        buffer += data
        position, length = 0, len(buffer)
        while True:
            end = buffer.find(b"\r\n", position)
            if end < 0:
                break
            if buffer.startswith((b"MSG ", b"HMSG "), position):
                fields = bytes(buffer[position:end]).split(b" ")
                after = end + 2 + int(fields[-1])
                if after + 2 > length:
                    break
                payload = bytes(buffer[end + 2 : after])
                if fields[0] == b"HMSG":
                    payload = payload[int(fields[-2]) :] or payload
                    del fields[-2]
                self._handlers[fields[2]](fields[1], fields[3] if len(fields) == 5 else b"", payload)
                position = after + 2
                continue
            line = bytes(buffer[position:end])
            position = end + 2
            if line == b"PING":
                self.write(b"PONG\r\n")
            elif line == b"PONG":
                self._pongs.pop(0).set_result(None)
            elif line.startswith(b"-ERR"):
                self._lost(f"NATS: {line.decode(errors='replace')}")
        if position:
            del buffer[:position]

    # ---- use

    def write(self, data: bytes) -> None:
        """Write protocol text."""
        assert self._transport is not None
        self._transport.write(data)

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> None:
        """Publish; see `drain` for backpressure."""
        assert self._transport is not None
        to = (
            b"PUB %b %b %d\r\n" % (subject, reply, len(payload))
            if reply
            else b"PUB %b %d\r\n" % (subject, len(payload))
        )
        self._transport.writelines((to, payload, b"\r\n"))

    def subscribe(self, subject: bytes, handler: OnMessage) -> bytes:
        """Subscribe; returns the subscription's id."""
        self._sids += 1
        sid = b"%d" % self._sids
        self._handlers[sid] = handler
        self.write(b"SUB %b %b\r\n" % (subject, sid))
        return sid

    async def flush(self) -> None:
        """Wait until the server has taken everything that was written."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.write(b"PING\r\n")
        await pong

    async def drain(self) -> None:
        """Wait until the kernel takes more."""
        await self._room.wait()

    def close(self) -> None:
        """Close."""
        self.closing = True
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int, lost: Callable[[str], None]) -> NatsConnection:
    """Connect.

    Args:
        host: the server's.
        port: the server's.
        lost: called with words when the connection breaks or the server complains.
    """
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: NatsConnection(lost), host, port)
    connection.write(
        b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"0",'
        b'"headers":true,"no_responders":true}\r\n'
    )
    await connection.flush()
    return connection
