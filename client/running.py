"""A device between its home and its loop: the state at rest, the running engine, and waiting for what the loop does.

    at rest ── start ──▶ running: client/engine.py in a task of its own ── stop, crash ──▶ the home is let go of

At rest rows can be read and some changed; whatever needs the loop raises `Unknown`. Whoever waits is told when the loop
ends, and never waits for what can no longer happen. The engine loads its state again after a step that failed: ask
for `state` anew after each wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from client.beginning import begin_again
from client.engine import Engine
from client.erasing import Erasing
from client.errors import Unknown
from client.route import transport_of
from client.state import Settings, State, Surroundings
from client.store import Store
from client.transport import Transport

__all__ = ["Running"]

T = TypeVar("T")


class Running:
    """An open home, and the loop over it while there is one.

    Args:
        store: the device's open store.
        settings: how it behaves.
        surroundings: clock and randomness.
        transport: how packets travel; without one, as the home says (client/route.py).

    Raises:
        HomeInvalid: the store holds no device.
        FormatError: the card's broker is no address, or the home's gateway card is malformed.
    """

    def __init__(
        self, store: Store, settings: Settings, surroundings: Surroundings, transport: Transport | None
    ) -> None:
        self.store = store
        self._settings = settings
        self._surroundings = surroundings
        self._state_at_rest = State(store, settings, surroundings)
        self._transport = transport or transport_of(self._state_at_rest.card, store.home)
        self._engine: Engine | None = None
        self.task: asyncio.Task[None] | None = None
        self._erasing = Erasing(store)
        if store.rolled_back and self._state_at_rest.device.account:
            begin_again(self._state_at_rest)
            self._state_at_rest = State(store, settings, surroundings)

    @property
    def state(self) -> State:
        """The loaded state; the engine's while it runs."""
        return self._engine.state if self._engine else self._state_at_rest

    @property
    def is_running(self) -> bool:
        """Whether there is a loop."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The running loop.

        Raises:
            Unknown: the device is not running; enter its context first.
        """
        if self._engine is None:
            raise Unknown("device", "it is not running: use it inside `async with`")
        return self._engine

    # Life

    def start(self) -> None:
        """Start the loop."""
        self._engine = Engine(self.store, self._settings, self._surroundings, self._transport)
        self.task = asyncio.create_task(self._engine.run())
        self._erasing.start()

    async def stop(self) -> None:
        """End the loop and let go of the home; raises what the loop failed with."""
        engine, task = self._engine, self.task
        assert engine is not None
        assert task is not None
        engine.close()
        try:
            await task
        finally:
            self._engine = self.task = None
            self._erasing.stop()
            self.store.close()

    async def crash(self) -> None:
        """Stop without writing anything more, as a kill would; for tests of crashes."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self._engine = self.task = None
        self._erasing.stop()
        self.store.abandon()

    # Waiting

    async def until(self, condition: Callable[[], bool], what: str, wait_s: float | None) -> None:
        """Wait until a condition holds; it is asked again after each change, and may raise.

        Raises:
            Unknown: not within `wait_s` seconds.
        """

        async def wait() -> None:
            while not condition():
                await self.engine.changed.wait()

        await self.within(wait(), what, wait_s)

    async def within(self, awaitable: Awaitable[T], what: str, wait_s: float | None) -> T:
        """Wait for something that the loop brings about.

        Raises:
            Unknown: not within `wait_s` seconds, or the loop was stopped.
        """
        loop_task = self.task
        assert loop_task is not None, "the engine was asked for before"
        waiting = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({waiting, loop_task}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if loop_task.done():
                # Whoever waits must not wait for ever when the loop has failed.
                loop_task.result()
                raise Unknown(what, "the device was stopped")
        finally:
            waiting.cancel()
        last = self.engine.last_error
        raise Unknown(what, str(last) if last else f"no answer within {wait_s} s")

    def is_enrolled(self) -> bool:
        """Whether a link stands and the relay knows this device.

        Raises:
            Refused: the relay refused the enrolment.
        """
        if self.engine.enrolment.failure is not None:
            raise self.engine.enrolment.failure
        return self.engine.link.up and self.state.device.enrolled

    async def quiet(self, quiet_s: float) -> None:
        """Wait until a link stands and nothing was delivered for `quiet_s` seconds.

        Raises:
            Refused: the relay refused the enrolment.
        """
        clock = asyncio.get_running_loop().time
        while True:
            await self.until(self.is_enrolled, "enrol", None)
            inbox, subscription = self.engine.inbox, self.engine.inbox.subscription
            left_s = subscription.arrived_s + quiet_s - clock()
            if subscription.is_answered and not inbox.contacts.is_asking and left_s <= 0:
                return
            await asyncio.sleep(max(left_s, quiet_s / 4))
