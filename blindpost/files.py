"""Files that commands write and read: never overwritten silently, for the owner only where they are secret.

A new file is written beside its place, flushed, and linked into it: whoever finds the name finds the whole file, and a
file that is there already stays as it is.
"""

import errno
import os
import secrets
import sys
from pathlib import Path
from typing import Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from wire.errors import FormatError

__all__ = ["STANDARD_STREAM", "check_absent", "read_bounded", "write_new"]

STANDARD_STREAM: Final = Path("-")
"""A file named so is standard input."""


def check_absent(path: Path) -> None:
    """Refuse an output that is there already, before work begins that would be lost.

    Raises:
        CommandError: the path exists, or its folder does not.
    """
    if path.exists() or path.is_symlink():
        raise CommandError(f"{path} is there already", "nothing was written; name another file", CANNOT_CREATE)
    if not path.parent.is_dir():
        raise CommandError(f"{path.parent} is no folder", "make it first, or name another", CANNOT_CREATE)


CANNOT_CREATE: Final = ExitStatus.CANNOT_CREATE


def write_new(path: Path, data: bytes, *, secret: bool) -> None:
    """Write a file that is not there yet, durably.

    Args:
        path: where.
        data: all of it.
        secret: mode 0600 instead of 0644.

    Raises:
        CommandError: the path exists, or its folder does not.
        OSError: writing failed; nothing is there then.
    """
    check_absent(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600 if secret else 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise CommandError(
            f"{path} is there already", "nothing was written; name another file", CANNOT_CREATE
        ) from None
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        # A file system without hard links: the name was free a moment ago, which is the best that can be said there.
        temporary.rename(path)


def read_bounded(path: Path, name: str, bytes_max: int) -> bytes:
    """The bytes of a file, or of standard input for `-`.

    Args:
        path: which.
        name: what it is, for the error.
        bytes_max: the most that it may hold.

    Raises:
        FormatError: longer.
        OSError: it cannot be read.
    """
    if path == STANDARD_STREAM:
        data = sys.stdin.buffer.read(bytes_max + 1)
    else:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise FormatError(name, "is longer than it may be, in bytes", bytes_max)
    return data
