"""A memory image of the relay, taken from outside its process (protocol.md section 11).

The orderer's process stops the relay (SIGSTOP), copies its maps and memory through /proc, and lets it go on (SIGCONT),
always. A relay's own dump of itself would be testimony: a forked child does not even see pages that are marked
MADV_DONTFORK. Registers are not covered, and the image is not atomic with what the kernel holds (socket buffers).

What is copied: every readable range that is writable, anonymous, or has pages of its own (a program's file
that was written to in memory); read-only mappings of unchanged files are named in maps.txt and not copied.
Ranges that may not be read, or fail, are listed.

If this process dies while the relay is stopped, a watchdog, a process of its own that holds a pidfd, lets the
relay go on.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wire.codec import encode
from wire.errors import BlindpostError

MAPS_NAME = "maps.txt"
RANGES_NAME = "ranges.msgpack"
IMAGE_NAME = "image.bin"
STOPPED_S_MAX = 60
READ_BYTES = 4 * 1_048_576
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ (\d+)\s*(.*)")
# Kernel pages without content of the process: reading them fails or gives the kernel's clock.
_KERNEL_NAMES = frozenset({"[vvar]", "[vvar_vclock]", "[vsyscall]"})

Progress = Callable[[str, int, int], None]
"""Told of progress: what, how much is done, of how much."""

_WATCHDOG = """
import select, signal, sys
pidfd, seconds = int(sys.argv[1]), float(sys.argv[2])
select.select([sys.stdin.fileno()], [], [], seconds)
try:
    signal.pidfd_send_signal(pidfd, signal.SIGCONT)
except ProcessLookupError:
    sys.exit(0)
"""


class MemoryImageError(BlindpostError):
    """The memory of the process cannot be read."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps."""

    start: int
    length: int
    readable: bool
    copied: bool
    name: str


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """What was taken: ranges copied, ranges that could not be read, bytes of the image."""

    ranges: int
    unreadable: int
    image_bytes: int


def take(pid: int, folder: Path, progress: Progress | None = None) -> MemoryImage:
    """Stop a process, copy its memory into `folder`, and let it go on.

    Args:
        pid: the process; it must allow this one to trace it (same user, and PR_SET_PTRACER where Yama asks for it).
        folder: made with mode 0700; gets maps.txt, ranges.msgpack and image.bin.
        progress: told of bytes copied.

    Raises:
        MemoryImageError: the process is gone, or may not be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700)
    # Through its descriptor: whoever owns the directory above could lay a link in its place, and we may be root.
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise MemoryImageError("the folder for the memory image was exchanged")
        with stopped(pid):
            return _copy(pid, Path(f"/proc/self/fd/{directory}"), progress)
    finally:
        os.close(directory)


@contextmanager
def stopped(pid: int, seconds_max: float = STOPPED_S_MAX) -> Iterator[None]:
    """Keep a process stopped; it goes on at the end, on an error, and if this process dies.

    Raises:
        MemoryImageError: there is no such process, or it may not be signalled.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise MemoryImageError(f"process {pid} cannot be stopped: {error.strerror}") from error
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(pidfd), str(seconds_max)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(pidfd,),
            start_new_session=True,
        ) as watchdog:
            assert watchdog.stdin is not None
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                _wait_stopped(pid)
                yield
            except (ProcessLookupError, PermissionError) as error:
                raise MemoryImageError(f"process {pid} cannot be stopped: {error}") from error
            finally:
                _let_go(pidfd)
                watchdog.stdin.close()
    finally:
        os.close(pidfd)


def parse_maps(maps: str, dirty: frozenset[int]) -> list[Mapping]:
    """The mappings of /proc/PID/maps, and which of them are copied.

    Args:
        maps: the file's text.
        dirty: start addresses of mappings with pages of their own (`dirty_of`).
    """
    mappings = []
    for line in maps.splitlines():
        match = _MAPPING.fullmatch(line)
        if match is None:
            raise MemoryImageError(f"maps: {line[:80]!r} is not a mapping")
        start, end, permissions, inode, name = match.groups()
        readable = permissions[0] == "r" and name not in _KERNEL_NAMES
        anonymous = inode == "0"
        copied = readable and (permissions[1] == "w" or anonymous or int(start, 16) in dirty)
        mappings.append(Mapping(int(start, 16), int(end, 16) - int(start, 16), readable, copied, name))
    return mappings


def dirty_of(smaps: str) -> frozenset[int]:
    """Start addresses of the mappings of /proc/PID/smaps that hold anonymous pages: what was written in memory."""
    dirty = set()
    start = 0
    for line in smaps.splitlines():
        match = _MAPPING.fullmatch(line)
        if match is not None:
            start = int(match.group(1), 16)
        elif line.startswith(("Anonymous:", "Swap:")) and line.split()[1] != "0":
            dirty.add(start)
    return frozenset(dirty)


def _copy(pid: int, folder: Path, progress: Progress | None) -> MemoryImage:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape")
        dirty = dirty_of(Path(f"/proc/{pid}/smaps").read_text("utf-8", "surrogateescape"))
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise MemoryImageError(f"process {pid} does not allow its memory to be read: {error.strerror}") from error
    except (FileNotFoundError, ProcessLookupError) as error:
        raise MemoryImageError(f"process {pid} is gone") from error
    try:
        ranges, image_bytes = _copy_ranges(memory, folder / IMAGE_NAME, parse_maps(maps, dirty), progress)
    finally:
        os.close(memory)
    with _create(folder / MAPS_NAME) as file:
        file.write(maps.encode("utf-8", "surrogateescape"))
    with _create(folder / RANGES_NAME) as file:
        file.write(encode((pid, ranges)))
    unreadable = sum(1 for entry in ranges if not entry[3])
    return MemoryImage(len(ranges) - unreadable, unreadable, image_bytes)


def _copy_ranges(
    memory: int, path: Path, mappings: list[Mapping], progress: Progress | None
) -> tuple[list[tuple[int, int, int, int, str]], int]:
    """Copy what is to be copied; returns the entries of ranges.msgpack and the image's size."""
    total = sum(mapping.length for mapping in mappings if mapping.copied)
    ranges: list[tuple[int, int, int, int, str]] = []
    offset = 0
    with _create(path) as image:
        for mapping in mappings:
            if mapping.readable and not mapping.copied:
                continue
            taken = offset
            whole = mapping.copied and _copy_range(memory, image, mapping)
            if whole:
                offset += mapping.length
            else:
                image.truncate(offset)
                image.seek(offset)
            name = mapping.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            ranges.append((mapping.start, mapping.length, taken, int(whole), name))
            if progress is not None:
                progress("memory", offset, total)
        image.flush()
        os.fsync(image.fileno())
    return ranges, offset


def _copy_range(memory: int, image: BinaryIO, mapping: Mapping) -> bool:
    """Append one range to the image; False if the kernel does not give all of it."""
    done = 0
    while done < mapping.length:
        try:
            data = os.pread(memory, min(mapping.length - done, READ_BYTES), mapping.start + done)
        except OSError:
            return False
        if not data:
            return False
        image.write(data)
        done += len(data)
    return True


def _wait_stopped(pid: int) -> None:
    """Wait until every thread of the process has stopped."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        states = []
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            # The state follows the name in brackets, which may itself hold brackets.
            states.append(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[0])
        if states and all(state in {"T", "t"} for state in states):
            return
        time.sleep(0.005)
    raise MemoryImageError(f"process {pid} does not stop")


def _let_go(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    except ProcessLookupError:
        # It was killed while it was stopped: there is nothing to let go.
        return


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
