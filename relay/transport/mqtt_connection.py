"""One connection to an MQTT 3.1.1 broker at QoS 0: CONNECT, one SUBSCRIBE, PUBLISH both ways, PING, and nothing else.

The relay's side only, where each packet costs; devices use aiomqtt. paho-mqtt, under aiomqtt, takes 15 µs for a packet
that it receives and 23 for one that it sends, gmqtt 5 and 7; this takes 1 and 3 (docs/performance.md).

Rules (OASIS MQTT 3.1.1):
- a packet is read once it is there whole; a longer one than a frame on a topic can be is skipped as it arrives, so
  that memory is bounded; a length that is none, or an answer that refuses, ends the connection;
- a broker that says nothing for two keepalives is lost, and so is one that takes nothing for `WRITE_S_MAX`;
- nothing of topics and payloads is ever in an error, and nothing is logged (protocol.md section 10).
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast

from wire.limits import FRAME_BYTES_MAX

__all__ = ["MqttConnection", "connect", "publication"]

KEEPALIVE_S = 30.0
WRITE_S_MAX = 30.0
CLOSE_S_MAX = 2.0
WRITE_BUFFER_BYTES = 1_048_576

# A topic of ours has 71 bytes; a device's frame that is too long is still to be counted as such, not skipped.
_PACKET_BYTES_MAX: Final = FRAME_BYTES_MAX + 1_024
_LENGTH_BYTES_MAX: Final = 4
_CONNACK: Final = 2
_PUBLISH: Final = 3
_SUBACK: Final = 9
_REFUSED: Final = 0x80
_PINGREQ: Final = b"\xc0\x00"
_DISCONNECT: Final = b"\xe0\x00"
_SUBSCRIPTION_ID: Final = b"\x00\x01"


class MqttConnection(asyncio.Protocol):
    """The connection, from `connect` until `lost` is done.

    Args:
        arrived: called with topic and payload of each message; must not raise.
        oversize: called for each packet that was skipped.
    """

    def __init__(self, arrived: Callable[[bytes, bytes], None], oversize: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._arrived = arrived
        self._oversize = oversize
        self._transport: asyncio.Transport | None = None
        self._connack: asyncio.Future[bytes] = loop.create_future()
        self._suback: asyncio.Future[bytes] = loop.create_future()
        self._parts: list[bytes] = []
        self._have = 0
        self._want = 0
        self._skip = 0
        self._room = asyncio.Event()
        self._room.set()
        self._heard = False
        self._pinger: asyncio.TimerHandle | None = None

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        # uvloop's transports are asyncio's by what they do, not by type.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._pinger is not None:
            self._pinger.cancel()
        self._room.set()
        for future in (self._connack, self._suback):
            if not future.done():
                future.set_exception(ConnectionResetError("the broker closed the connection"))
            if not future.cancelled():
                # Whoever has stopped waiting needs no warning about it.
                future.exception()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take all whole packets, keep the rest."""
        self._heard = True
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._want:
                return
            data = b"".join(self._parts)
            self._parts = []
        self._take(data)

    def _take(self, data: bytes) -> None:
        position, end = 0, len(data)
        while position < end:
            head, start = position, position + 1
            length = shift = 0
            while start < end:
                byte = data[start]
                start += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
                if shift == 7 * _LENGTH_BYTES_MAX:
                    self.abort()
                    return
            else:
                self._keep(data[head:], end - head + 1)
                return
            position = start + length
            if length > _PACKET_BYTES_MAX:
                self._oversize()
                self._skip = max(0, position - end)
            elif position > end:
                self._keep(data[head:], position - head)
                return
            else:
                self._packet(data[head] >> 4, data, start, position)

    def _keep(self, rest: bytes, want: int) -> None:
        self._parts = [rest]
        self._have = len(rest)
        self._want = want

    def _packet(self, kind: int, data: bytes, start: int, end: int) -> None:
        if kind == _PUBLISH:
            # At QoS 0, as subscribed, no packet id stands between topic and payload.
            payload = start + 2 + (data[start] << 8 | data[start + 1]) if end - start >= 2 else end + 1
            if payload > end:
                self.abort()
                return
            self._arrived(data[start + 2 : payload], data[payload:end])
        elif kind == _CONNACK and not self._connack.done():
            self._connack.set_result(data[start:end])
        elif kind == _SUBACK and not self._suback.done():
            self._suback.set_result(data[start:end])

    # ---- what the transport calls

    async def open(self, client_id: str, topic_filter: str) -> None:
        """Say CONNECT and SUBSCRIBE, and wait until both are granted.

        Raises:
            ConnectionError: refused, or lost.
        """
        keepalive = int(2 * KEEPALIVE_S).to_bytes(2, "big")
        self._write(_packet(0x10, b"\x00\x04MQTT\x04\x02" + keepalive + _string(client_id.encode())))
        if (await self._connack)[1:] != b"\x00":
            raise ConnectionRefusedError("the broker refused the connection")
        self._write(_packet(0x82, _SUBSCRIPTION_ID + _string(topic_filter.encode()) + b"\x00"))
        answer = await self._suback
        if answer[:2] != _SUBSCRIPTION_ID or len(answer) != len(_SUBSCRIPTION_ID) + 1 or answer[2] >= _REFUSED:
            raise ConnectionRefusedError("the broker refused the subscription")
        self._heard = True
        self._ping()

    async def send(self, chunks: Sequence[bytes]) -> None:
        """Write publications; returns when the socket takes more.

        Raises:
            ConnectionError: it is lost.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the broker closed the connection")
        self._transport.writelines(chunks)
        if self._room.is_set():
            return
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                await self._room.wait()
        except TimeoutError:
            self.abort()
        if self.lost.done() or self._transport.is_closing():
            raise ConnectionResetError("the broker closed the connection")

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say DISCONNECT, and end the connection when what was written has left."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(_DISCONNECT)
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_S_MAX, self.abort)

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the broker closed the connection")
        self._transport.write(data)

    def _ping(self) -> None:
        if self.lost.done():
            return
        if not self._heard:
            self.abort()
            return
        self._heard = False
        self._write(_PINGREQ)
        self._pinger = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._ping)


async def connect(
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    arrived: Callable[[bytes, bytes], None],
    oversize: Callable[[], None],
) -> MqttConnection:
    """Connect the socket, over TLS if a context is given.

    Raises:
        OSError: it cannot be connected.
    """
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: MqttConnection(arrived, oversize), host, port, ssl=tls)
    return connection


def publication(topic: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A PUBLISH at QoS 0, as two chunks so that the payload is not copied."""
    return b"\x30" + _length(2 + len(topic) + len(payload)) + len(topic).to_bytes(2, "big") + topic, payload


def _packet(head: int, rest: bytes) -> bytes:
    return bytes((head,)) + _length(len(rest)) + rest


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
