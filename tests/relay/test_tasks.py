"""A task that lost its cancellation is ended all the same."""

import asyncio

import pytest

from relay.tasks import end_tasks, finish


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


async def test_what_a_task_failed_to_end_by_one_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    async def bystander() -> str:
        await asyncio.sleep(0.2)
        return "left alone"

    async def shutdown(reader: asyncio.Task[None]) -> None:
        reader.cancel()
        await asyncio.wait((reader,))

    reader, other = asyncio.create_task(stubborn()), asyncio.create_task(bystander())
    await asyncio.sleep(0)
    await asyncio.wait_for(finish(asyncio.create_task(shutdown(reader))), 20)
    assert reader.cancelled()
    assert await other == "left alone"


async def test_what_a_finished_task_raised_is_told() -> None:
    async def fails() -> None:
        raise RuntimeError("cannot close")

    with pytest.raises(RuntimeError, match="cannot close"):
        await finish(asyncio.create_task(fails()))
