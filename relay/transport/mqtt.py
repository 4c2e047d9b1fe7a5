"""MQTT 3.1.1 at QoS 0 through any broker (protocol.md section 6.1).

Subscribes to `bp/R/+/up` and publishes to `bp/R/D/down`. QoS 0 is meant: the acknowledgement that counts is the relay's
receipt, after the commit, and a higher QoS would leave a second copy in the broker. The bytes of MQTT are left to
mqtt_connection.py.

Rules:
- a lost broker is looked for again without end, with a doubled, capped and jittered pause; meanwhile what is sent is
  dropped and counted, since the core repeats deliveries and devices repeat commands;
- `send` writes all packets of a batch at once and waits until the socket takes more: that is the backpressure.
"""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Sequence

from relay.tasks import end_tasks
from relay.transport import Packet, TransportCounters
from relay.transport.address import BrokerAddress
from relay.transport.inbox import Inbox
from relay.transport.mqtt_connection import MqttConnection, connect, publication
from wire.limits import FRAME_BYTES_MAX, ID_BYTES

RECONNECT_FIRST_S = 0.1
RECONNECT_LAST_S = 5.0
CONNECT_S_MAX = 5.0

WRITE_BYTES = 1_048_576
"""So much is handed to the socket before it is waited for."""

_UP = b"/up"
_DOWN = b"/down"
# Topics are read once: a device's tag is looked up by its topic's bytes from then on.
_TOPICS_KEPT = 32_768


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
        self._prefix = f"bp/{relay_id.hex()}/".encode()
        self._rng = rng
        self._tls = tls if tls is not None or not address.tls else ssl.create_default_context()
        self._inbox = Inbox(self.counters) if inbox is None else inbox
        self._connection: MqttConnection | None = None
        self._tags: dict[bytes, bytes] = {}
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
        connection = self._connection
        if connection is None:
            self.counters.dropped_offline += len(packets)
            return
        chunks: list[bytes] = []
        count = size = 0
        prefix = self._prefix
        for device_tag, packet in packets:
            if len(packet) > FRAME_BYTES_MAX:
                self.counters.dropped_oversize += 1
                continue
            chunks += publication(prefix + device_tag.hex().encode() + _DOWN, packet)
            count += 1
            size += len(packet)
            if size >= WRITE_BYTES:
                await self._write(connection, chunks, count)
                chunks, count, size = [], 0, 0
        if chunks:
            await self._write(connection, chunks, count)

    async def _write(self, connection: MqttConnection, chunks: list[bytes], count: int) -> None:
        try:
            await connection.send(chunks)
        except OSError:
            self.counters.dropped_offline += count
        else:
            self.counters.sent += count

    async def close(self) -> None:
        """Disconnect; what is still queued is dropped."""
        self._inbox.close()
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])

    def arrived(self, topic: bytes, packet: bytes) -> None:
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
        self._inbox.put(device_tag, packet)

    def _tag_of(self, topic: bytes) -> bytes | None:
        try:
            device_tag = bytes.fromhex(topic[len(self._prefix) : -len(_UP)].decode("ascii"))
        except ValueError:
            return None
        whole = self._prefix + device_tag.hex().encode() + _UP
        return device_tag if len(device_tag) == ID_BYTES and topic == whole else None

    def _oversize(self) -> None:
        self.counters.dropped_oversize += 1

    async def _stay_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            connected = self.counters.connections
            with contextlib.suppress(OSError, TimeoutError):
                await self._connect()
            if self.counters.connections > connected:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s * (0.5 + self._rng.random()))
            pause_s = min(2 * pause_s, RECONNECT_LAST_S)

    async def _connect(self) -> None:
        """One connection, from CONNECT until it is lost."""
        address = self._address
        async with asyncio.timeout(CONNECT_S_MAX) as connecting:
            connection = await connect(address.host, address.port, self._tls, self.arrived, self._oversize)
            try:
                await connection.open(f"relay-{self._rng.getrandbits(64):016x}", f"{self._prefix.decode()}+/up")
                connecting.reschedule(None)
                self._connection = connection
                self.counters.connections += 1
                self._linked.set()
                await asyncio.shield(connection.lost)
            finally:
                self._connection = None
                connection.close()
