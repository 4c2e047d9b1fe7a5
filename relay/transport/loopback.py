"""A transport inside one process, for tests and simulations: a network of queues, as faulty as it is told to be.

`Network` stands for the broker. Its faults are drawn from a generator that is handed in, so one seed repeats one run.
Devices attach with `Network.device`; the relay's side is `Transport`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from relay.transport import Packet, TransportCounters
from relay.transport.inbox import PACKETS_MAX, Inbox


@dataclass(frozen=True, slots=True)
class Faults:
    """How often the network misbehaves, each a probability from 0 to 1 for each packet."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


class Network:
    """The broker's place: carries packets between devices and one relay, with faults.

    Args:
        rng: draws the faults; None for a network without any.
        faults: how often each kind happens.
        packets_max: bound of each queue.
    """

    def __init__(
        self, rng: random.Random | None = None, faults: Faults | None = None, packets_max: int = PACKETS_MAX
    ) -> None:
        self.counters = TransportCounters()
        self._rng = rng
        self._faults = faults or Faults()
        self._packets_max = packets_max
        self._relay: Inbox | None = None
        self._devices: dict[bytes, Inbox] = {}
        self._held: list[tuple[Inbox, bytes, bytes]] = []

    def attach(self, counters: TransportCounters) -> Inbox:
        """The relay's queue; a later relay takes the place of the one before, as a reconnecting client does."""
        self._relay = Inbox(counters, self._packets_max)
        return self._relay

    def detach(self, inbox: Inbox) -> None:
        """Take the relay's queue away, unless another relay has replaced it already."""
        if self._relay is inbox:
            self._relay = None
        self._held = [held for held in self._held if held[0] is not inbox]

    def device(self, device_tag: bytes) -> "DevicePort":
        """Attach a device; attaching again replaces its queue."""
        inbox = Inbox(TransportCounters(), self._packets_max)
        self._devices[device_tag] = inbox
        return DevicePort(self, device_tag, inbox)

    def up(self, device_tag: bytes, packet: bytes) -> None:
        """Carry a packet from a device to the relay."""
        self._carry(self._relay, device_tag, packet)

    def down(self, device_tag: bytes, packet: bytes) -> None:
        """Carry a packet from the relay to a device."""
        self._carry(self._devices.get(device_tag), device_tag, packet)

    def _carry(self, inbox: Inbox | None, device_tag: bytes, packet: bytes) -> None:
        if inbox is None:
            self.counters.dropped_offline += 1
            return
        copies = 1
        if self._rng is not None:
            if self._rng.random() < self._faults.drop:
                self.counters.dropped_full += 1
                return
            copies += self._rng.random() < self._faults.duplicate
            if self._rng.random() < self._faults.reorder:
                self._held.append((inbox, device_tag, packet))
                return
        for _ in range(copies):
            inbox.put(device_tag, packet)
        held, self._held = self._held, []
        for late_inbox, late_tag, late_packet in held:
            late_inbox.put(late_tag, late_packet)


class DevicePort:
    """A device's side of the network."""

    def __init__(self, network: Network, device_tag: bytes, inbox: Inbox) -> None:
        self._network = network
        self._inbox = inbox
        self.device_tag = device_tag

    async def send(self, packet: bytes) -> None:
        """Send a packet to the relay."""
        self._network.up(self.device_tag, packet)

    async def receive(self) -> bytes:
        """Wait for the next packet from the relay."""
        return (await self._inbox.take(1))[0][1]


class Transport:
    """The relay's side of a `Network`. Meets `RelayTransport`."""

    def __init__(self, network: Network) -> None:
        self.counters = TransportCounters()
        self._network = network
        self._inbox = Inbox(self.counters)

    async def start(self) -> None:
        """Attach to the network."""
        self._inbox = self._network.attach(self.counters)
        self.counters.connections += 1

    async def receive(self, packets_max: int) -> list[Packet]:
        """Wait for packets from devices; see `RelayTransport.receive`."""
        return await self._inbox.take(packets_max)

    async def send(self, packets: Sequence[Packet]) -> None:
        """Hand packets to the network."""
        for device_tag, packet in packets:
            self._network.down(device_tag, packet)
        self.counters.sent += len(packets)

    async def close(self) -> None:
        """Detach; packets that are under way are lost, as they would be."""
        self._network.detach(self._inbox)
        self._inbox.close()
