"""How packets reach the relay and leave it: one interface, met by loopback (in process) and mqtt (any broker).

A transport moves whole packets (protocol.md section 6.2) between device topics and the relay. It promises
nothing: it may lose, double and reorder, and what it loses is counted here and repeated by whoever sent it. It
looks into no packet.

Rules:
- packets in either direction wait in bounded queues; what does not fit is dropped and counted, never kept
  without bound;
- a packet above the frame limit (protocol.md section 1.7) is dropped and counted, in either direction;
- a device is named by its tag, 16 bytes (protocol.md section 6.1), never by an address.

The modules hold the same names in the same order (`Transport`: start, receive, send, close) and inherit nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from wire.errors import BlindpostError

Packet: TypeAlias = tuple[bytes, bytes]
"""(device tag, packet): from that device when received, for it when sent."""


class TransportClosed(BlindpostError):
    """The transport was closed: nothing more will be received."""


@dataclass(slots=True)
class TransportCounters:
    """What a transport moved and what it dropped, by reason; figures only, no identifiers."""

    received: int = 0
    sent: int = 0
    dropped_full: int = 0
    dropped_oversize: int = 0
    dropped_malformed: int = 0
    dropped_offline: int = 0
    connections: int = 0


class RelayTransport(Protocol):
    """What the service needs of a transport."""

    counters: TransportCounters

    async def start(self) -> None:
        """Take packets from now on; returns when devices can reach the relay."""

    async def receive(self, packets_max: int) -> list[Packet]:
        """Wait for packets and return 1 to `packets_max` of them, oldest first.

        Raises:
            TransportClosed: after `close`.
        """

    async def send(self, packets: Sequence[Packet]) -> None:
        """Hand packets on, in order; returns when the next ones may be given (backpressure), not when they arrived."""

    async def close(self) -> None:
        """Stop; what is still queued is dropped. Safe to call twice."""
