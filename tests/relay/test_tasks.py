"""A task that lost its cancellation is ended all the same."""

import asyncio

from relay.tasks import end_tasks


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    async def fails() -> None:
        raise RuntimeError("ended by itself")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(stubborn()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks(tasks), 20)
    assert swallowed == 2
    assert all(task.done() for task in tasks)


async def test_nothing_to_end_ends_at_once() -> None:
    await end_tasks([])
