"""Work spread over processes that share what the parent has read and opened.

Workers are forked: they inherit the open files and all that windows are compared with, so nothing large is copied or
pickled; only results come back, over a pipe for each. Forking is safe only while this process has one thread, since a
lock that another thread holds would stay locked in the child. With more threads, on a system without fork, or for one
worker, everything is done in this process. The next task is whatever a shared counter says, so that no worker waits.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from audit.errors import AuditError
from audit.keysearch.settings import KeySearchError

Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class _Failed:
    """A file could not be read. Any other exception is a fault, which the worker's own traceback tells."""

    where: str
    problem: str


def can_fork() -> bool:
    """Whether forked workers are possible and safe."""
    return sys.platform == "linux" and threading.active_count() == 1


def spread(tasks: Sequence[Task], work: Callable[[Task], Done], workers: int) -> Iterator[Done]:
    """Do all tasks, in any order.

    Args:
        tasks: what to do.
        work: does one; in a worker it sees this process's memory as it is now.
        workers: processes.

    Raises:
        KeySearchError: a worker ended before its work was done, for instance for want of memory.
    """
    if workers == 1 or len(tasks) < 2 or not can_fork():
        for task in tasks:
            yield work(task)
        return
    context = multiprocessing.get_context("fork")
    # The counter's lock is shared; what it guards is one number.
    next_task = context.Value("q", 0)
    processes, pipes = [], []
    try:
        for _ in range(min(workers, len(tasks))):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(tasks, work, next_task, sender), daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            pipes.append(receiver)
        yield from _results(pipes, len(tasks))
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for pipe in pipes:
            pipe.close()


def _results(pipes: list[Connection], expected: int) -> Iterator[Any]:
    received, waiting = 0, list(pipes)
    while waiting:
        for pipe in wait(waiting):
            assert isinstance(pipe, Connection)
            try:
                result = pipe.recv()
            except EOFError:
                waiting.remove(pipe)
                continue
            if isinstance(result, _Failed):
                raise KeySearchError(result.where, result.problem)
            received += 1
            yield result
    if received < expected:
        raise KeySearchError("key search", f"a worker ended early, {expected - received} blocks were not searched")


def _run(tasks: Sequence[Any], work: Callable[[Any], Any], next_task: Any, sender: Connection) -> None:
    """A worker's life: the parent is who hears of Ctrl-C, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            with next_task.get_lock():
                position = next_task.value
                next_task.value = position + 1
            if position >= len(tasks):
                return
            sender.send(work(tasks[position]))
    except BrokenPipeError:
        # Nobody listens any more.
        return
    except AuditError as error:
        sender.send(_Failed(error.where, error.problem))
    finally:
        sender.close()
