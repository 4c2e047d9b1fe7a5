"""Ends asyncio tasks for certain.

One `cancel` may be lost: in Python 3.11 `asyncio.wait_for`, which aiomqtt uses for each packet that it publishes, returns
its result instead when both come in the same turn of the loop. A loop that lost its cancellation would run on, and whoever
waits for its end would wait for ever (seen once: a relay that was told to stop right after a receipt).
"""

import asyncio
from collections.abc import Iterable

AGAIN_S = 0.2


async def end_tasks(tasks: "Iterable[asyncio.Task[object]] | Iterable[asyncio.Task[None]]") -> None:
    """Cancel tasks, again and again until they have ended; how they ended is not told."""
    ending = list(tasks)
    while pending := [task for task in ending if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*ending, return_exceptions=True)
