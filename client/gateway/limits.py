"""The gateway's limits, in one place, and how its devices share them.

Every queue is bounded, for each device and for the link; what a device may always have (`sure`) no other can take away.
"""

from dataclasses import dataclass

from wire.limits import DEVICES_PER_LINK_MAX, FRAME_BYTES_MAX

__all__ = ["Budget", "GatewayLimits"]


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """How much a gateway holds; every number has its unit in its name."""

    devices_per_link_max: int = DEVICES_PER_LINK_MAX - 1
    """One key of a link is the gateway's own, which names the topic."""
    links_max: int = 64
    asked_commands_max: int = 1_024
    """Commands of one device that wait or are under way."""
    asked_bytes_max: int = 1_310_720
    """Their bytes: what a device has under way by itself (1 MiB), and one frame."""
    asked_link_bytes_max: int = 33_554_432
    """The same of all devices of a link, beyond what each may always have."""
    heard_bytes_max: int = 5_242_880
    """Answers and deliveries that a device has not taken; the relay delivers at most 4 MiB ahead of acks."""
    heard_link_bytes_max: int = 67_108_864
    window_commands: int = 3_072
    """Commands of a link that wait for the relay's answer; a relay takes 4,096."""
    window_bytes: int = 4_194_304
    """Bytes of them; a relay takes 8 MiB of a link."""
    device_window_commands: int = 1_024
    device_window_bytes: int = 1_048_576
    """One device's part of the window: what it has there unanswered leaves room for the others."""
    quantum_bytes: int = 8_192
    """What a device may say before the next one's turn, when a frame is filled."""
    prove_s: float = 3.0
    """How long a handshake waits for the devices' signatures; a relay waits 10 s."""
    gather_s: float = 0.25
    """How long a handshake waits for more devices that join at the same time."""
    gather_leaving_s: float = 5.0
    """How long a link that speaks for a device that has left goes on before it is made anew."""
    change_pause_s: float = 2.0
    """How often at most a standing link is made anew because devices come and go."""
    retry_after_ms: int = 1_000
    """What a device is asked to wait when its queue is full."""
    reconnect_first_s: float = 0.5
    reconnect_last_s: float = 30.0


class Budget:
    """Bytes that several share: each may have `sure` always, and up to `each_max` while the total allows it.

    Args:
        total_max: bytes of all together, not counting what each has for sure.
        each_max: bytes of one.
        sure: bytes that one may always have; at least the largest single item.
    """

    __slots__ = ("_each_max", "_sure", "_total_max", "total")

    def __init__(self, total_max: int, each_max: int, sure: int = FRAME_BYTES_MAX) -> None:
        self._total_max = total_max
        self._each_max = each_max
        self._sure = sure
        self.total = 0

    def fits(self, own: int, size: int) -> bool:
        """Whether one that holds `own` bytes may hold `size` more."""
        after = own + size
        return after <= self._sure or (after <= self._each_max and self.total + size <= self._total_max)

    def limit_of(self, own: int, size: int) -> int:
        """The limit that stands in the way, in bytes."""
        return self._each_max if own + size > self._each_max else self._total_max
