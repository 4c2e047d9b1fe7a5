"""The records of a capture: read as written, and nothing else is read."""

import pytest

from wire.capture import (
    RECORD_BYTES_MAX,
    CaptureBegan,
    CaptureCovered,
    CapturedEvent,
    CaptureEnded,
    CaptureEvent,
    CaptureHeader,
    CaptureLost,
    CaptureRecord,
    check_bodies,
    framed,
    records_of,
)
from wire.codec import encode
from wire.errors import FormatError
from wire.limits import BODY_BYTES_MAX, DEVICES_PER_LINK_MAX

KEY, BOX = bytes(range(32)), bytes(range(16))
EVENT = CapturedEvent(3, 0, CaptureEvent.STORED, (KEY,), BOX, 1, 400, bytes(400))
ALL: tuple[CaptureRecord, ...] = (
    CaptureHeader(BOX, 4, "interception", "account", 1),
    CaptureBegan(2, 5_000),
    CaptureCovered(2, BOX, KEY),
    EVENT,
    CaptureLost(4, 7),
    CaptureEnded(5, "until"),
)


def test_records_are_read_as_they_were_written() -> None:
    assert tuple(records_of(b"".join(map(framed, ALL)))) == ALL


def test_the_longest_record_fits() -> None:
    keys = tuple(KEY for _ in range(DEVICES_PER_LINK_MAX))
    longest = CapturedEvent(2**63 - 1, 2**63 - 1, 6, keys, BOX, 2**63 - 1, BODY_BYTES_MAX, bytes(BODY_BYTES_MAX))
    assert len(encode(longest)) <= RECORD_BYTES_MAX
    assert list(records_of(framed(longest))) == [longest]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (framed(EVENT)[:-1], "cut short"),
        (framed(EVENT)[:3], "cut short"),
        (bytes(4), f"limit {RECORD_BYTES_MAX}"),
        (b"\xff" * 8, f"limit {RECORD_BYTES_MAX}"),
        (b"\0\0\0\2\x91\x09", "capture record"),
        (b"\0\0\0\1\xc0", "capture record"),
        (framed(CaptureHeader(BOX, 4, "content", "account", 1)), "capture record"),
        (framed(CaptureHeader(BOX, 4, "pen-register\n", "account", 1)), "capture record"),
    ],
)
def test_what_is_no_run_of_records_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        list(records_of(data))


@pytest.mark.parametrize(
    ("kind", "event", "holds"),
    [
        ("interception", EVENT, True),
        ("pen-register", EVENT, False),
        ("interception", CapturedEvent(3, 0, CaptureEvent.STORED, (KEY,), BOX, 1, 400, b""), False),
        ("pen-register", CapturedEvent(3, 0, CaptureEvent.STORED, (KEY,), BOX, 1, 400, b""), True),
        ("interception", CapturedEvent(3, 0, CaptureEvent.ACKNOWLEDGED, (KEY,), BOX, 1, 400, bytes(400)), False),
    ],
)
def test_a_body_is_where_its_kind_of_order_has_one_and_nowhere_else(
    kind: str, event: CapturedEvent, holds: bool
) -> None:
    if holds:
        check_bodies(kind, event)
    else:
        with pytest.raises(FormatError, match="captured body"):
            check_bodies(kind, event)
