"""Opens a disclosure's directory without trusting a name in it (protocol.md section 11).

Whoever made the directory may have made it to mislead: links that point elsewhere, devices that never end, names with
`..`, files that are huge. So the tree is listed through directory descriptors, no link is ever followed, only regular
files are opened, and what the manifest names is looked up in that listing and never joined to a path. Files are
mapped, not read, so a large memory image costs no memory. Nothing is written.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from audit.errors import DisclosureError

ENTRIES_MAX: Final = 1_000
DEPTH_MAX: Final = 8
SMALL_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Manifest, log, configuration, maps: read whole."""

MANIFEST = "manifest.msgpack"
STORE = "store/store.sqlite"
LOG = "log/relay.log"
CONFIG = "config/relay.toml"
CARD = "config/relay-card.toml"
ORDERERS_CARD = "relay-card.toml"
"""The card as the orderer had it before, which `order` lays beside: no part of the disclosure, and ignored."""
ORDERERS_TIMES = "order.toml"
"""When the orderer asked and was served, by its own clock: as the card."""
MAPS = "memory/maps.txt"
RANGES = "memory/ranges.msgpack"
IMAGE = "memory/image.bin"
REQUIRED = (CARD, CONFIG, LOG, STORE)
MEMORY = (IMAGE, MAPS, RANGES)


@dataclass(frozen=True, slots=True)
class Problem:
    """A directory entry that no disclosure may have."""

    path: str
    text: str


@dataclass(slots=True)
class Disclosure:
    """The regular files of a directory, by relative path, mapped; use as a context manager."""

    root: Path
    files: dict[str, memoryview] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
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
        finally:
            os.close(descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.files.clear()
        self._stack.close()

    def _list(self, descriptor: int, prefix: str, depth: int, seen: list[int]) -> None:
        for name in sorted(os.listdir(descriptor)):
            path = prefix + name
            seen[0] += 1
            if seen[0] > ENTRIES_MAX:
                raise DisclosureError("directory", f"more than {ENTRIES_MAX} entries")
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            try:
                if stat.S_ISDIR(mode):
                    self._enter(descriptor, name, path, depth, seen)
                elif stat.S_ISREG(mode) and path in {ORDERERS_CARD, ORDERERS_TIMES}:
                    continue
                elif stat.S_ISREG(mode):
                    self._map(descriptor, name, path)
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
                    self.problems.append(Problem(printable(path), f"is {kind}; not followed, not opened"))
            except OSError as error:
                self.problems.append(Problem(printable(path), f"cannot be read ({_reason(error)})"))

    def _enter(self, descriptor: int, name: str, path: str, depth: int, seen: list[int]) -> None:
        if depth >= DEPTH_MAX:
            self.problems.append(Problem(printable(path), f"is a directory nested deeper than {DEPTH_MAX}"))
            return
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            self._list(below, path + "/", depth + 1, seen)
        finally:
            os.close(below)

    def _map(self, descriptor: int, name: str, path: str) -> None:
        # O_NONBLOCK: should the entry have become a pipe since it was looked at, opening it must not wait for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode):
                self.problems.append(Problem(printable(path), "is no regular file; not opened"))
            elif state.st_size == 0:
                self.files[path] = memoryview(b"")
            else:
                mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
                view = memoryview(mapped)
                # The stack closes in reverse order: first the view, then the mapping that it holds open.
                self._stack.callback(_close_mapping, mapped)
                self._stack.callback(view.release)
                self.files[path] = view
        finally:
            os.close(file)

    def small(self, path: str) -> bytes:
        """Return the whole content of a file that has no reason to be large.

        Raises:
            DisclosureError: It is missing, or larger than `SMALL_FILE_BYTES_MAX`.
        """
        view = self.files.get(path)
        if view is None:
            raise DisclosureError(path, "is missing")
        if len(view) > SMALL_FILE_BYTES_MAX:
            raise DisclosureError(path, f"{len(view)} bytes, at most {SMALL_FILE_BYTES_MAX} are read")
        return bytes(view)

    def sha256(self, path: str) -> bytes:
        """SHA-256 of a file, computed once."""
        if path not in self.digests:
            self.digests[path] = hashlib.sha256(self.files[path]).digest()
        return self.digests[path]


def _close_mapping(mapped: mmap.mmap) -> None:
    try:
        mapped.close()
    except BufferError:
        # A slice of the view is still held by a traceback; the mapping then ends with it.
        return


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or "unknown" if isinstance(error, OSError) else "a name that no file can have"


def printable(text: str) -> str:
    """A name or text of the disclosure, as it may be shown: control characters could drive a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.encode(errors="replace").decode())[:200]
