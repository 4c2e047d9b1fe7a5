"""What orders and announcements do to the service of a jurisdiction: served, ending, ended, blocked.

It follows from the scenario alone, so it is worked out before the run: a list of changes, each with its cause.

    order answered `leave`   ─ deadline ─▶ ended (ending `drain_days` before)        extension moves, withdrawal cancels
    order not honoured       ─ deadline ─▶ blocked, where the state enforces         withdrawal lifts
    announcements            exit, exit-moved, stay

and what the relay says of it in its public log: a list of steps of leaving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from sim.orders.policy import Answer, answer_to, ends_service
from sim.scenario.base import DAY_S, Moment
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import Announcement, Order

__all__ = ["SERVED", "Change", "ExitStep", "Happening", "exit_steps", "happenings", "service_changes", "state_on"]

SERVED: Final = "served"
ENDING: Final = "ending"
ENDED: Final = "ended"
BLOCKED: Final = "blocked"
_NO_DEADLINE_S: Final = 90 * DAY_S


@dataclass(frozen=True)
class Change:
    """From `at_s` on, the service in a jurisdiction is `state`."""

    at_s: int
    jurisdiction: str
    state: str
    cause: str


@dataclass(frozen=True)
class ExitStep:
    """A step of leaving a jurisdiction, as the public log has them.

    Attributes:
        at_s: when it is said.
        jurisdiction: which is left, by its name.
        step: announced, extended, cancelled or completed.
        ends_s: the day of leaving.
        cause: an order's id and what became of it, or what was announced.
    """

    at_s: int
    jurisdiction: str
    step: str
    ends_s: int
    cause: str


@dataclass(frozen=True)
class Happening:
    """One line of the public timeline."""

    at_s: int
    what: str
    jurisdiction: str
    text: str


@dataclass
class _Place:
    """One jurisdiction while the timeline is walked through."""

    state: str = SERVED
    exits: dict[str, int] = field(default_factory=dict)
    """By cause: the day of leaving."""
    left: bool = False
    told_s: int | None = None
    """The day of leaving that was announced last."""
    is_over: bool = False
    """The log has no step after the one that completes an exit, also where the relay comes back."""
    blocks: dict[str, int] = field(default_factory=dict)
    """By order: since when it is to be blocked."""


def happenings(scenario: Scenario) -> list[Happening]:
    """Orders, answers, extensions, withdrawals and announcements, by date."""
    found: list[Happening] = []
    for order in scenario.order:
        answer = answer_to(order, scenario.jurisdiction_of(order.jurisdiction))
        place = order.jurisdiction
        found.append(Happening(order.date.unix_s, "order", place, f"{order.issuer}: {order.says or order.kind}"))
        found.append(Happening(order.date.unix_s, "answer", place, f"{order.id}: {answer.value}"))
        for extension in order.extension:
            found.append(Happening(extension.on.unix_s, "extension", place, f"{order.id}: to {extension.deadline}"))
        if order.withdrawn is not None:
            found.append(Happening(order.withdrawn.unix_s, "withdrawal", place, order.id))
    for said in scenario.announcement:
        found.append(Happening(said.date.unix_s, "announcement", said.jurisdiction, f"{said.by}: {said.says}"))
    found += [
        Happening(change.at_s, "service", change.jurisdiction, f"{change.state} ({change.cause})")
        for change in service_changes(scenario)
    ]
    found += [
        Happening(one.at_s, "exit", one.jurisdiction, f"{one.step}: {Moment(one.ends_s)} ({one.cause})")
        for one in exit_steps(scenario)
    ]
    return sorted(found, key=lambda happening: happening.at_s)


def service_changes(scenario: Scenario) -> list[Change]:
    """Every change of service within the run, in order."""
    return _Walk(scenario).walked().changes


def exit_steps(scenario: Scenario) -> list[ExitStep]:
    """Every step of leaving a jurisdiction within the run, in order."""
    return _Walk(scenario).walked().steps


def state_on(changes: Sequence[Change], jurisdiction: str, at_s: int) -> str:
    """The service of a jurisdiction at a moment."""
    state = SERVED
    for change in changes:
        if change.jurisdiction == jurisdiction and change.at_s <= at_s:
            state = change.state
    return state


class _Walk:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._places = {one.name: _Place() for one in scenario.jurisdiction}
        self._queue: list[tuple[int, int, Any]] = []
        self._made = 0
        self.changes: list[Change] = []
        self.steps: list[ExitStep] = []

    def walked(self) -> "_Walk":
        """Walk to the end of the run."""
        for order in self._scenario.order:
            self._at(order.date, lambda order=order: self._ordered(order))
        for said in self._scenario.announcement:
            self._at(said.date, lambda said=said: self._announced(said))
        while self._queue:
            at_s, _made, act = heappop(self._queue)
            if at_s > self._scenario.end.unix_s:
                break
            cause = act()
            self._look(at_s, cause)
        return self

    def _at(self, moment: Moment, act: Any) -> None:
        self._made += 1
        heappush(self._queue, (moment.unix_s, self._made, act))

    def _look(self, at_s: int, cause: str | None) -> None:
        """Compare every place with what follows from its exits and blocks."""
        for name, place in self._places.items():
            drain_s = self._scenario.jurisdiction_of(name).drain_days * DAY_S
            due = [on for on in place.exits.values() if on <= at_s]
            place.left = place.left or bool(due)
            if place.left:
                state = ENDED
            elif any(since <= at_s for since in place.blocks.values()):
                state = BLOCKED
            elif any(on - drain_s <= at_s for on in place.exits.values()):
                state = ENDING
            else:
                state = SERVED
            if state != place.state:
                place.state = state
                self.changes.append(Change(at_s, name, state, cause or "the day has come"))
            if not place.is_over:
                self._say(at_s, name, place, cause or "the day has come")

    def _say(self, at_s: int, name: str, place: _Place, cause: str) -> None:
        """What the relay says in its log of leaving a place, where that is another thing than it said last."""

        def step(word: str, ends_s: int) -> None:
            self.steps.append(ExitStep(at_s, name, word, ends_s, cause))

        told_s, ends_s = place.told_s, min(place.exits.values(), default=None)
        if told_s is not None and ends_s is not None and ends_s > told_s:
            step("extended", ends_s)
        elif told_s != ends_s:
            # An earlier day is another exit: the log extends to later ones only.
            if told_s is not None:
                step("cancelled", told_s)
            if ends_s is not None:
                step("announced", ends_s)
        place.told_s = ends_s
        if ends_s is not None and ends_s <= at_s:
            step("completed", ends_s)
            place.is_over = True

    def _look_again(self, moment: Moment) -> None:
        self._at(moment, lambda: None)

    def _ordered(self, order: Order) -> str:
        jurisdiction = self._scenario.jurisdiction_of(order.jurisdiction)
        answer = answer_to(order, jurisdiction)
        if order.withdrawn is not None:
            self._at(order.withdrawn, lambda: self._withdrawn(order))
        for extension in order.extension:
            self._at(extension.on, lambda extension=extension: self._due(order, answer, extension.deadline))
        deadline = order.deadline
        if deadline is None and order.kind == "block":
            deadline = order.date
        if deadline is None and ends_service(order, answer):
            deadline = order.date.plus_s(_NO_DEADLINE_S)
        if deadline is not None:
            self._due(order, answer, deadline)
        return order.id

    def _due(self, order: Order, answer: Answer, deadline: Moment) -> str:
        place = self._places[order.jurisdiction]
        jurisdiction = self._scenario.jurisdiction_of(order.jurisdiction)
        if ends_service(order, answer):
            place.exits[order.id] = deadline.unix_s
            self._look_again(deadline.plus_s(-jurisdiction.drain_days * DAY_S))
        elif answer is not Answer.PROVIDED and jurisdiction.enforcement == "block":
            place.blocks[order.id] = deadline.unix_s
        self._look_again(deadline)
        return order.id

    def _withdrawn(self, order: Order) -> str:
        place = self._places[order.jurisdiction]
        place.exits.pop(order.id, None)
        place.blocks.pop(order.id, None)
        return f"{order.id} withdrawn"

    def _announced(self, said: Announcement) -> str:
        if said.effect == "none":
            return said.says
        place = self._places[said.jurisdiction]
        if said.effect == "stay":
            place.exits.clear()
            place.left = False
        else:
            assert said.on is not None, "the scenario was checked"
            if said.effect == "exit-moved":
                place.exits.clear()
            place.exits["announcement"] = said.on.unix_s
            drain_s = self._scenario.jurisdiction_of(said.jurisdiction).drain_days * DAY_S
            self._look_again(said.on.plus_s(-drain_s))
            self._look_again(said.on)
        return f"{said.by}: {said.says}"
