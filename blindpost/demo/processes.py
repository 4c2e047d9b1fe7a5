"""The other programs of the story: relay, verifier, controls; each started by exec and ended by its process id.

Nothing here is in the story's own process: the relay has not even loaded a client, the verifier has loaded nothing of
ours. All are started in sessions of their own, so that Ctrl-C in a terminal reaches the story alone, which then ends
them in order.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wire.errors import BlindpostError

__all__ = [
    "ProgramFailed",
    "RelayProcess",
    "Verdict",
    "audit",
    "controls",
    "environment",
    "relay_running",
    "since_boot",
]

_ROOT: Final = Path(__file__).resolve().parents[2]
_READY_S_MAX: Final = 30.0
_END_S_MAX: Final = 10.0
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024


class ProgramFailed(BlindpostError):
    """A program of the story ended, or did not start; the text has its last words."""


@dataclass(frozen=True)
class RelayProcess:
    """A relay at work.

    Attributes:
        pid: its process.
        broker: the URL that devices use.
        started: when the kernel says that it was started, Unix seconds.
    """

    pid: int
    broker: str
    started: float


@dataclass(frozen=True)
class Verdict:
    """What the verifier said.

    Attributes:
        exit_status: 0 BLIND, 1 NOT BLIND, 2 INCOMPLETE.
        report: its JSON, as docs/verifier.md lists it.
        pid: the verifier's process.
        seconds: how long it took.
    """

    exit_status: int
    report: dict[str, Any]
    pid: int
    seconds: float

    @property
    def word(self) -> str:
        """BLIND, NOT BLIND or INCOMPLETE."""
        return str(self.report["verdict"])

    def check(self, check_id: str) -> dict[str, Any]:
        """One check's part of the report."""
        found: dict[str, Any] = next(check for check in self.report["checks"] if check["id"] == check_id)
        return found


def environment() -> dict[str, str]:
    """The environment for our programs: they run from the same checkout or installation as the story."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))}


@contextlib.asynccontextmanager
async def relay_running(home: Path, errors: Path) -> AsyncIterator[RelayProcess]:
    """Run `python -m relay run` until the block ends.

    Args:
        home: the relay's home.
        errors: gets what the relay writes to standard error.

    Raises:
        ProgramFailed: it does not get ready.
    """
    with errors.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "relay", "run", "--home", str(home)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            env=environment(),
            start_new_session=True,
        )
        try:
            yield RelayProcess(process.pid, await _ready(process, errors), since_boot(process.pid))
        finally:
            await _end(process)


async def _ready(process: asyncio.subprocess.Process, errors: Path) -> str:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _READY_S_MAX)
    except TimeoutError:
        line = b""
    words = dict(word.split("=", 1) for word in line.decode().split() if "=" in word)
    if not line.startswith(b"ready ") or "broker" not in words:
        raise ProgramFailed(f"the relay does not get ready: {errors.read_text(errors='replace')[-500:]}")
    return words["broker"]


def since_boot(pid: int) -> float:
    """When a process was started, in Unix seconds, by the kernel's account (proc(5), stat field 22)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = int(fields[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


async def audit(
    disclosure: Path,
    card: Path,
    commitments: Path,
    volunteered: Sequence[Path],
    out: Path,
    controls_file: Path | None = None,
    order: Path | None = None,
) -> Verdict:
    """Run `python -m audit` on a disclosure; writes report.json and report.html into `out`.

    Raises:
        ProgramFailed: it gave no verdict.
    """
    started_s = time.monotonic()
    command = [
        *(sys.executable, "-m", "audit", str(disclosure), "--relay-card", str(card)),
        *("--commitments", str(commitments), "--volunteered", *(str(path) for path in volunteered)),
        *(("--order", str(order)) if order else ()),
        *("--json", "--html", str(out / "report.html"), "--quiet"),
        *(("--controls", str(controls_file)) if controls_file else ()),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate()
    finally:
        await _end(process)
    if process.returncode not in {0, 1, 2}:
        raise ProgramFailed(f"the verifier gave no verdict: {errors.decode(errors='replace')[-500:]}")
    (out / "report.json").write_bytes(output)
    return Verdict(process.returncode, json.loads(output), process.pid, time.monotonic() - started_s)


@contextlib.asynccontextmanager
async def controls(work: Path) -> AsyncIterator["asyncio.Queue[dict[str, Any] | None]"]:
    """Run `python -m sim.mutants` beside the block, with lower priority; the queue gets each result, then None.

    Args:
        work: a folder for its worlds, which the caller removes.
    """
    with (work / "controls.errors").open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sim.mutants", "--workers", "2"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            env={**environment(), "TMPDIR": str(work)},
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )
    os.setpriority(os.PRIO_PROCESS, process.pid, 10)
    results: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    reading = asyncio.create_task(_read_lines(process, results))
    try:
        yield results
    finally:
        reading.cancel()
        # It has workers, and they have relays that cheat: all are of the session that was made for it above.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        await _end(process)


async def _read_lines(process: asyncio.subprocess.Process, results: "asyncio.Queue[dict[str, Any] | None]") -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        results.put_nowait(json.loads(line))
    results.put_nowait(None)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that we started, by its id: first asked, then made to."""
    if process.returncode is not None:
        return
    for end in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S_MAX)
            return
