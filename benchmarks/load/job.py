"""What a load process is told and what it tells: one line of JSON each, on its standard input and output.

    ──▶ Job                     ◀── {"phase": "ready"}          devices are enrolled, envelopes are made
    ──▶ "submit"                ◀── {"phase": "submitted"}      everything is receipted
    ──▶ "drain"                 ◀── {"phase": "drained"}        everything has arrived and is acknowledged
    ──▶ "finish"                ◀── {"phase": "finished", "result": …}

In between it may say `{"progress": n}`; a failure ends it with `{"failed": "LostOrDoubled: …"}`.
"""

import msgspec

__all__ = ["Job", "LoadResult", "Said"]


class Job(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One load process's part of a run. The admin seed is made for the run and worth nothing after it."""

    name: str
    broker: str
    relay_id: str
    relay_key: str
    admin_seed: str
    seed: int
    messages: int
    senders: int
    recipients: int
    idle_devices: int = 0
    """Devices that are linked and subscribed, and to which nobody writes."""
    devices_a_link: int = 250
    senders_a_link: int = 20
    content_bytes: int = 1_024
    envelopes_a_frame: int = 1
    envelopes_a_submit: int = 1
    window: int = 64
    """Envelopes that a sender may have unacknowledged, in a closed loop."""
    online: bool = True
    """Whether the recipients are subscribed while the senders send."""
    recipients_alone: bool = False
    """Whether each recipient makes a connection and a link of its own to drain, instead of through gateways."""
    credit: int = 1_024
    rate_per_s: float = 0.0
    """Envelopes a second in an open loop; 0: a closed loop."""
    acknowledge: bool = True
    stall_s: float = 120.0
    """How long nothing at all may be sent, receipted or delivered: then what is missing is lost."""
    linger: bool = False
    """Leave what was sent where it is: nothing is drained."""

    def __repr__(self) -> str:
        return f"Job(name={self.name!r}, messages={self.messages}, admin_seed=<redacted>)"


class LoadResult(msgspec.Struct, kw_only=True):
    """What one load process measured; times are of the machine's monotonic clock."""

    sent: int
    delivered: int
    submit_start_ns: int
    submitted_ns: int
    first_delivery_start_ns: int
    """When draining began, or submitting, where recipients were online."""
    delivered_ns: int
    submit_cpu_s: float
    drain_cpu_s: float
    frames: int
    refusals: dict[str, int]
    repeats: int
    redelivered: int
    receipt_us: list[tuple[int, int]] = []
    """Histogram: from when an envelope was due to its receipt."""
    delivery_us: list[tuple[int, int]] = []
    """Histogram: from when an envelope was due to its arrival."""
    late_us: list[tuple[int, int]] = []
    """Histogram: from when an envelope was due to when this load sent it."""


class Said(msgspec.Struct, kw_only=True):
    """One line of a load process."""

    phase: str = ""
    progress: int = -1
    failed: str = ""
    result: LoadResult | None = None
