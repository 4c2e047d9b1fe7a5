"""What orders and announcements do to the service of a jurisdiction: served, ending, ended, blocked.

It follows from the scenario alone, so it is worked out before the run: a list of changes, each with its cause.

    order answered `leave`   ─ deadline ─▶ ended (ending `drain_days` before)        extension moves, withdrawal cancels
    order not honoured       ─ deadline ─▶ blocked, where the state enforces         withdrawal lifts
    announcements            exit, exit-moved, stay
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from sim.orders.policy import Answer, answer_to
from sim.scenario.base import DAY_S, Moment
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import Announcement, Order

__all__ = ["SERVED", "Change", "Happening", "happenings", "service_changes", "state_on"]

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
    return sorted(found, key=lambda happening: happening.at_s)


def service_changes(scenario: Scenario) -> list[Change]:
    """Every change of service within the run, in order."""
    return _Walk(scenario).changes()


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
        self._changes: list[Change] = []

    def changes(self) -> list[Change]:
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
        return self._changes

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
                self._changes.append(Change(at_s, name, state, cause or "the day has come"))

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
        if deadline is None and answer is Answer.LEAVING:
            deadline = order.date.plus_s(_NO_DEADLINE_S)
        if deadline is not None:
            self._due(order, answer, deadline)
        return order.id

    def _due(self, order: Order, answer: Answer, deadline: Moment) -> str:
        place = self._places[order.jurisdiction]
        jurisdiction = self._scenario.jurisdiction_of(order.jurisdiction)
        if answer is Answer.LEAVING:
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
