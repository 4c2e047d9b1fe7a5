"""What the disk costs alone: the floor under everything that is durable."""

import os
import time
from pathlib import Path

__all__ = ["flush_ms"]


def flush_ms(folder: Path, size: int, times: int) -> list[float]:
    """How long each of so many appends of `size` bytes takes until the disk has it (write and fdatasync)."""
    path = folder / "flush-alone"
    data = os.urandom(size)
    found = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            start = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            found.append((time.perf_counter() - start) * 1_000)
    finally:
        os.close(descriptor)
        path.unlink()
    return found
