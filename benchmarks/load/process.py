"""Load processes from the outside: starts them, takes them through the phases together, collects what they measured."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from benchmarks.load.job import Job, LoadResult, Said
from benchmarks.load.ledger import LostOrDoubled

__all__ = ["LoadFailed", "Loads", "running"]


class LoadFailed(Exception):
    """A load process ended without a result; the text says why."""


class Loads:
    """Load processes that do the same things at the same time. Made by `running`."""

    def __init__(self, processes: Sequence["subprocess.Popen[Any]"], progress: Callable[[int], None]) -> None:
        self._processes = processes
        self._progress = progress

    def phase(self, word: str, reached: str) -> list[LoadResult]:
        """Say a word to all, and wait until all have reached a phase; returns results, where they have them.

        Raises:
            LostOrDoubled: the account of one did not close.
            LoadFailed: one failed otherwise.
        """
        for process in self._processes if word else ():
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{word}\n")
                process.stdin.flush()
        return [result for process in self._processes for result in self._wait(process, reached)]

    def _wait(self, process: "subprocess.Popen[Any]", reached: str) -> list[LoadResult]:
        assert process.stdout is not None
        for line in process.stdout:
            said = msgspec.json.decode(line, type=Said)
            if said.failed:
                kind, _, words = said.failed.partition(": ")
                raise (LostOrDoubled(words) if kind == "LostOrDoubled" else LoadFailed(said.failed))
            if said.progress >= 0 and process is self._processes[0]:
                self._progress(said.progress * len(self._processes))
            if said.phase == reached:
                return [said.result] if said.result is not None else []
        raise LoadFailed("a load process ended too early")


@contextlib.contextmanager
def running(jobs: Sequence[Job], progress: Callable[[int], None]) -> Iterator[Loads]:
    """Load processes, one for each job, ready to submit; ended when the block is left."""
    processes: list[subprocess.Popen[Any]] = []
    try:
        for job in jobs:
            process: subprocess.Popen[Any] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(job).decode() + "\n")
            process.stdin.flush()
        loads = Loads(processes, progress)
        loads.phase("", "ready")
        yield loads
    finally:
        for process in processes:
            process.kill()
            process.communicate()
