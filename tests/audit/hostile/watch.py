"""Watches an audit: it opens no socket, writes nothing, starts no program, and ends within a time.

Python tells its audit hooks of each of these before it happens. A hook cannot be taken off again, so there is one, and
it looks only while `watched` is on. It raises: in a forked worker that ends the worker, and the audit says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = frozenset(
    {
        "os.chmod", "os.chown", "os.link", "os.mkdir", "os.mkfifo", "os.mknod", "os.remove", "os.rename", "os.rmdir",
        "os.symlink", "os.truncate", "os.utime", "os.setxattr", "os.removexattr", "shutil.copyfile", "shutil.move",
        "tempfile.mkstemp", "tempfile.mkdtemp", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
        "os.spawn", "ctypes.dlopen", "pty.spawn", "webbrowser.open", "urllib.Request", "sqlite3.connect",
    }
)  # fmt: skip


class ForbiddenError(BaseException):
    """The audit did what it must not; no handler of errors may swallow it."""


_on = [False]
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _on[0]:
        return
    if event in CHANGES or event.startswith("socket."):
        raise ForbiddenError(f"{event} {arguments!r}")
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITES and path != os.devnull:
            raise ForbiddenError(f"opens {path!r} with flags {flags:#x}")


@contextmanager
def watched() -> Iterator[None]:
    """Raise `ForbiddenError` where the code within opens a socket, writes to a file, or starts a program."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    _on[0] = True
    try:
        yield
    finally:
        _on[0] = False
