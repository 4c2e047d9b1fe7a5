"""A bounded queue of received packets, shared by the transports: filled without waiting, emptied in batches.

One wake-up of the relay takes all that has gathered, which is what lets one commit carry many envelopes. Bounded in
packets and in bytes; the transport counts what does not fit.

Rules: senders take turns, so that one that floods the queue does not hold up the others; when the queue is full, a
packet of somebody who has less than an equal part of it pushes out the newest of somebody who has more.
"""

import asyncio
from collections import deque

from relay.transport import Packet, TransportClosed, TransportCounters
from wire.limits import FRAME_BYTES_MAX

PACKETS_MAX = 4_096
BYTES_MAX = 64 * 1_048_576
TURN_PACKETS = 16
TURN_BYTES = 65_536
"""So many packets, or bytes, of one sender are taken before the next sender's; a larger packet is a turn."""
TAKE_BYTES = 262_144
"""After so many bytes no more is taken at once, so that the relay's other parts have their turn."""


class _Sender:
    """Packets of one sender, and what they weigh."""

    __slots__ = ("packets", "weight")

    def __init__(self) -> None:
        self.packets: deque[bytes] = deque()
        self.weight = 0


class Inbox:
    """Packets that arrived and that the relay has not taken yet.

    Args:
        counters: where arrivals and drops are counted.
        packets_max: how many packets wait at most.
        bytes_max: how many bytes they hold at most.
    """

    def __init__(self, counters: TransportCounters, packets_max: int = PACKETS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._counters = counters
        self._senders: dict[bytes, _Sender] = {}
        self._turns: deque[bytes] = deque()
        self._count = 0
        # A packet weighs its bytes, and at least this, so that one sum keeps both bounds.
        self._least = max(1, bytes_max // packets_max)
        self._weight = 0
        self._weight_max = self._least * packets_max
        self._closed = False
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return self._count

    def put(self, device_tag: bytes, packet: bytes) -> bool:
        """Queue a packet; False (and counted) when it is too large or the queue is full."""
        size = len(packet)
        if size > FRAME_BYTES_MAX:
            self._counters.dropped_oversize += 1
            return False
        weight = size if size > self._least else self._least
        if self._closed or (self._weight + weight > self._weight_max and not self._make_room(device_tag, weight)):
            self._counters.dropped_full += 1
            return False
        sender = self._senders.get(device_tag)
        if sender is None:
            sender = self._senders[device_tag] = _Sender()
            self._turns.append(device_tag)
        sender.packets.append(packet)
        sender.weight += weight
        self._weight += weight
        self._count += 1
        self._counters.received += 1
        self._arrived.set()
        return True

    def _make_room(self, device_tag: bytes, weight: int) -> bool:
        """Push out what others have beyond an equal part, if this sender has less; tell whether there is room now."""
        own = self._senders.get(device_tag)
        turns = self._turns
        part = self._weight_max // (len(turns) + (own is None))
        if (own.weight if own is not None else 0) + weight > part:
            return False
        for _ in range(len(turns)):
            other = self._senders[turns[0]]
            while other is not own and other.weight > part and self._weight + weight > self._weight_max:
                size = len(other.packets.pop())
                pushed_out = max(size, self._least)
                other.weight -= pushed_out
                self._weight -= pushed_out
                self._count -= 1
                self._counters.received -= 1
                self._counters.dropped_full += 1
            if self._weight + weight <= self._weight_max:
                return True
            turns.rotate(-1)
        return False

    async def take(self, packets_max: int) -> list[Packet]:
        """Wait for packets, then take up to `packets_max`, of each sender the oldest first.

        Raises:
            TransportClosed: when the queue was closed.
        """
        while not self._count:
            if self._closed:
                raise TransportClosed("the transport is closed")
            self._arrived.clear()
            await self._arrived.wait()
        taken: list[Packet] = []
        turns, senders, least = self._turns, self._senders, self._least
        room = min(packets_max, self._count)
        bytes_left = TAKE_BYTES
        while room and bytes_left > 0:
            device_tag = turns.popleft()
            sender = senders[device_tag]
            packets = sender.packets
            turn_bytes = TURN_BYTES
            for _ in range(min(room, TURN_PACKETS, len(packets))):
                packet = packets.popleft()
                size = len(packet)
                weight = size if size > least else least
                sender.weight -= weight
                self._weight -= weight
                room -= 1
                taken.append((device_tag, packet))
                turn_bytes -= size
                if turn_bytes <= 0:
                    break
            bytes_left -= TURN_BYTES - turn_bytes
            if packets:
                turns.append(device_tag)
            else:
                del senders[device_tag]
        self._count -= len(taken)
        return taken

    def close(self) -> None:
        """Wake whoever waits; what is queued is dropped."""
        self._closed = True
        self._senders.clear()
        self._turns.clear()
        self._count = self._weight = 0
        self._arrived.set()
