"""Counts fsync and fdatasync of a process and its children: a small library that is loaded before libc's.

Made with the system's C compiler when it is asked for. It sees what calls libc (Python, SQLite, PostgreSQL, Erlang) and
not what makes system calls itself (Go: nats-server). The counter lies in a file that all processes map.
"""

import contextlib
import mmap
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import program
from benchmarks.processes import ServerError

__all__ = ["Counter", "counting"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned long *counter;

__attribute__((constructor)) static void open_counter(void) {
    const char *path = getenv("FLUSH_COUNTER");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) counter = map;
    close(file);
}

static int counted(const char *name, int file) {
    if (counter) __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return counted("fsync", file); }
int fdatasync(int file) { return counted("fdatasync", file); }
"""


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter that is mapped; `environment` makes a process use it."""

    environment: dict[str, str]
    map: mmap.mmap

    def count(self) -> int:
        """Flushes so far."""
        return int.from_bytes(self.map[:8], "little")


@contextlib.contextmanager
def counting(folder: Path) -> Iterator[Counter]:
    """Build the library in a folder.

    Raises:
        ServerError: there is no C compiler, or it failed.
    """
    compiler = program("cc")
    if compiler is None:
        raise ServerError("flushes cannot be counted: there is no C compiler (cc)")
    source, library, counter = folder / "flushes.c", folder / "flushes.so", folder / "flushes.count"
    source.write_text(_SOURCE, encoding="ascii")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise ServerError(f"flushes cannot be counted: {built.stderr.strip()[-300:]}")
    counter.write_bytes(bytes(mmap.PAGESIZE))
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
        yield Counter({"LD_PRELOAD": str(library), "FLUSH_COUNTER": str(counter)}, mapped)
