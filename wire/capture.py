"""The file of an order for interception or of a pen register: what passed, as records (protocol.md section 15.6).

A file is records one after the other, each behind its length in four bytes. The first is the header; `CaptureBegan`
and `CaptureEnded` enclose what was captured without a gap; within, each event has the next number, and `CaptureLost`
says how many numbers have no record. A mailbox is named by `CaptureCovered` before an event of it.

Rules: a pen register holds no body; an interception holds that of an event that is `STORED` or `DELIVERED`, and it has
the length that is said. A body is the envelope's, as the relay stores it: ciphertext.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, unique
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from wire.codec import U64, Id, Key, PositiveU32, Record, decode, encode
from wire.errors import FormatError
from wire.limits import BODY_BYTES_MAX, DEVICES_PER_LINK_MAX

__all__ = [
    "RECORD_BYTES_MAX",
    "CaptureBegan",
    "CaptureCovered",
    "CaptureEnded",
    "CaptureEvent",
    "CaptureHeader",
    "CaptureLost",
    "CaptureRecord",
    "CapturedEvent",
    "check_bodies",
    "framed",
    "read_record",
    "records_of",
]

_LENGTH_BYTES: Final = 4
RECORD_BYTES_MAX: Final = BODY_BYTES_MAX + DEVICES_PER_LINK_MAX * 34 + 128


@unique
class CaptureEvent(IntEnum):
    """What happened to an envelope; only after it was durable."""

    STORED = 1
    """It was committed; of the link that submitted it. A submit of one that is stored already is none."""
    DELIVERED = 2
    """It was handed to a link of the mailbox's device, repeats included."""
    ACKNOWLEDGED = 3
    """The device has it, and it is gone."""
    WITHDRAWN = 4
    """Somebody who knows its ack token took it back; of the link that did."""
    CLOSED = 5
    """It is gone because the device was removed; of no link."""
    EXPIRED = 6
    """It is gone because its time has passed; of no link."""


BODY_EVENTS: Final = frozenset({CaptureEvent.STORED, CaptureEvent.DELIVERED})
"""Events in which a body passes."""

Kind = Annotated[str, Meta(pattern=r"\A(interception|pen-register)\Z")]
ScopeWord = Annotated[str, Meta(pattern=r"\A(all|tenant|account|mailbox)\Z")]


class CaptureHeader(Record, frozen=True, tag=1):
    """Which order of which relay; `made_ms` is when the file was begun."""

    relay_id: Id
    number: U64
    kind: Kind
    scope: ScopeWord
    made_ms: U64


class CaptureBegan(Record, frozen=True, tag=2):
    """From here on each event is recorded, at the latest until `until_s`; event numbers begin at 0."""

    time_ms: U64
    until_s: U64


class CaptureCovered(Record, frozen=True, tag=3):
    """A mailbox that the order covers, and its device: when the capture began, or when it was enrolled later."""

    time_ms: U64
    mailbox: Id
    device_key: Key


class CapturedEvent(Record, frozen=True, tag=4):
    """Something that happened to an envelope of a covered mailbox.

    `devices` are all for which the link speaks: one, unless it is a gateway's; of which of them a command came, the
    relay does not know. `number` is the envelope's in its mailbox, `body_bytes` its padded size.
    """

    time_ms: U64
    seq: U64
    event: Annotated[int, Meta(ge=1, le=6)]
    devices: Annotated[tuple[Key, ...], Meta(max_length=DEVICES_PER_LINK_MAX)]
    mailbox: Id
    number: U64
    body_bytes: Annotated[int, Meta(ge=0, le=BODY_BYTES_MAX)]
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]


class CaptureLost(Record, frozen=True, tag=5):
    """So many events did not fit the relay's buffer: they have numbers and no records."""

    time_ms: U64
    events: PositiveU32


class CaptureEnded(Record, frozen=True, tag=6):
    """After `time_ms` nothing is recorded, until it began again; `reason` is a word."""

    time_ms: U64
    reason: Annotated[str, Meta(min_length=1, max_length=32)]


CaptureRecord: TypeAlias = CaptureHeader | CaptureBegan | CaptureCovered | CapturedEvent | CaptureLost | CaptureEnded


def framed(record: CaptureRecord) -> bytes:
    """A record behind its length."""
    data = encode(record)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def read_record(data: bytes) -> CaptureRecord:
    """Read one record, without its length.

    Raises:
        FormatError: it is none.
    """
    record: CaptureRecord = decode(CaptureRecord, data, "capture record")
    return record


def records_of(data: bytes) -> Iterator[CaptureRecord]:
    """The records in a run of them, each behind its length.

    Raises:
        FormatError: one is none, too long, or cut short.
    """
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        length = int.from_bytes(data[at:start], "big")
        at = start + length
        if not 0 < length <= RECORD_BYTES_MAX:
            raise FormatError("capture record", f"has {length} bytes", RECORD_BYTES_MAX)
        if at > len(data):
            raise FormatError("capture record", "is cut short", length)
        yield read_record(data[start:at])


def check_bodies(kind: str, event: CapturedEvent) -> None:
    """Check that an event holds a body where its kind of order has one, and nowhere else.

    Raises:
        FormatError: it does not.
    """
    wanted = event.body_bytes if kind == "interception" and event.event in BODY_EVENTS else 0
    if len(event.body) != wanted:
        raise FormatError("captured body", f"has {len(event.body)} bytes in a record of {kind}", wanted)
