"""Search raw files for runs of bytes, whatever the files are: pages, logs, journals, what a broker keeps.

A window of 16 bytes at every 8th byte of what is searched for: any run of 23 bytes or more has one of them in it. What
is searched for is ciphertext or random, so that no window stands in a file by chance.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["RUN_BYTES", "is_left_in", "left_in", "windows"]

WINDOW_BYTES: Final = 16
STEP_BYTES: Final = 8
RUN_BYTES: Final = WINDOW_BYTES + STEP_BYTES - 1
"""A run of so many bytes is always found."""


def windows(content: bytes) -> list[bytes]:
    """What is looked for."""
    return [content[at : at + WINDOW_BYTES] for at in range(0, len(content) - WINDOW_BYTES + 1, STEP_BYTES)]


def left_in(folder: Path, contents: Iterable[bytes]) -> dict[str, int]:
    """How many windows of the contents each file below a folder holds; files without any are left out.

    Args:
        folder: all regular files below it are read, byte for byte.
        contents: what must not be there.
    """
    wanted = [window for content in contents for window in windows(content)]
    found: dict[str, int] = {}
    for path in _files(folder):
        raw = path.read_bytes()
        count = sum(window in raw for window in wanted)
        if count:
            found[path.name] = found.get(path.name, 0) + count
    return found


def is_left_in(folder: Path, content: bytes) -> bool:
    """Whether any file below a folder holds any window of the content: no sooner said than one is found."""
    raw = [path.read_bytes() for path in _files(folder)]
    return any(window in part for window in windows(content) for part in raw)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
