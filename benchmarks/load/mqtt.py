"""An MQTT 3.1.1 client for load: QoS 0 and 1 on asyncio's transport, and nothing else.

aiomqtt over paho takes about 100 µs a message, which on two cores the server under test would miss. This one takes
every packet of a read in one pass (OASIS MQTT 3.1.1, sections 2.2 and 3). It is no general client: it trusts the broker
of the benchmark, and a lost connection ends the run.
"""

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["MqttConnection", "connect"]

OnMessage = Callable[[bytes, bytes], None]
"""topic, payload."""

_PINGREQ = b"\xc0\0"


class MqttConnection(asyncio.Protocol):
    """One connection. Made by `connect`."""

    def __init__(self, lost: Callable[[str], None], on_message: OnMessage) -> None:
        self._lost = lost
        self._on_message = on_message
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._answered: dict[int, asyncio.Future[int]] = {}
        self._packet_id = 0
        self.on_puback: Callable[[int], None] | None = None
        self.closing = False
        self._pinger: asyncio.TimerHandle | None = None

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        # uvloop's transports have the methods and not the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=4 * 2**20)
        self._ping()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._pinger is not None:
            self._pinger.cancel()
        if not self.closing:
            self._lost(f"MQTT: the connection was lost: {exc}")

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take every whole packet that has arrived."""
        buffer = self._buffer
        buffer += data
        position, length = 0, len(buffer)
        acks = bytearray()
        while length - position >= 2:
            size, shift, start = 0, 0, position + 1
            while start < length:
                byte = buffer[start]
                start += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break
            end = start + size
            if end > length:
                break
            self._packet(buffer[position], bytes(buffer[start:end]), acks)
            position = end
        if position:
            del buffer[:position]
        if acks and self._transport is not None:
            self._transport.write(bytes(acks))

    def _packet(self, head: int, rest: bytes, acks: bytearray) -> None:
        kind = head >> 4
        if kind == 3:
            topic_end = 2 + int.from_bytes(rest[:2], "big")
            topic = rest[2:topic_end]
            if head & 6:
                acks += b"\x40\x02" + rest[topic_end : topic_end + 2]
                topic_end += 2
            self._on_message(topic, rest[topic_end:])
        elif kind == 4:
            assert self.on_puback is not None
            self.on_puback(int.from_bytes(rest[:2], "big"))
        elif kind == 2:
            self._answered.pop(0).set_result(rest[1])
        elif kind in {9, 11}:
            self._answered.pop(int.from_bytes(rest[:2], "big")).set_result(rest[-1])

    # ---- use

    def publish(self, topic: bytes, payload: bytes, packet_id: int = 0) -> None:
        """Publish at QoS 0, or with an id at QoS 1; see `drain` for backpressure."""
        assert self._transport is not None
        size = 2 + len(topic) + len(payload) + (2 if packet_id else 0)
        head = (b"\x32" if packet_id else b"\x30") + _length(size) + len(topic).to_bytes(2, "big") + topic
        if packet_id:
            head += packet_id.to_bytes(2, "big")
        self._transport.writelines((head, payload))

    async def subscribe(self, *topics: bytes, qos: int = 0) -> None:
        """Subscribe, and wait until the broker has."""
        assert self._transport is not None
        self._packet_id += 1
        body = self._packet_id.to_bytes(2, "big")
        body += b"".join(len(topic).to_bytes(2, "big") + topic + bytes((qos,)) for topic in topics)
        answered = self._wait(self._packet_id)
        self._transport.write(b"\x82" + _length(len(body)) + body)
        if await answered > 2:
            self._lost("MQTT: a subscription was refused")

    async def _connect(self, client_id: bytes, clean: bool) -> None:
        assert self._transport is not None
        body = b"\0\x04MQTT\x04" + (b"\x02" if clean else b"\0") + (60).to_bytes(2, "big")
        body += len(client_id).to_bytes(2, "big") + client_id
        answered = self._wait(0)
        self._transport.write(b"\x10" + _length(len(body)) + body)
        if await answered:
            raise ConnectionError("MQTT: the broker refused the connection")

    def _wait(self, key: int) -> "asyncio.Future[int]":
        self._answered[key] = asyncio.get_running_loop().create_future()
        return self._answered[key]

    def _ping(self) -> None:
        assert self._transport is not None
        if self._pinger is not None:
            self._transport.write(_PINGREQ)
        self._pinger = asyncio.get_running_loop().call_later(20, self._ping)

    async def drain(self) -> None:
        """Wait until the kernel takes more."""
        await self._room.wait()

    def close(self) -> None:
        """Disconnect."""
        self.closing = True
        if self._transport is not None:
            self._transport.write(b"\xe0\0")
            self._transport.close()


def _length(size: int) -> bytes:
    """MQTT's variable-length number (section 2.2.3)."""
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        out.append(low | (128 if size else 0))
        if not size:
            return bytes(out)


async def connect(
    host: str,
    port: int,
    client_id: bytes,
    lost: Callable[[str], None],
    on_message: OnMessage,
    clean: bool = True,
) -> MqttConnection:
    """Connect.

    Args:
        host: the broker's.
        port: the broker's.
        client_id: names the session.
        lost: called with words when the connection breaks.
        on_message: called with topic and payload of each message.
        clean: without it the broker keeps the session and what arrives for it.
    """
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: MqttConnection(lost, on_message), host, port)
    await connection._connect(client_id, clean)
    return connection
