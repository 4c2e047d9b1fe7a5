"""A file of the disclosure as bytes that can be sliced, read from the file itself whenever they are asked for.

A mapped file would be simpler, but whoever can write to it can make it shorter while it is audited, and touching a page
that is gone kills the process (SIGBUS); nor would the pages of a large file stay out of what this process is said to
use. So each slice is a `pread`, which leaves no position behind (forked workers share the descriptor), and small slices
are cut from the last piece that was read.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, overload

from audit.errors import UnreadableError
from audit.rows import Bytes

AHEAD_BYTES: Final = 64 * 1024
PIECE_BYTES: Final = 1 << 30
"""The most that one pread is asked for; Linux gives at most 2 GiB."""


HASHED_AT_ONCE_BYTES: Final = 1024 * 1024


def sha256_of(data: Bytes) -> bytes:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    for start in range(0, len(data), HASHED_AT_ONCE_BYTES):
        digest.update(data[start : start + HASHED_AT_ONCE_BYTES])
    return digest.digest()


class FileView:
    """The bytes of an open file, as many as it had when it was opened.

    Args:
        descriptor: closed by `close`.
        size: in bytes.
        shown: its name, for errors.
    """

    def __init__(self, descriptor: int, size: int, shown: str) -> None:
        self._descriptor = descriptor
        self._size = size
        self._shown = shown
        self._state = _state_of(descriptor)
        self._ahead = (0, b"")

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            at = range(self._size)[key]
            return self._slice(at, at + 1)[0]
        start, end, step = key.indices(self._size)
        content = self._slice(start, max(start, end))
        return content if step == 1 else content[::step]

    def _slice(self, start: int, end: int) -> bytes:
        at, ahead = self._ahead
        if at <= start and end <= at + len(ahead):
            return ahead[start - at : end - at]
        if end - start >= AHEAD_BYTES:
            return self._read(start, end)
        # One assignment, so that a second thread sees a place and the bytes that belong to it.
        self._ahead = start, self._read(start, min(self._size, start + AHEAD_BYTES))
        return self._ahead[1][: end - start]

    def _read(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            try:
                part = os.pread(self._descriptor, min(end - start, PIECE_BYTES), start)
            except OSError as error:
                raise UnreadableError(self._shown, f"cannot be read at byte {start} ({error.strerror})") from None
            if not part:
                raise UnreadableError(self._shown, f"became shorter than {self._size} bytes while it was audited")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def changed(self) -> bool:
        """Whether somebody wrote to the file, or changed what it is, since it was opened."""
        return _state_of(self._descriptor) != self._state

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        os.close(self._descriptor)


def _state_of(descriptor: int) -> tuple[int, int, int]:
    state = os.fstat(descriptor)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
