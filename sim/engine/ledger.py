"""What really happened, kept outside the relay: every message, every envelope, every receipt, every showing.

It is the judge of a run: the relay never sees it, and no assertion asks the relay.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

__all__ = ["COLUMNS", "Hour", "Ledger", "Message", "Sent"]


class Message:
    """One message of one person, to one or several."""

    __slots__ = ("content_bytes", "kind", "number", "person", "to", "written_ms")

    def __init__(
        self, number: int, person: int, to: tuple[int, ...], kind: int, content_bytes: int, written_ms: int
    ) -> None:
        self.number = number
        self.person = person
        self.to = to
        self.kind = kind
        self.content_bytes = content_bytes
        self.written_ms = written_ms


class Sent:
    """One envelope that was handed to the network.

    `parts` is how many envelopes the message has for that device; it is shown when all are there. `check` is a CRC-32
    of the body: what the stand-in for decryption compares. `message_id` is the client's, in a real run.
    """

    __slots__ = (
        "check",
        "device",
        "envelope_id",
        "expiry_s",
        "message",
        "message_id",
        "parts",
        "receipted",
        "shown",
        "token",
        "withdrawn",
    )

    def __init__(
        self,
        message: Message,
        device: int,
        token: bytes,
        envelope_id: bytes,
        expiry_s: int,
        check: int,
        parts: int,
    ) -> None:
        self.message = message
        self.device = device
        self.token = token
        self.envelope_id = envelope_id
        self.expiry_s = expiry_s
        self.check = check
        self.parts = parts
        self.message_id = b""
        self.receipted = False
        self.shown = False
        self.withdrawn = False


@dataclass(slots=True)
class Hour:
    """One row of the CSV for researchers. What is not a count of that hour says so."""

    begins_s: int
    sent: int = 0
    """Messages written."""
    envelopes: int = 0
    """Envelopes submitted, repeats not counted."""
    receipted: int = 0
    delivered: int = 0
    """Envelopes that reached their device, repeats not counted."""
    shown: int = 0
    """Messages shown, once for each device."""
    shown_twice: int = 0
    refused: int = 0
    withdrawn: int = 0
    expired: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    packets_lost: int = 0
    commits: int = 0
    aborted: int = 0
    backlog: int = 0
    """Undelivered envelopes at the relay, at the end of the hour."""
    links: int = 0
    """Links at the end of the hour."""
    offline: int = 0
    """Devices off the network, at the end of the hour."""


@dataclass(slots=True)
class Ledger:
    """Everything of one run.

    Attributes:
        messages: how many were written.
        sent: envelopes by their id.
        hours: rows, in order.
        refusals: what devices were told, by code.
        failed: messages whose sender was told, definitely, that they do not go.
        spoilt: deliveries whose body was not what was sent.
        false_receipts: receipts that did not verify.
        strange: deliveries of an envelope that nobody sent, or to another device.
        dropped: intents of people who were offline, or not to write.
        backlog_most: most undelivered envelopes that the relay held at any moment.
    """

    messages: int = 0
    sent: dict[bytes, Sent] = field(default_factory=dict)
    hours: list[Hour] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    spoilt: int = 0
    false_receipts: int = 0
    strange: int = 0
    dropped: int = 0
    backlog_most: int = 0

    @property
    def hour(self) -> Hour:
        """The hour under way."""
        return self.hours[-1]

    def begin_hour(self, begins_s: int) -> None:
        """From now on count for another hour."""
        self.hours.append(Hour(begins_s))

    def refuse(self, code: str) -> None:
        """A device was refused something."""
        self.refusals[code] = self.refusals.get(code, 0) + 1
        self.hour.refused += 1

    def total(self, name: str) -> int:
        """Sum of a column."""
        return sum(getattr(hour, name) for hour in self.hours)

    def receipted(self) -> Iterable[Sent]:
        """Envelopes whose sender holds a receipt."""
        return (sent for sent in self.sent.values() if sent.receipted)


COLUMNS = tuple(column.name for column in fields(Hour))
