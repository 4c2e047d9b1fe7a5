"""The orders of a trial: filed by the relay's own desk, and the log read by a stranger after each step.

    order ─▶ desk ─▶ log ─▶ [reader] ─▶ a finding, or a gap, is a violation

The desk is opened anew for each step, as after a restart. What the log must say is what the trial has seen happen.
"""

from collections.abc import Callable
from functools import partial

from relay.home import Home
from sim.engine.chance import generator
from sim.engine.town import Town
from sim.orders.clerk import Clerk
from sim.orders.found import facts_of
from sim.orders.policy import ABOUT_ONE
from sim.swarm.witness import Invariant, Witness

__all__ = ["Docketing"]


class Docketing:
    """The docket of one trial.

    Args:
        town: of the trial; its scenario has orders.
        home: the relay's.
        witness: told what is wrong with the log.
    """

    def __init__(self, town: Town, home: Home, witness: Witness) -> None:
        self._town = town
        self._witness = witness
        self._choices = generator(town.seed, "orders")
        self._clerk = Clerk(town.scenario, home, self._now_s, generator(town.seed, "desk").randbytes)
        self._looked = 0
        self._clerk.plan(lambda at_ms, call: town.calendar.at(at_ms, self._then_look, call))

    def _now_s(self) -> int:
        return self._town.calendar.now_ms // 1_000

    def serve(self, number: int) -> None:
        """Serve an order, now."""
        order = self._town.scenario.order[number]
        person = self._choices.choice(self._town.accounts) if order.kind in ABOUT_ONE else ""
        received = self._clerk.receive(order, person)
        facts = facts_of(received, self._town.disk.store, None, None, self._now_s() + 1)
        self._then_look(partial(self._clerk.answer, received, facts))

    def end(self) -> None:
        """Read the log once more."""
        self._then_look(partial(self._clerk.finished, self._now_s()))

    def _then_look(self, call: Callable[[], object]) -> None:
        call()
        readings = self._clerk.readings
        new, self._looked = readings[self._looked :], len(readings)
        for finding in (*(finding for reading in new for finding in reading.findings), *self._clerk.gaps()):
            self._witness.violated(Invariant.LOG_APPENDS, f"the public log: {finding}")
