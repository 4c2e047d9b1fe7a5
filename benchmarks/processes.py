"""Processes that a benchmark starts, measures and ends: servers on loopback, with their data in a folder of the run.

Rules: a process is ended by its own id and nothing else; figures come from /proc of the process and of all that
it started: CPU from `stat`, memory from `smaps_rollup`, bytes to the disk from `io`. On a system without /proc the
figures are missing, and the benchmark says so instead of inventing them.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.transport.address import free_port as _free_port

__all__ = ["Server", "ServerError", "Usage", "free_port", "memory_of", "own_cpu_s", "started", "usage_of", "wait_for"]

READY_S_MAX = 60.0
END_S_MAX = 30.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server that did not start; the text has the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children used so far."""

    cpu_s: float
    written_bytes: int

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(self.cpu_s - earlier.cpu_s, self.written_bytes - earlier.written_bytes)


@dataclass(slots=True)
class Server:
    """A process that was started here."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid


@contextlib.contextmanager
def started(
    command: Sequence[object],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    end_signal: int = signal.SIGTERM,
    user: str | None = None,
) -> Iterator[Server]:
    """A server's process, ended when the block is left.

    Args:
        command: program and arguments.
        log: where its output goes.
        environment: added to this process's.
        folder: its working folder.
        end_signal: what asks it to end.
        user: run it as this user (for servers that refuse root).
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            user=user,
            extra_groups=[] if user is not None else None,
        )
    try:
        yield Server(process, log)
    finally:
        process.send_signal(end_signal)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S_MAX)


def wait_for(server: Server, port: int, host: str = "127.0.0.1") -> None:
    """Wait until a port can be connected to.

    Raises:
        ServerError: the server ended, or took too long.
    """
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.02)
    tail = server.log.read_bytes()[-600:].decode(errors="replace")
    raise ServerError(f"{Path(str(server.process.args[0])).name} did not start: {tail}")  # type: ignore[index]


def free_port() -> int:
    """A port of this machine that is free now, and that no outgoing connection is given by chance."""
    return _free_port("127.0.0.1")


def family_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def _families(pids: Iterable[int]) -> set[int]:
    return {member for pid in pids for member in family_of(pid)}


def usage_of(*pids: int) -> Usage:
    """CPU and bytes to the disk of processes and their descendants; CPU also of those that have ended meanwhile."""
    cpu_s = 0.0
    written = 0
    for pid in _families(pids):
        cpu_s += _cpu_s(pid)
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    written += int(line.split()[1])
    return Usage(cpu_s, written)


def _cpu_s(pid: int) -> float:
    """CPU of a process, its ended threads and children included.

    `stat` counts whole ticks of 10 ms, which for twenty processes of a quarter of a second would lose half; `schedstat`
    of the threads that live counts nanoseconds. The larger of the two is nearer.
    """
    ticks = ended = 0
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    exact_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            exact_ns += int(task.read_text().split()[0])
    return max(ticks / _TICKS_PER_S, exact_ns / 1e9) + ended / _TICKS_PER_S


def memory_of(*pids: int) -> dict[str, int]:
    """`rss_kib` and `pss_kib` of processes and their descendants; what shared pages add to PSS is divided fairly."""
    found = {"rss_kib": 0, "pss_kib": 0}
    for pid in _families(pids):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in {"Rss", "Pss"}:
                    found[f"{name.lower()}_kib"] += int(rest.split()[0])
    return found


def own_cpu_s() -> float:
    """User and system time of this process so far."""
    return time.process_time()
