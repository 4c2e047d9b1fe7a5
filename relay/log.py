"""The relay's log: the lines of protocol.md section 10, and no way to write another.

Each event is a method with integers as arguments; nothing else can reach the file. The log is handed over with every
disclosure, and the verifier reads it by the same grammar. An append is one write; the log is not flushed to
the disk, for no receipt depends on it. Times never fall, across restarts as well, and numbers keep to the bounds of
section 10: a number that could be anything would be room for anything.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

COUNT_MAX: Final = {"pages": 4_194_304, "links": 65_535, "count": 1_000_000}
"""What is more is written as this."""
_TAIL_BYTES: Final = 256
_DATE_FORMAT: Final = "%Y-%m-%d"
_TIME_FORMAT: Final = f"{_DATE_FORMAT}T%H:%M:%SZ"
_TIME_BYTES: Final = len("2015-11-30T12:00:00Z")


class RelayLog:
    """Appends events to a file.

    Args:
        path: the file, made with mode 0600 if it is not there.
        clock_ms: Unix time in milliseconds.
    """

    def __init__(self, path: Path, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._time_s = _last_time_s(path)
        # Hundreds of lines may bear one time, and a day's lines one date: each is written out once.
        self._written_s = -1
        self._written_day = -1
        self._time = ""
        self._date = ""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.lost = 0
        """Lines that the disk did not take."""

    def started(self, pid: int, partition: int) -> None:
        """The process begins."""
        self._write("started", pid=pid, partition=partition)

    def ready(self) -> None:
        """Links are taken."""
        self._write("ready")

    def stopping(self) -> None:
        """No more commands are taken."""
        self._write("stopping")

    def stopped(self) -> None:
        """The store is closed."""
        self._write("stopped")

    def committed(self, index: int, envelopes: int, acks: int, body_bytes: int) -> None:
        """A commit is durable; `index` 0 for one without envelopes."""
        self._write("committed", index=index, envelopes=envelopes, acks=acks, bytes=body_bytes)

    def aborted(self, envelopes: int) -> None:
        """A commit failed; nothing of it is stored."""
        self._write("aborted", envelopes=envelopes)

    def checkpointed(self, pages: int) -> None:
        """The write-ahead log is empty."""
        self._write("checkpointed", pages=pages)

    def linked(self, links: int) -> None:
        """How many links stand, when that has changed."""
        self._write("linked", links=links)

    def refused(self, code: int, count: int) -> None:
        """So many commands were refused with this code since the last such line."""
        self._write("refused", code=code, count=count)

    def rotated(self, index: int) -> None:
        """The signing key changed after commit `index`."""
        self._write("rotated", index=index)

    def disclosed(self, files: int, memory: int) -> None:
        """An order was served: so many files, with (1) or without (0) a memory image."""
        self._write("disclosed", files=files, memory=memory)

    @property
    def time_s(self) -> int:
        """The time below which no line will be dated: that of the newest line, 0 without one."""
        return self._time_s

    def not_before(self, time_s: int) -> None:
        """Date no later line before this, so that a restart knows the date of the newest disclosure."""
        self._time_s = max(self._time_s, time_s)

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, event: str, **numbers: int) -> None:
        for name, number in numbers.items():
            if number > COUNT_MAX.get(name, number):
                numbers[name] = COUNT_MAX[name]
            # int() also turns an IntEnum or bool into digits, and raises for whatever is no integer.
            if number < 0:
                raise ValueError(f"{event} {name} must not be negative")
        self._time_s = max(self._time_s, self._clock_ms() // 1_000)
        if self._written_s != self._time_s:
            self._write_out()
        line = " ".join((self._time, event, *(f"{name}={int(number)}" for name, number in numbers.items()))) + "\n"
        if self._file < 0:
            raise ValueError("the log is closed")
        data = line.encode("ascii")
        # A full disk must not stop the relay, and a line cut short must not stand in the file.
        try:
            written = os.write(self._file, data)
        except OSError:
            written = 0
        if written < len(data):
            self.lost += 1
        if 0 < written < len(data):
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)

    def _write_out(self) -> None:
        day, second = divmod(self._time_s, 86_400)
        if day != self._written_day:
            self._written_day = day
            self._date = datetime.fromtimestamp(self._time_s, UTC).strftime(_DATE_FORMAT)
        self._written_s = self._time_s
        self._time = f"{self._date}T{second // 3_600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def _last_time_s(path: Path) -> int:
    """The time of the last line of a log; 0 if there is none that can be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).splitlines()
        time = datetime.strptime(lines[-1][:_TIME_BYTES].decode("ascii"), _TIME_FORMAT)
    except (OSError, ValueError, IndexError):
        # A log that is not there yet, or damaged: times begin with the clock.
        return 0
    return int(time.replace(tzinfo=UTC).timestamp())
