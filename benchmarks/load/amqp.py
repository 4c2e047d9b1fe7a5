"""An AMQP 0-9-1 client for load: publish with confirms, consume, acknowledge, on asyncio's transport, and nothing else.

pika takes about 60 µs a message, which would be the client's speed and not RabbitMQ's. Frames are written and read as
the specification draws them (AMQP 0-9-1, sections 2.3 and 4.2). It is no general client: it trusts the server of the
benchmark, uses one channel, and a closed channel or connection ends the run with the server's words.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

__all__ = ["AmqpConnection", "connect"]

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_CONFIRM_ACK = (60, 80)
_DELIVER = (60, 60)
_NACK = (60, 120)
_PERSISTENT = struct.pack(">HB", 0x1000, 2)

OnDelivery = Callable[[bytes, int, bytes], None]
"""consumer tag, delivery tag, body."""


class AmqpConnection(asyncio.Protocol):
    """One connection with channel 1. Made by `connect`."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._answers: list[tuple[tuple[int, int], asyncio.Future[bytes]]] = []
        self._room = asyncio.Event()
        self._room.set()
        self._tag = 0
        self._delivery: tuple[bytes, int] | None = None
        self._body_left = 0
        self._body = b""
        self.published = 0
        self.confirmed = 0
        self.on_confirmed: Callable[[int], None] | None = None
        self.on_delivery: OnDelivery | None = None
        self._out_of_turn: set[int] = set()
        self.closing = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        # uvloop's transports have the methods and not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self.closing:
            self._lost(f"AMQP: the connection was lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take every whole frame that has arrived."""
        buffer = self._buffer
        buffer += data
        position, length = 0, len(buffer)
        while length - position >= 8:
            kind, size = buffer[position], int.from_bytes(buffer[position + 3 : position + 7], "big")
            end = position + 7 + size
            if end >= length:
                break
            self._frame(kind, bytes(buffer[position + 7 : end]))
            position = end + 1
        if position:
            del buffer[:position]

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == _METHOD:
            self._method(struct.unpack_from(">HH", payload), payload)
        elif kind == _HEADER:
            self._body_left = int.from_bytes(payload[4:12], "big")
            self._body = b""
        elif kind == _BODY:
            self._body += payload
            self._body_left -= len(payload)
            if not self._body_left and self._delivery is not None and self.on_delivery is not None:
                (consumer, tag), self._delivery = self._delivery, None
                self.on_delivery(consumer, tag, self._body)

    def _method(self, method: tuple[int, ...], payload: bytes) -> None:
        if method == _DELIVER:
            size = payload[4]
            self._delivery = payload[5 : 5 + size], int.from_bytes(payload[5 + size : 13 + size], "big")
        elif method == _CONFIRM_ACK:
            self._confirm(int.from_bytes(payload[4:12], "big"), multiple=bool(payload[12]))
        elif self._answers and self._answers[0][0] == method:
            self._answers.pop(0)[1].set_result(payload)
        elif method in {(10, 50), (20, 40), _NACK}:
            self._lost(f"AMQP: the server refused: {payload[6:200]!r}")

    def _confirm(self, tag: int, multiple: bool) -> None:
        # Confirms come out of turn; how many are new is all that a window needs.
        new = 0
        if multiple:
            new = tag - self.confirmed - sum(1 for one in self._out_of_turn if one <= tag)
            self._out_of_turn = {one for one in self._out_of_turn if one > tag}
            self.confirmed = tag
        else:
            self._out_of_turn.add(tag)
            new = 1
        while self.confirmed + 1 in self._out_of_turn:
            self.confirmed += 1
            self._out_of_turn.remove(self.confirmed)
        if self.on_confirmed is not None and new > 0:
            self.on_confirmed(new)

    # ---- use

    def _write(self, channel: int, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(struct.pack(">BHI", _METHOD, channel, len(payload)) + payload + _END)

    async def _ask(self, channel: int, payload: bytes, answer: tuple[int, int]) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers.append((answer, future))
        if payload:
            self._write(channel, payload)
        async with asyncio.timeout(60):
            return await future

    async def _begin(self) -> None:
        assert self._transport is not None
        self._transport.write(b"AMQP\0\0\x09\x01")
        await self._ask(0, b"", (10, 10))
        plain = b"\0guest\0guest"
        start_ok = struct.pack(">HHI", 10, 11, 0) + _short(b"PLAIN") + _long(plain) + _short(b"en_US")
        await self._ask(0, start_ok, (10, 30))
        # No heartbeat: a benchmark is short, and its loop may be busy.
        self._write(0, struct.pack(">HHHIH", 10, 31, 2_047, 131_072, 0))
        await self._ask(0, struct.pack(">HH", 10, 40) + _short(b"/") + b"\0\0", (10, 41))
        await self._ask(1, struct.pack(">HH", 20, 10) + b"\0", (20, 11))

    async def confirm_select(self) -> None:
        """Have every publication confirmed."""
        await self._ask(1, struct.pack(">HHB", 85, 10, 0), (85, 11))

    async def declare(self, queue: bytes, kind: bytes) -> None:
        """Declare a durable queue of a kind: `classic` or `quorum`."""
        table = _short(b"x-queue-type") + b"S" + _long(kind)
        arguments = struct.pack(">HHH", 50, 10, 0) + _short(queue) + b"\x02" + _long(table)
        await self._ask(1, arguments, (50, 11))

    async def consume(self, queue: bytes, prefetch: int) -> None:
        """Be given the queue's messages, so many unacknowledged at most; see `on_delivery`."""
        await self._ask(1, struct.pack(">HHIHB", 60, 10, 0, prefetch, 0), (60, 11))
        await self._ask(
            1, struct.pack(">HHH", 60, 20, 0) + _short(queue) + _short(queue) + b"\0" + _long(b""), (60, 21)
        )

    def publish(self, queue: bytes, body: bytes) -> None:
        """Publish a persistent message through the default exchange."""
        assert self._transport is not None
        method = struct.pack(">HHH", 60, 40, 0) + b"\0" + _short(queue) + b"\0"
        header = struct.pack(">HHQ", 60, 0, len(body)) + _PERSISTENT
        self.published += 1
        self._transport.writelines(
            (
                struct.pack(">BHI", _METHOD, 1, len(method)) + method + _END,
                struct.pack(">BHI", _HEADER, 1, len(header)) + header + _END,
                struct.pack(">BHI", _BODY, 1, len(body)),
                body,
                _END,
            )
        )

    def acknowledge(self, tag: int) -> None:
        """Acknowledge this delivery and all before it."""
        self._write(1, struct.pack(">HHQB", 60, 80, tag, 1))

    async def close(self) -> None:
        """Close, and wait until the server has taken everything that was written before."""
        self.closing = True
        await self._ask(0, struct.pack(">HHH", 10, 50, 200) + _short(b"") + b"\0\0\0\0", (10, 51))
        if self._transport is not None:
            self._transport.close()


def _short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def _long(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


async def connect(port: int, lost: Callable[[str], None]) -> AmqpConnection:
    """Connect to RabbitMQ on loopback as its guest."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: AmqpConnection(lost), "127.0.0.1", port)
    await connection._begin()
    return connection
