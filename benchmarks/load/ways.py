"""Ways to the relay for the load: the topics of protocol.md section 6.1 on MQTT, or the same as subjects of NATS."""

import asyncio
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.load import mqtt, nats

__all__ = ["Way", "open_way"]

OnPacket = Callable[[bytes], None]


class Way(Protocol):
    """One broker connection that carries the topics of many devices."""

    async def listen(self, tag: bytes, on_packet: OnPacket) -> Callable[[bytes], None]:
        """Take a device's packets from now on; returns what sends one to the relay."""

    async def drain(self) -> None:
        """Wait until more can be written."""

    def close(self) -> None:
        """Close the connection."""


class NatsWay:
    """Subjects `bp.R.D.up` and `bp.R.D.down`. Meets `Way`."""

    def __init__(self, connection: nats.NatsConnection, relay_id: bytes) -> None:
        self._connection = connection
        self._relay = relay_id.hex().encode()

    async def listen(self, tag: bytes, on_packet: OnPacket) -> Callable[[bytes], None]:
        """See `Way.listen`."""
        name = b"bp.%b.%b" % (self._relay, tag.hex().encode())
        self._connection.subscribe(name + b".down", lambda subject, reply, payload: on_packet(payload))
        await self._connection.flush()
        up, publish = name + b".up", self._connection.publish
        return lambda packet: publish(up, packet)

    async def drain(self) -> None:
        """See `Way.drain`."""
        await self._connection.drain()

    def close(self) -> None:
        """See `Way.close`."""
        self._connection.close()


class MqttWay:
    """Topics `bp/R/D/up` and `bp/R/D/down` at QoS 0. Meets `Way`."""

    def __init__(self, relay_id: bytes) -> None:
        self._relay = relay_id.hex().encode()
        self._handlers: dict[bytes, OnPacket] = {}
        self._connection: mqtt.MqttConnection | None = None

    async def connect(self, host: str, port: int, client_id: bytes, lost: Callable[[str], None]) -> None:
        """Connect to the broker."""
        self._connection = await mqtt.connect(host, port, client_id, lost, self._arrived)

    def _arrived(self, topic: bytes, payload: bytes) -> None:
        handler = self._handlers.get(topic)
        if handler is not None:
            handler(payload)

    async def listen(self, tag: bytes, on_packet: OnPacket) -> Callable[[bytes], None]:
        """See `Way.listen`."""
        assert self._connection is not None
        name = b"bp/%b/%b" % (self._relay, tag.hex().encode())
        self._handlers[name + b"/down"] = on_packet
        await self._connection.subscribe(name + b"/down")
        up, publish = name + b"/up", self._connection.publish
        return lambda packet: publish(up, packet)

    async def drain(self) -> None:
        """See `Way.drain`."""
        assert self._connection is not None
        await self._connection.drain()

    def close(self) -> None:
        """See `Way.close`."""
        if self._connection is not None:
            self._connection.close()


async def open_way(broker: str, relay_id: bytes, client_id: bytes, lost: Callable[[str], None]) -> Way:
    """Connect to a broker by its URL, as the relay's card gives it.

    Args:
        broker: `mqtt://HOST:PORT` or `nats://HOST:PORT`.
        relay_id: names the topics.
        client_id: names this connection to an MQTT broker.
        lost: called with words when the connection breaks.
    """
    parts = urlsplit(broker)
    assert parts.hostname is not None
    assert parts.port is not None
    async with asyncio.timeout(20):
        if parts.scheme == "nats":
            return NatsWay(await nats.connect(parts.hostname, parts.port, lost), relay_id)
        way = MqttWay(relay_id)
        await way.connect(parts.hostname, parts.port, client_id, lost)
        return way
