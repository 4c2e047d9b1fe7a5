"""Counts fsync and fdatasync of a process and its children, in two ways.

- `counting`: a small library that is loaded before libc's, made with the system's C compiler when it is asked for. It
  costs nothing to speak of, sees what calls libc (Python, SQLite, PostgreSQL, Erlang), and not what makes system calls
  itself (Go: nats-server). The counter lies in a file that all processes map.
- `tracing`: strace, which stops a process at these two calls alone (seccomp) and sees them whoever makes them. It slows
  what it counts, so that nothing else may be measured in such a round.
"""

import contextlib
import mmap
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import program
from benchmarks.processes import ServerError

__all__ = ["Counter", "Tracer", "counting", "missing_tracer", "tracing"]

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


@dataclass(frozen=True, slots=True)
class Tracer:
    """What runs a program under strace, and the file in which it writes."""

    prefix: tuple[str, ...]
    folder: Path

    def count(self) -> int:
        """Flushes so far, of all that was run with the prefix."""
        lines = [line for file in self.folder.iterdir() for line in file.read_bytes().splitlines()]
        # A call that another thread's line cuts in two is written as `unfinished` and `resumed`.
        return sum(b"sync(" in line and b" resumed>" not in line for line in lines)


def missing_tracer() -> str | None:
    """Why flushes cannot be traced here."""
    return None if program("strace") is not None else "strace is not installed (apt-get install strace)"


@contextlib.contextmanager
def tracing() -> Iterator[Tracer]:
    """A tracer with a folder of its own.

    Raises:
        ServerError: strace is not installed.
    """
    strace = program("strace")
    if strace is None:
        raise ServerError(f"flushes cannot be counted: {missing_tracer()}")
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        if os.getuid() == 0:
            # A server that refuses root writes here as its own user.
            Path(folder).chmod(0o777)
        # -D: the program stays our child and strace is not; -ff: a file for each process, so that programs do not mix.
        calls = ("--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-e", "signal=none")
        yield Tracer((strace, "-D", "-ff", "-qq", *calls, "-o", f"{folder}/flushes", "--"), Path(folder))
