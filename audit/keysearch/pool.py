"""Work spread over processes that share what the parent has read and opened.

Workers are forked: they inherit the open files and all that windows are compared with, so nothing large is copied or
pickled; only results come back, over a pipe for each. Forking is safe only while this process has one thread, since a
lock that another thread holds would stay locked in the child. With more threads, on a system without fork, or for one
worker, everything is done in this process. Workers are told their next task over a second pipe while they do one, so
that none waits. A shared counter would do as well, but Python keeps that in a file that it makes, and a verifier writes
none.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
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
    processes: list[ForkProcess] = []
    orders: dict[Connection, Connection] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            receiver, sender = context.Pipe(duplex=False)
            order_receiver, order_sender = context.Pipe(duplex=False)
            ours = [*orders.keys(), *orders.values(), receiver, order_sender]
            process = context.Process(target=_run, args=(tasks, work, order_receiver, sender, ours), daemon=True)
            process.start()
            sender.close()
            order_receiver.close()
            processes.append(process)
            orders[receiver] = order_sender
        yield from _results(orders, len(tasks))
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for receiver, order_sender in orders.items():
            receiver.close()
            order_sender.close()


def _results(orders: dict[Connection, Connection], expected: int) -> Iterator[Any]:
    """Give each worker its next task before it has done the one before, and hand on what comes back."""
    received, following, waiting = 0, 0, dict(orders)
    for order in orders.values():
        following = _order(order, following, expected)
    for order in orders.values():
        following = _order(order, following, expected)
    while waiting:
        for pipe in wait(list(waiting)):
            assert isinstance(pipe, Connection)
            try:
                result = pipe.recv()
            except EOFError:
                del waiting[pipe]
                continue
            if isinstance(result, _Failed):
                raise KeySearchError(result.where, result.problem)
            received += 1
            following = _order(waiting[pipe], following, expected)
            yield result
    if received < expected:
        raise KeySearchError("key search", f"a worker ended early, {expected - received} blocks were not searched")


def _order(order: Connection, position: int, count: int) -> int:
    """Send a worker its next task, or that there is none."""
    # A worker that has ended is heard of as the end of its results.
    with suppress(BrokenPipeError):
        order.send(position if position < count else None)
    return position + 1


def _run(
    tasks: Sequence[Any],
    work: Callable[[Any], Any],
    orders: Connection,
    sender: Connection,
    ends_of_parent: Sequence[Connection],
) -> None:
    """A worker's life: the parent is who hears of Ctrl-C, and ends its workers."""
    for end in ends_of_parent:
        # Forked along with all else: as long as a worker held them, it would not see that its parent is gone.
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while (position := orders.recv()) is not None:
            sender.send(work(tasks[position]))
    except (BrokenPipeError, EOFError):
        # Nobody listens any more.
        return
    except AuditError as error:
        sender.send(_Failed(error.where, error.problem))
    finally:
        sender.close()
