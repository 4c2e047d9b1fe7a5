"""Virtual time: what is to happen when, in milliseconds of Unix time, and nothing else.

Whatever falls on one moment is done together, in the order in which it was put there; then `settle` is called once for
that moment, which is where the relay works on all that has arrived. So a thousand packets of one moment cost one turn.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

__all__ = ["Calendar"]

Call = Callable[..., None]


class Calendar:
    """A queue of calls by moment.

    Args:
        now_ms: when the run begins.
        grid_ms: moments are rounded up to multiples of this, counted from Unix time 0.
    """

    def __init__(self, now_ms: int, grid_ms: int) -> None:
        self.now_ms = now_ms
        self.grid_ms = grid_ms
        self.moments = 0
        self._slots: dict[int, list[tuple[Call, tuple[Any, ...]]]] = {}
        self._times: list[int] = []

    def at(self, moment_ms: int, call: Call, *arguments: Any) -> None:
        """Call at a moment; a past one is the next of the grid."""
        grid_ms = self.grid_ms
        moment_ms = -(-max(moment_ms, self.now_ms + 1) // grid_ms) * grid_ms
        slot = self._slots.get(moment_ms)
        if slot is None:
            self._slots[moment_ms] = [(call, arguments)]
            heappush(self._times, moment_ms)
        else:
            slot.append((call, arguments))

    def after(self, wait_ms: int, call: Call, *arguments: Any) -> None:
        """Call after so long."""
        self.at(self.now_ms + wait_ms, call, *arguments)

    def run(self, until_ms: int, settle: Callable[[int], None]) -> None:
        """Let time pass; returns when nothing is left before `until_ms`, which is the time then."""
        times, slots = self._times, self._slots
        while times and times[0] <= until_ms:
            moment_ms = heappop(times)
            self.now_ms = moment_ms
            for call, arguments in slots.pop(moment_ms):
                call(*arguments)
            settle(moment_ms)
            self.moments += 1
        self.now_ms = until_ms
