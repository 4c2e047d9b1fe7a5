"""MQTT 3.1.1 at QoS 0 through any broker, with aiomqtt (protocol.md section 6.1).

Subscribes to `bp/R/+/up` and publishes to `bp/R/D/down`. QoS 0 is meant: the acknowledgement that counts is the relay's
receipt, after the commit, and a higher QoS would leave a second copy in the broker.

Rules:
- a lost broker is looked for again without end, with a doubled, capped and jittered pause; meanwhile what is sent is
  dropped and counted, since the core repeats deliveries and devices repeat commands;
- a broker that refuses the subscription, or takes nothing for `WRITE_S_MAX`, counts as lost;
- arriving packets skip aiomqtt's queue of messages: its `queue_type` is ours, which puts them where `receive`
  takes batches;
- `send` queues all packets of a batch and waits for the last one to have been written: that is the backpressure, and
  no more than one batch waits inside the client.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Sequence
from typing import cast

import aiomqtt

from relay.tasks import end_tasks
from relay.transport import Packet, TransportCounters
from relay.transport.address import BrokerAddress
from relay.transport.buffered import ReadAheadSocket, read_ahead
from relay.transport.inbox import Inbox
from wire.limits import FRAME_BYTES_MAX, ID_BYTES

RECONNECT_FIRST_S = 0.1
RECONNECT_LAST_S = 5.0
KEEPALIVE_S = 30
CONNECT_S_MAX = 5.0
WRITE_S_MAX = 30.0
REFUSED = 0x80
"""From here on a broker's answer to a subscription is a refusal (MQTT 3.1.1, section 3.9.3)."""

_QUEUED = 0
"""paho's MQTT_ERR_SUCCESS."""

_UP = "/up"
_DOWN = "/down"
# Topics are read once: a device's tag is looked up by its topic from then on.
_TOPICS_KEPT = 32_768

# aiomqtt and paho name topics and clients in their messages: none of it may reach a log (protocol.md section 10).
_silent = logging.getLogger("relay.transport.mqtt")
_silent.setLevel(logging.CRITICAL + 1)
_silent.propagate = False


class _ArrivalQueue(asyncio.Queue[aiomqtt.Message]):
    """What aiomqtt takes for its queue of messages: hands each on at once, and stays empty."""

    def __init__(self, transport: "Transport") -> None:
        super().__init__()
        self._transport = transport

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._transport.arrived(item.topic.value, item.payload)


class Transport:
    """The relay's side of a broker. Meets `RelayTransport`.

    Args:
        address: the broker.
        relay_id: names the topics (16 bytes).
        rng: jitters the pauses between attempts to connect; no secret depends on it.
        tls: the context for `mqtts`; the system's authorities when None.
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
        self._prefix = f"bp/{relay_id.hex()}/"
        self._rng = rng
        self._tls = tls if tls is not None or not address.tls else ssl.create_default_context()
        self._inbox = Inbox(self.counters) if inbox is None else inbox
        self._client: aiomqtt.Client | None = None
        self._tags: dict[str, bytes] = {}
        self._linked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and subscribe; waits for the broker as long as it takes."""
        if self._task is None:
            self._task = asyncio.create_task(self._stay_connected(), name="mqtt")
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
        sendable = [packet for packet in packets if len(packet[1]) <= FRAME_BYTES_MAX]
        self.counters.dropped_oversize += len(packets) - len(sendable)
        if not sendable:
            return
        *most, (last_tag, last) = sendable
        # paho's own publish only queues; aiomqtt's awaits each packet alone, which costs a turn of the loop for each.
        publish = client._client.publish
        sent = 0
        try:
            for device_tag, packet in most:
                sent += publish(f"{self._prefix}{device_tag.hex()}{_DOWN}", packet).rc == _QUEUED
            await client.publish(f"{self._prefix}{last_tag.hex()}{_DOWN}", last, timeout=WRITE_S_MAX)
            sent += 1
        except aiomqtt.MqttError:
            self._hang_up(client)
        self.counters.sent += sent
        self.counters.dropped_offline += len(sendable) - sent

    def _hang_up(self, client: aiomqtt.Client) -> None:
        """End a connection that is lost already, or whose broker has taken nothing for too long."""
        if self._client is client:
            self._client = None
        connected = cast("socket.socket | ReadAheadSocket | None", client._client.socket())
        # The client's own `disconnect` would wait for the broker to take its last words.
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Disconnect; what is still queued is dropped."""
        self._inbox.close()
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])

    def arrived(self, topic: str, packet: object) -> None:
        """Take one message of the broker: from a device's topic and small enough, or dropped and counted."""
        device_tag = self._tags.get(topic)
        if device_tag is None:
            device_tag = self._tag_of(topic)
            if device_tag is None:
                self.counters.dropped_malformed += 1
                return
            if len(self._tags) >= _TOPICS_KEPT:
                self._tags.clear()
            self._tags[topic] = device_tag
        self._inbox.put(device_tag, bytes(cast("bytes | bytearray", packet)))

    def _tag_of(self, topic: str) -> bytes | None:
        try:
            device_tag = bytes.fromhex(topic[len(self._prefix) : -len(_UP)])
        except ValueError:
            return None
        whole = f"{self._prefix}{device_tag.hex()}{_UP}"
        return device_tag if len(device_tag) == ID_BYTES and topic == whole else None

    async def _stay_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            connected = self.counters.connections
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                await self._connect()
            if self.counters.connections > connected:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s * (0.5 + self._rng.random()))
            pause_s = min(2 * pause_s, RECONNECT_LAST_S)

    async def _connect(self) -> None:
        """One connection, from CONNECT until it is lost."""
        client = aiomqtt.Client(
            self._address.host,
            self._address.port,
            logger=_silent,
            identifier=f"relay-{self._rng.getrandbits(64):016x}",
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", lambda maxsize: _ArrivalQueue(self)),
            clean_session=True,
            timeout=CONNECT_S_MAX,
            keepalive=KEEPALIVE_S,
            tls_context=self._tls,
        )
        read_ahead(client)
        try:
            async with client:
                granted = await client.subscribe(f"{self._prefix}+/up", qos=0)
                if any((code if isinstance(code, int) else code.value) >= REFUSED for code in granted):
                    raise aiomqtt.MqttError("the broker refused the subscription")
                self._client = client
                self.counters.connections += 1
                self._linked.set()
                # Our queue never yields, so this waits for the connection to be lost, and raises then.
                async for _ in client.messages:
                    raise AssertionError("the queue of arrivals yields nothing")
        finally:
            self._client = None
