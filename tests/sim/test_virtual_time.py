"""Virtual time: waits cost nothing, and errors end the run."""

import asyncio

import pytest

from sim.virtual_time import Deadlock, run_virtually


def test_waits_move_the_clock_and_nothing_else() -> None:
    order: list[str] = []

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(2 * 86_400, order.append, "two days")
        loop.call_later(1.0, order.append, "a second")
        await asyncio.sleep(30 * 86_400)
        return loop.time()

    assert run_virtually(scenario) == pytest.approx(30 * 86_400)
    assert order == ["a second", "two days"]


def test_error_of_a_timer_ends_the_run() -> None:
    def fail() -> None:
        raise ValueError("told")

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(1.0, fail)
        await asyncio.sleep(10.0)

    with pytest.raises(ValueError, match="told"):
        run_virtually(scenario)


def test_deadlock_is_an_error() -> None:
    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtually(scenario)


def test_whoever_spins_until_a_moment_gets_there() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        while loop.time() < 1.0:
            await asyncio.sleep(0)
        return loop.time()

    assert run_virtually(scenario) == pytest.approx(1.0, abs=0.1)
