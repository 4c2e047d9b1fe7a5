"""The frame of one round against a peer: connect, accept, drain, with clocks and CPU around the two phases."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.load.worker import loop_factory
from benchmarks.peers.work import Account, Outcome, Watch, Work, within
from benchmarks.processes import own_cpu_s, usage_of

__all__ = ["Failure", "Window", "Session", "measured", "slots"]


class Failure:
    """What went wrong first, told from a callback."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lost(self, words: str) -> None:
        """A connection broke, or the server refused."""
        self.tell(ConnectionError(words))

    def tell(self, error: Exception) -> None:
        """Something went wrong."""
        if not self.future.done():
            self.future.set_exception(error)


class Session(Protocol):
    """One peer's way to do the work, on connections of its own."""

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Connect the senders; make queues, sessions or rows for recipients that are away."""

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Send everything; returns when all of it is acknowledged."""

    async def drain(self, account: Account, failure: Failure) -> None:
        """Connect every recipient and take everything; returns when the peer knows that it is gone."""

    async def close(self) -> None:
        """Disconnect."""


class Window:
    """How many messages a sender may still send before something is acknowledged."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._size = size
        self._some = asyncio.Event()
        self._all = asyncio.Event()
        self._all.set()

    async def take(self) -> None:
        """Wait for a place, and take it."""
        while not self._free:
            self._some.clear()
            await self._some.wait()
        self._free -= 1
        self._all.clear()

    def give(self, count: int = 1) -> None:
        """So many were acknowledged."""
        self._free += count
        self._some.set()
        if self._free == self._size:
            self._all.set()

    async def settled(self) -> None:
        """Wait until everything is acknowledged."""
        await self._all.wait()


def slots(work: Work, at_once: int) -> asyncio.Semaphore:
    """A gate for recipients that connect: so many at the same time."""
    return asyncio.Semaphore(min(at_once, work.recipients))


def measured(session: Session, pids: Sequence[int], work: Work, watch: Watch) -> Outcome:
    """Take a session through one round.

    Args:
        session: the peer's.
        pids: the server's processes; their descendants count with them.
        work: how much.
        watch: told how many are accepted, and asked for the flushes so far.
    """

    async def run() -> Outcome:
        account, failure = Account(work), Failure()
        await within([session.prepare(account, failure)], failure.future)
        try:
            cpu, flushes = usage_of(*pids).cpu_s, watch.flushes()
            own_s, start_s = own_cpu_s(), time.perf_counter()
            await within([session.accept(account, failure, watch.tell)], failure.future)
            accept_s, accept_own_s = time.perf_counter() - start_s, own_cpu_s() - own_s
            between, flushes_between = usage_of(*pids).cpu_s, watch.flushes()
            own_s, start_s = own_cpu_s(), time.perf_counter()
            await within([session.drain(account, failure)], failure.future)
            drain_s, drain_own_s = time.perf_counter() - start_s, own_cpu_s() - own_s
            end, flushes_end = usage_of(*pids).cpu_s, watch.flushes()
        finally:
            await session.close()
        if failure.future.done():
            failure.future.result()
        failure.future.cancel()
        account.close()
        return Outcome(
            accept_s=accept_s,
            drain_s=drain_s,
            accept_cpu_s=between - cpu,
            drain_cpu_s=end - between,
            load_accept_cpu_s=accept_own_s,
            load_drain_cpu_s=drain_own_s,
            accept_flushes=flushes_between - flushes,
            drain_flushes=flushes_end - flushes_between,
        )

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(run())
