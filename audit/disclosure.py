"""Opens a disclosure's directory without trusting a name in it (protocol.md section 11).

Whoever made the directory may have made it to mislead: links that point elsewhere, devices that never end, names with
`..`, files that are huge. So the tree is listed through directory descriptors, no link is ever followed, only regular
files are opened, and what the manifest names is looked up in that listing and never joined to a path. Files are read
piece by piece (`file_view`), so a large one costs no memory. Nothing is written.

Bounds are not findings: a busy and honest relay may have a log of gigabytes. What is beyond a bound is left out, and
the audit is then incomplete.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from audit.errors import BoundError, DisclosureError
from audit.file_view import FileView, sha256_of

ENTRIES_MAX: Final = 1_000
DEPTH_MAX: Final = 8
SMALL_FILE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Manifest, configuration, card, maps and ranges, which are read whole. None of them grows with traffic: a manifest of
300 modules has 20 kB, maps of 1,000 mappings 100 kB."""
FILE_BYTES_MAX: Final = 64 * 1024**3
"""Of any file: what takes some hours. `thorough` has no such bound."""
BLOCK_BYTES: Final = 4 * 1024 * 1024
OVERLAP_BYTES: Final = 128 * 1024
LINE_BYTES_MAX: Final = 1024
"""A longer line of the log is given in pieces: the longest of the protocol has 120 bytes."""

MANIFEST = "manifest.msgpack"
STORE = "store/store.sqlite"
LOG = "log/relay.log"
CONFIG = "config/relay.toml"
CARD = "config/relay-card.toml"
ORDERERS_CARD = "relay-card.toml"
"""The card as the orderer had it before, which `order` lays beside: no part of the disclosure, but looked at."""
ORDERERS_TIMES = "order.toml"
"""When the orderer asked and was served, by its own clock: as the card."""
MAPS = "memory/maps.txt"
RANGES = "memory/ranges.msgpack"
IMAGE = "memory/image.bin"
REQUIRED = (CARD, CONFIG, LOG, STORE)
MEMORY = (IMAGE, MAPS, RANGES)
LARGE = frozenset({STORE, LOG, IMAGE})
BESIDE = (ORDERERS_CARD, ORDERERS_TIMES)
BESIDE_BYTES_MAX: Final = 4_096
FOLDERS = frozenset({"config", "log", "memory", "store"})
"""A folder has a name of its choice, and there may be a thousand: no other may be there, even if it is empty."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A directory entry that no disclosure may have."""

    path: str
    text: str


@dataclass(slots=True)
class Disclosure:
    """The regular files of a directory, by relative path, mapped; use as a context manager."""

    root: Path
    file_bytes_max: float = FILE_BYTES_MAX
    files: dict[str, FileView] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    beside: dict[str, FileView] = field(default_factory=dict)
    """The orderer's files: whoever made the directory may have laid them there, so they are searched as well."""
    too_large: list[Problem] = field(default_factory=list)
    """Files that are not read because they pass the bound."""
    is_cut_off: bool = False
    """There are more entries than are looked at."""
    digests: dict[str, bytes] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Disclosure:
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            descriptor = os.open(self.root, flags)
        except (OSError, ValueError) as error:
            raise DisclosureError(str(self.root), f"no directory that can be read ({_reason(error)})") from None
        try:
            self._list(descriptor, "", 0, [0])
        except BaseException:
            self._stack.close()
            raise
        finally:
            os.close(descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.files.clear()
        self.beside.clear()
        self._stack.close()

    def _list(self, descriptor: int, prefix: str, depth: int, seen: list[int]) -> None:
        for name in sorted(os.listdir(descriptor)):
            path = prefix + name
            seen[0] += 1
            if seen[0] > ENTRIES_MAX:
                self.is_cut_off = True
                return
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            try:
                if stat.S_ISDIR(mode):
                    self._enter(descriptor, name, path, depth, seen)
                elif stat.S_ISREG(mode):
                    self._open(descriptor, name, path)
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
                    self.problems.append(Problem(printable(path), f"is {kind}; not followed, not opened"))
            except OSError as error:
                self.problems.append(Problem(printable(path), f"cannot be read ({_reason(error)})"))

    def _enter(self, descriptor: int, name: str, path: str, depth: int, seen: list[int]) -> None:
        if path not in FOLDERS:
            self.problems.append(Problem(printable(path), "is no folder that a disclosure may have"))
        if depth >= DEPTH_MAX:
            self.problems.append(Problem(printable(path), f"is a directory nested deeper than {DEPTH_MAX}"))
            return
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            self._list(below, path + "/", depth + 1, seen)
        finally:
            os.close(below)

    def _open(self, descriptor: int, name: str, path: str) -> None:
        # O_NONBLOCK: should the entry have become a pipe since it was looked at, opening it must not wait for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode):
                self.problems.append(Problem(printable(path), "is no regular file; not opened"))
            elif state.st_size > (bytes_max := self._bytes_max(path)):
                self.too_large.append(
                    Problem(printable(path), f"{state.st_size:,} bytes, at most {int(bytes_max):,} are read")
                )
            else:
                held = self.beside if path in BESIDE else self.files
                view = held[path] = FileView(file, state.st_size, printable(path))
                self._stack.callback(view.close)
                return
        except OSError:
            os.close(file)
            raise
        os.close(file)

    def _bytes_max(self, path: str) -> float:
        """Only what grows with traffic may be large."""
        if path in BESIDE:
            return BESIDE_BYTES_MAX
        return self.file_bytes_max if path in LARGE else min(self.file_bytes_max, SMALL_FILE_BYTES_MAX)

    def small(self, path: str) -> bytes:
        """Return the whole content of a file that has no reason to be large.

        Raises:
            DisclosureError: It is missing.
            BoundError: It is larger than `SMALL_FILE_BYTES_MAX`.
        """
        view = self.files.get(path)
        if view is None:
            raise DisclosureError(path, "is missing")
        if len(view) > SMALL_FILE_BYTES_MAX:
            raise BoundError(path, f"{len(view):,} bytes, at most {SMALL_FILE_BYTES_MAX:,} are read")
        return view[:]

    def blocks(self, path: str) -> Iterator[tuple[int, bytes]]:
        """A file in blocks with their offsets, each with some bytes of the next one.

        What is no longer than `OVERLAP_BYTES` lies in one block as a whole.
        """
        view = self.files[path]
        for start in range(0, len(view), BLOCK_BYTES):
            yield start, view[start : start + BLOCK_BYTES + OVERLAP_BYTES]

    def lines(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Each line of a file with its offset and line feed, however large the file is.

        Only a line feed ends a line. A line of more than `LINE_BYTES_MAX` bytes comes in pieces, of which only the last
        ends with a line feed.
        """
        view, rest, at = self.files[path], b"", 0
        for start in range(0, len(view), BLOCK_BYTES):
            block = rest + view[start : start + BLOCK_BYTES]
            whole, feed, rest = block.rpartition(b"\n")
            for line in _lines_of(whole + feed):
                yield at, line
                at += len(line)
            while len(rest) > LINE_BYTES_MAX:
                yield at, rest[:LINE_BYTES_MAX]
                at, rest = at + LINE_BYTES_MAX, rest[LINE_BYTES_MAX:]
        if rest:
            yield at, rest

    def changed(self) -> list[str]:
        """Files that somebody wrote to since they were opened."""
        return sorted(path for path, view in self.files.items() if view.changed)

    def sha256(self, path: str) -> bytes:
        """SHA-256 of a file, computed once."""
        if path not in self.digests:
            self.digests[path] = sha256_of(self.files[path])
        return self.digests[path]


def _lines_of(block: bytes) -> Iterator[bytes]:
    """Cut at line feeds, and what is too long in pieces."""
    for line in block.split(b"\n")[:-1]:
        start = 0
        while len(line) - start > LINE_BYTES_MAX:
            yield line[start : start + LINE_BYTES_MAX]
            start += LINE_BYTES_MAX
        yield line[start:] + b"\n"


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or "unknown" if isinstance(error, OSError) else "a name that no file can have"


def printable(text: str) -> str:
    """A name or text of the disclosure, as it may be shown: control characters could drive a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.encode(errors="replace").decode())[:200]
