"""A bounded queue of received packets, shared by the transports: filled without waiting, emptied in batches.

One wake-up of the relay takes all that has gathered, which is what lets one commit carry many envelopes. Bounded in
packets and in bytes; the transport counts what does not fit.
"""

import asyncio
from collections import deque

from relay.transport import Packet, TransportClosed, TransportCounters
from wire.limits import FRAME_BYTES_MAX

PACKETS_MAX = 4_096
BYTES_MAX = 64 * 1_048_576


class Inbox:
    """Packets that arrived and that the relay has not taken yet.

    Args:
        counters: where arrivals and drops are counted.
        packets_max: how many packets wait at most.
        bytes_max: how many bytes they hold at most.
    """

    def __init__(self, counters: TransportCounters, packets_max: int = PACKETS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._counters = counters
        self._packets: deque[Packet] = deque()
        self._bytes = 0
        self._packets_max = packets_max
        self._bytes_max = bytes_max
        self._closed = False
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, device_tag: bytes, packet: bytes) -> bool:
        """Queue a packet; False (and counted) when it is too large or the queue is full."""
        if len(packet) > FRAME_BYTES_MAX:
            self._counters.dropped_oversize += 1
            return False
        if self._closed or len(self._packets) >= self._packets_max or self._bytes + len(packet) > self._bytes_max:
            self._counters.dropped_full += 1
            return False
        self._packets.append((device_tag, packet))
        self._bytes += len(packet)
        self._counters.received += 1
        self._arrived.set()
        return True

    async def take(self, packets_max: int) -> list[Packet]:
        """Wait for packets, then take up to `packets_max`, oldest first.

        Raises:
            TransportClosed: when the queue was closed.
        """
        while not self._packets:
            if self._closed:
                raise TransportClosed("the transport is closed")
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._packets.popleft() for _ in range(min(packets_max, len(self._packets)))]
        self._bytes -= sum(len(packet) for _, packet in taken)
        return taken

    def close(self) -> None:
        """Wake whoever waits; what is queued is dropped."""
        self._closed = True
        self._packets.clear()
        self._bytes = 0
        self._arrived.set()
