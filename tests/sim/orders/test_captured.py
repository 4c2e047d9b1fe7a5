"""A file of what was captured is counted and searched by a stranger; what is none is refused."""

from pathlib import Path

import pytest

from audit.errors import DecodeError
from sim.engine.bodies import HistoricalBodies
from sim.engine.chance import generator
from sim.historical import GLOBAL_PIN_KEY, PinMessage, write_message
from sim.orders.captured import read_captured
from wire.capture import (
    CaptureBegan,
    CaptureCovered,
    CapturedEvent,
    CaptureEnded,
    CaptureEvent,
    CaptureHeader,
    CaptureLost,
    CaptureRecord,
    framed,
)

MAILBOX, DEVICE = bytes(range(16)), bytes(32)
BODY = bytes(400)


def event(seq: int, kind: CaptureEvent, body: bytes = b"") -> CapturedEvent:
    return CapturedEvent(5_000 + seq, seq, kind, (DEVICE,), MAILBOX, 1, len(body or BODY), body)


def written(folder: Path, *records: CaptureRecord) -> Path:
    head = (
        CaptureHeader(bytes(16), 3, "interception", "account", 1_000),
        CaptureBegan(2_000, 99),
        CaptureCovered(2_000, MAILBOX, DEVICE),
    )
    path = folder / "capture.bin"
    path.write_bytes(b"".join(map(framed, (*head, *records))))
    return path


def test_what_came_in_is_counted_once_and_what_was_lost_is_said(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        event(0, CaptureEvent.STORED, BODY),
        event(1, CaptureEvent.DELIVERED, BODY),
        CaptureLost(6_000, 7),
        event(9, CaptureEvent.ACKNOWLEDGED),
        CaptureEnded(9_000, "until"),
    )
    found = read_captured(path, [], None)
    assert (found.mailboxes, found.events, found.envelopes, found.lost) == (1, 3, 1, 7)
    assert (found.body_bytes, found.bodies, found.read) == (2 * len(BODY), 1, 0)
    assert (found.from_s, found.to_s) == (2, 9)


def test_a_body_under_the_common_key_is_read_by_whoever_volunteers_it_or_keeps_it_beside_the_mail(
    tmp_path: Path,
) -> None:
    entropy = generator(1, "test").randbytes
    message = PinMessage(bytes(16), 1, bytes(16), 0, bytes(16), ("p0@acme.example",), b"meet at noon")
    body = write_message(message, entropy)
    path = written(tmp_path, event(0, CaptureEvent.STORED, body), event(1, CaptureEvent.DELIVERED, body))
    volunteered = HistoricalBodies("global-pin-key", entropy).volunteered
    assert read_captured(path, volunteered, None).read == 1
    assert read_captured(path, [], {MAILBOX: GLOBAL_PIN_KEY}).read == 1
    assert read_captured(path, [], {bytes(16): GLOBAL_PIN_KEY}).read == 0
    assert read_captured(path, [], {MAILBOX: entropy(24)}).read == 0


def test_a_file_that_is_cut_or_is_none_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, event(0, CaptureEvent.STORED, BODY))
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"\0\0\0\1", whole + b"\0\0\0\1\xc0", b"\xff" * 40):
        path.write_bytes(data)
        with pytest.raises(DecodeError):
            read_captured(path, [], None)
