"""The file of what an order has recorded, on the operator's side: written as it comes, and read at the end.

    header   began … ended   began … ended             (wire/capture.py)

It is appended to only, and what is appended is durable on return. A process that was killed leaves a part without its
end, and maybe half a record: the next one takes that half off, says that the recording was interrupted, and goes on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from relay.core.answers import Captured
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
    read_record,
)
from wire.errors import BlindpostError, FormatError

__all__ = ["CaptureFile", "CaptureFileBusy", "Summary"]

_LENGTH_BYTES: Final = 4


class CaptureFileBusy(BlindpostError):
    """Another process writes the file."""


@dataclass
class Summary:
    """What a file holds, record by record; `add` takes the next one.

    Args:
        header: its first record; None: it has none yet.
        parts: how often recording began.
        is_going_on: whether the last part has no end.
        last_ms: the time of the last record.
        from_ms: when recording began first.
        mailboxes: that were covered at some time.
        events: recorded.
        stored: of these, envelopes that came in.
        body_bytes: of all bodies.
        lost: events that are counted and not recorded.
    """

    header: CaptureHeader | None = None
    parts: int = 0
    is_going_on: bool = False
    last_ms: int = 0
    from_ms: int = 0
    mailboxes: set[bytes] = field(default_factory=set)
    events: int = 0
    stored: int = 0
    body_bytes: int = 0
    lost: int = 0

    def add(self, record: CaptureRecord) -> None:
        """Count a record.

        Raises:
            FormatError: it does not belong there.
        """
        if isinstance(record, CaptureHeader):
            if self.header is not None:
                raise FormatError("capture file", "has two headers")
            self.header, self.last_ms = record, record.made_ms
            return
        if self.header is None:
            raise FormatError("capture file", "does not begin with its header")
        if isinstance(record, CaptureBegan) == self.is_going_on:
            raise FormatError("capture file", "begins or ends where it cannot")
        self.last_ms = record.time_ms
        if isinstance(record, CaptureBegan):
            self.parts += 1
            self.from_ms = self.from_ms or record.time_ms
            self.is_going_on = True
        elif isinstance(record, CaptureEnded):
            self.is_going_on = False
        elif isinstance(record, CaptureCovered):
            self.mailboxes.add(record.mailbox)
        elif isinstance(record, CaptureLost):
            self.lost += record.events
        else:
            self._add_event(self.header, record)

    def _add_event(self, header: CaptureHeader, event: CapturedEvent) -> None:
        check_bodies(header.kind, event)
        self.events += 1
        self.stored += event.event == CaptureEvent.STORED
        self.body_bytes += len(event.body)

    def facts(self) -> Captured:
        """The same for the answer."""
        return Captured(
            from_s=(self.from_ms or self.last_ms) // 1_000,
            to_s=self.last_ms // 1_000,
            mailboxes=len(self.mailboxes),
            events=self.events,
            stored=self.stored,
            body_bytes=self.body_bytes,
            lost=self.lost,
            pauses=max(self.parts - 1, 0),
        )


class CaptureFile:
    """A file that is open to be appended to, and nobody else's meanwhile. Made by `CaptureFile.at`.

    Args:
        file: open, its lock held.
        summary: of what is in it.
    """

    def __init__(self, file: BinaryIO, summary: Summary) -> None:
        self._file = file
        self.summary = summary

    @classmethod
    @contextmanager
    def at(cls, path: Path, header: CaptureHeader) -> Iterator[CaptureFile]:
        """Open or make a file for one order; what an interruption has left is settled first.

        Raises:
            FormatError: the file is another order's, or damaged otherwise than by an interruption.
            CaptureFileBusy: another process writes it.
            OSError: it cannot be read or written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CaptureFileBusy(f"another process writes {path}") from None
            capture = cls(file, Summary())
            capture._settle(header)
            _sync_folder(path.parent)
            yield capture

    def _settle(self, header: CaptureHeader) -> None:
        summary = self.summary
        whole = 0
        for record, length in _records(self._file):
            summary.add(record)
            whole += length
        if summary.header is None:
            if self._file.seek(0, os.SEEK_END):
                raise FormatError("capture file", "is none: it has no header")
            self.append(framed(header))
            summary.add(header)
            return
        known = summary.header
        if (known.relay_id, known.number, known.kind) != (header.relay_id, header.number, header.kind):
            raise FormatError("capture file", f"is of order {known.number}, {known.kind}, and not of this one")
        self._file.truncate(whole)
        self._file.seek(whole)
        self.end(summary.last_ms, "interrupted")

    def append(self, data: bytes) -> None:
        """Append records that are framed; durable on return.

        Raises:
            OSError: they could not be written whole.
        """
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, data: bytes, records: Iterator[CaptureRecord]) -> None:
        """Append what a relay gave.

        Args:
            data: records, framed.
            records: the same, read.

        Raises:
            FormatError: they do not follow what is there; nothing is written then.
            OSError: as `append`.
        """
        for record in records:
            self.summary.add(record)
        if data:
            self.append(data)

    def end(self, time_ms: int, reason: str) -> None:
        """Say that nothing is recorded from then on; nothing happens where that is said already.

        Raises:
            OSError: as `append`.
        """
        if self.summary.is_going_on:
            ended = CaptureEnded(max(time_ms, self.summary.last_ms), reason)
            self.summary.add(ended)
            self.append(framed(ended))

    def digest(self) -> bytes:
        """SHA-256 of the whole file."""
        hashed = sha256()
        self._file.seek(0)
        while part := self._file.read(1 << 20):
            hashed.update(part)
        return hashed.digest()


def _records(file: BinaryIO) -> Iterator[tuple[CaptureRecord, int]]:
    """The records that are whole, each with its length in the file.

    Raises:
        FormatError: one is none.
    """
    while True:
        prefix = file.read(_LENGTH_BYTES)
        length = int.from_bytes(prefix, "big")
        if len(prefix) == _LENGTH_BYTES and not 0 < length <= RECORD_BYTES_MAX:
            raise FormatError("capture record", f"has {length} bytes", RECORD_BYTES_MAX)
        data = file.read(length) if len(prefix) == _LENGTH_BYTES else b""
        if len(prefix) < _LENGTH_BYTES or len(data) < length:
            return
        yield read_record(data), _LENGTH_BYTES + length


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
