"""How the experiment waits, and how it says what it has waited for in vain: that is a result, and no crash."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["WAIT_S", "Lingers", "NeverCame", "until", "within"]

WAIT_S: Final = 20.0
_LOOK_S: Final = 0.02


class NeverCame(Exception):
    """Something did not come to pass in time.

    Args:
        what: what was waited for.
        wait_s: for how long, in seconds.
    """

    def __init__(self, what: str, wait_s: float) -> None:
        super().__init__(f"waited {wait_s:.0f} s in vain for {what}")


class Lingers(Exception):
    """Something erased is still in the files after many times the stated bound.

    Args:
        what: what was erased.
        after: how much has been done since.
    """

    def __init__(self, what: str, after: str) -> None:
        super().__init__(f"{what} is still there after {after}")


@asynccontextmanager
async def within(what: str, wait_s: float = WAIT_S) -> AsyncIterator[None]:
    """Give up what is done here after a time.

    Raises:
        NeverCame: it has passed.
    """
    try:
        async with asyncio.timeout(wait_s):
            yield
    except TimeoutError:
        raise NeverCame(what, wait_s) from None


async def until(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """Wait until a condition holds.

    Raises:
        NeverCame: it does not in time.
    """
    async with within(what, wait_s):
        while not condition():  # noqa: ASYNC110  # a file is looked at, which sets no event
            await asyncio.sleep(_LOOK_S)
