"""Virtual time: an event loop that never waits. When nothing can run, its clock jumps to the next timer.

A scenario of a month takes the time of its computations, and the same scenario runs in the same order each time: no
thread, no socket and no signal takes part, so nothing of the machine does.

Rules: whatever runs on it must not use threads or sockets; a scenario in which nothing can run and no timer is set is a
deadlock, and an error.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

__all__ = ["Deadlock", "VirtualLoop", "run_virtually"]

T = TypeVar("T")


_TURNS_AT_ONCE: Final = 50
_SPIN_S: Final = 0.005
"""After so many turns of the loop at one moment, so much time has passed."""


class Deadlock(RuntimeError):
    """Nothing can run, and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits for no socket: a wait moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("nothing can run and no timer is set")
        if timeout > 0:
            self.now_s += timeout
            self._turns = 0
            return []
        self._turns += 1
        if self._turns >= _TURNS_AT_ONCE:
            # Whoever spins until a moment has come would spin for ever if computing took no time at all.
            self.now_s += _SPIN_S
            self._turns = 0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and jumps."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s


def run_virtually(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a scenario to its end under virtual time; what it leaves running is cancelled.

    Args:
        scenario: called inside the loop.

    Raises:
        Deadlock: nothing can run and no timer is set.
        Exception: what the scenario, or a callback of its timers, raised.
    """
    failed: list[BaseException] = []

    async def whole() -> T:
        return await scenario()

    loop = VirtualLoop()
    main = loop.create_task(whole())

    def on_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio only logs what a timer's callback raises; here it ends the run.
        error = context.get("exception")
        failed.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))
        main.cancel()

    loop.set_exception_handler(on_error)
    try:
        return loop.run_until_complete(main)
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        if rest:
            loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
