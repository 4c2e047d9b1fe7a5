"""Empties a store's write-ahead log while its device runs: what was erased must not stay in it while nothing happens.

The first step after the log was emptied sets a timer of half a second; when it is over, the log is emptied, whatever
was written meanwhile. A log that another reader holds (a copy under way), or a disk that fails, is asked again a second
later.

It is done on the event loop, as every step is, so that no lock is needed and a simulated clock drives it. What it takes
is bounded: SQLite moves pages to the database by itself at each 1,000 (4 MiB), and client/store.py empties the log
after 64 steps.

Left to client/store.py: emptying, also at the opening and the close. A device that is open and does not run has no loop
and no timer.
"""

import asyncio
from typing import Final

from client.store import Store

__all__ = ["ERASE_AFTER_S", "Erasing"]

ERASE_AFTER_S: Final = 0.5
_AGAIN_AFTER_S: Final = 1.0


class Erasing:
    """The timer of one store; between `start` and `stop` only.

    Args:
        store: the device's open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; what was written before the loop ran counts as written now."""
        self._loop = asyncio.get_running_loop()
        self._store.on_commit = self._soon
        self._soon()

    def stop(self) -> None:
        """End; the store's close empties the log. Calling it twice is harmless."""
        self._store.on_commit = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _soon(self) -> None:
        if self._timer is None:
            self._set(ERASE_AFTER_S)

    def _set(self, after_s: float) -> None:
        assert self._loop is not None, "it was started"
        self._timer = self._loop.call_later(after_s, self._erase)

    def _erase(self) -> None:
        self._timer = None
        if not self._store.empty_log():
            self._set(_AGAIN_AFTER_S)
