"""Ends asyncio tasks for certain.

One `cancel` may be lost: in Python 3.11 `asyncio.wait_for` returns its result instead when both come in the same turn
of the loop. aiomqtt uses it for each packet that it publishes, amqtt for each that it reads. A loop that lost its
cancellation runs on, and whoever waits for its end waits for ever: a relay that is told to stop in the middle of
traffic would hang.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.1


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, again and again until they have ended; how they ended is not told."""
    ending = list(tasks)
    while pending := [task for task in ending if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*ending, return_exceptions=True)


async def finish(task: asyncio.Task[None]) -> None:
    """Wait for a task that ends others by one `cancel` each; whichever of them lost it is cancelled again.

    Raises:
        Exception: what the task raised.
    """
    while not task.done():
        await asyncio.wait((task,), timeout=AGAIN_S)
        for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
            if not task.done() and other.cancelling():
                other.cancel()
    task.result()
