"""The clerk of a simulated relay: whatever happens to an order goes through the relay's own desk, at its moment.

    order       receive ─▶ leaf     answer ─▶ leaf, or appeal ─▶ leaf, or capture ─▶ leaf and the answer at its end
    later       extension, withdrawal, opening, each step of leaving ─▶ leaf

Each time the desk is opened anew, as a process of its own would (relay/orders.py), at the run's time and with chance of
its seed, and afterwards the log is read by audit/ alone (sim/orders/reading.py). The policy is the scenario's, written
into the home as `policy.toml`; the desk decides by it.

What the docket has no step for is not logged: orders to the carriers that do not concern the relay; an extension of
what was honoured before, or its withdrawal, but for a preservation; a return after an exit that was completed.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from relay.core import answers
from relay.core.answers import Facts
from relay.core.docket import NAME_CHARACTERS_MAX, Entry, OrderKind, OrderState, Scope, ScopeKind
from relay.core.docket import Order as FiledOrder
from relay.core.policy import Decision
from relay.home import CARD_NAME, Home, replace_file
from relay.logkey import LOG_FOLDER, LOG_VKEY_NAME
from relay.orders import POLICY_NAME, Desk
from relay.tlog import TransparencyLog
from sim.orders.policy import KINDS, Answer, answer_to, is_for_relay, policy_toml, said_by
from sim.orders.reading import Expected, LogReader, LogReading, PublicLog, gaps
from sim.orders.service import ExitStep, exit_steps
from sim.scenario.base import DAY_S, Moment
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import Order
from wire.limits import HASH_BYTES
from wire.tiles import CHECKPOINT_NAME, tiles_of

__all__ = ["Clerk", "Received"]

_SETTLED: Final = frozenset({OrderState.HONOURED, OrderState.WITHDRAWN, OrderState.RELEASED})
"""Where the docket neither extends nor withdraws."""
_NO_BASIS: Final = "none named"
_NO_NAME: Final = "unnamed"
_NOTHING: Final = bytes(HASH_BYTES)
_SEALED_S: Final = 365 * DAY_S
"""So long is sealed what the scenario opens at no moment."""
_GHOST: Final = (
    "A device that its owner did not sign was put on the list that this relay hands out. Senders refuse a list that "
    "lacks the signature of the account's own key."
)


@dataclass(frozen=True)
class Received:
    """An order that was served.

    Attributes:
        order: the scenario's.
        filed: the docket's; None: it does not concern the relay, and is not on the docket.
        decision: the desk's, by the policy.
        number: on the docket.
        leaf: its place in the log; None: it is not there.
        answer: what was said; None: nothing yet.
        answer_leaf: the place of that.
        said: the answer's text, as it stands in the log or behind its seal.
        evidence: SHA-256 of what was handed over; zeros: nothing.
        reading: the log, as it was read afterwards.
    """

    order: Order
    filed: FiledOrder | None = None
    decision: Decision | None = None
    number: int = -1
    leaf: int | None = None
    answer: Answer = Answer.NOT_OURS
    answer_leaf: int | None = None
    said: str = ""
    evidence: bytes = _NOTHING
    reading: LogReading | None = None


class Clerk:
    """Files everything about the orders of one run; the log is begun when it is made.

    Args:
        scenario: which.
        home: the relay's.
        now_s: the run's time, Unix time in seconds.
        entropy: the desk's chance.
    """

    def __init__(
        self, scenario: Scenario, home: Home, now_s: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        self._scenario = scenario
        self._home = home
        self._now_s = now_s
        self._entropy = entropy
        self._codes = scenario.codes
        self._expected: dict[str, Expected] = {}
        self._exits: list[tuple[str, str]] = []
        self.on_taken_back: Callable[[int, Sequence[tuple[Entry, int]]], None] = lambda leaf, standing: None
        """Called with the leaf of a preservation that was taken back, and those that stand, each with its leaf."""
        self.on_extended: Callable[[str, int], None] = lambda order_id, deadline_s: None
        self.on_opened: Callable[[], None] = lambda: None
        replace_file(home.path / POLICY_NAME, policy_toml(scenario).encode(), 0o644)
        self._reader = LogReader(home.path / LOG_FOLDER, (home.path / CARD_NAME).read_bytes())
        with self._desk() as desk:
            self._origin = desk.log.key.name
        self._reader.read(now_s(), "the beginning")

    @contextmanager
    def _desk(self) -> Iterator[Desk]:
        with Desk.at(self._home.path, self._now_s, self._entropy) as desk:
            yield desk

    # ---- an order

    def receive(self, order: Order, person: str) -> Received:
        """Put an order onto the docket, and into the log; ask the desk what is to be done.

        Args:
            order: the scenario's.
            person: whom it is about; empty: everybody.
        """
        jurisdiction = self._scenario.jurisdiction_of(order.jurisdiction)
        if not is_for_relay(order, jurisdiction):
            return Received(order)
        filed = self._filed(order, person)
        with self._desk() as desk:
            decision = desk.policy.decision(filed)
            done = desk.receive(filed)
        number = done.entry.number
        self._expected[order.id] = Expected(
            order.id, number, filed.kind.value, filed.issuer, filed.jurisdiction, filed.received_s, done.sealed
        )
        return Received(order, filed, decision, number, done.index)

    def answer(self, received: Received, facts: Facts, *, ghost: bool = False) -> Received:
        """Answer an order by the desk's decision, or contest it; what does not concern the relay is not answered.

        Args:
            received: as `receive` gave it.
            facts: what was found and done.
            ghost: a device was put on a list, as was ordered.
        """
        filed, decision, number = received.filed, received.decision, received.number
        if filed is None or decision is None:
            return received
        expected = self._expected[received.order.id]
        with self._desk() as desk:
            if decision is Decision.APPEAL:
                done = desk.appeal(number)
                said, evidence, place = "", _NOTHING, None
                expected.changes.append("appealed")
            else:
                made = answers.answer_to(filed, decision, replace(facts, sealed=expected.is_sealed))
                if ghost:
                    claim = answers.NOT_CLAIMED[OrderKind.GHOST]
                    made = answers.Answer(answers.Outcome.GIVEN, f"{_GHOST} Not claimed: {claim}.")
                done = desk.answer(number, made, decision)
                said, evidence, place = made.text, made.evidence, done.index
                expected.is_answered = True
        what = "answer" if "capturing" in expected.changes else "order and answer" if place else "order and appeal"
        reading = self.read(f"{received.order.id}: {what}")
        answer = said_by(decision, done.entry.state)
        return replace(received, answer=answer, answer_leaf=place, said=said, evidence=evidence, reading=reading)

    def capture(self, received: Received, until_s: int) -> Received:
        """Log that what passes is recorded from now on; the answer comes when that ends.

        Args:
            received: as `receive` gave it; honoured.
            until_s: until when, Unix time in seconds.
        """
        with self._desk() as desk:
            desk.capture(received.number, until_s)
        self._changed(self._expected[received.order.id], "capturing")
        return replace(received, answer=Answer.PROVIDED, reading=self.readings[-1])

    def _filed(self, order: Order, person: str) -> FiledOrder:
        """The order as the docket has it: one line of an issuer, a law or the word for none."""
        kind = KINDS[order.kind]
        return FiledOrder(
            kind=kind,
            issuer=_line(order.issuer) or _NO_NAME,
            jurisdiction=self._codes[order.jurisdiction],
            legal_basis=_line(order.basis) or _NO_BASIS,
            received_s=self._now_s(),
            deadline_s=order.deadline.unix_s if order.deadline else 0,
            scope=Scope(ScopeKind.ACCOUNT, person) if person else Scope(),
            secret_until_s=self._secret_until_s(order),
        )

    def _secret_until_s(self, order: Order) -> int:
        is_sealed = order.sealed
        if KINDS[order.kind] is OrderKind.SECRECY:
            # The answer to such an order says whether its text stands in the log.
            is_sealed = answer_to(order, self._scenario.jurisdiction_of(order.jurisdiction)) is Answer.PROVIDED
        if not is_sealed:
            return 0
        return order.opened.unix_s if order.opened else order.date.unix_s + _SEALED_S

    # ---- what comes later

    def plan(self, call_at: Callable[[int, Callable[[], None]], None]) -> None:
        """Say when what is to be done later.

        Args:
            call_at: calls something at a moment, Unix time in milliseconds. Orders of the same moment come before.
        """
        end_s = self._scenario.end.unix_s
        planned: list[tuple[int, Callable[[], None]]] = []
        for order in self._scenario.order:
            for extension in order.extension:
                planned.append((extension.on.unix_s, _call(self._extend, order, extension.deadline)))
            if order.withdrawn is not None:
                planned.append((order.withdrawn.unix_s, _call(self._withdraw, order)))
            if order.opened is not None:
                planned.append((order.opened.unix_s, _call(self._open, order)))
        planned += [(step.at_s, _call(self._exit, step)) for step in exit_steps(self._scenario)]
        for at_s, call in planned:
            if at_s <= end_s:
                call_at(1_000 * at_s + 1, call)

    def _extend(self, order: Order, deadline: Moment) -> None:
        self._change(order, "extended", lambda desk, number: desk.extend(number, deadline.unix_s))
        self.on_extended(order.id, deadline.unix_s)

    def _withdraw(self, order: Order) -> None:
        expected = self._expected.get(order.id)
        if expected is not None and expected.kind == OrderKind.PRESERVATION.value:
            with self._desk() as desk:
                entry = desk.docket.entry(expected.number)
            if entry.state is OrderState.HONOURED and entry.until_s:
                self._take_back(expected)
                return
        self._change(order, "withdrawn", lambda desk, number: desk.withdraw(number))

    def _change(self, order: Order, word: str, change: Callable[[Desk, int], object]) -> None:
        expected = self._expected.get(order.id)
        if expected is None:
            return
        with self._desk() as desk:
            if desk.docket.entry(expected.number).state in _SETTLED:
                return
            change(desk, expected.number)
        self._changed(expected, word)

    def _changed(self, expected: Expected, word: str) -> None:
        expected.changes.append(word)
        self.read(f"{expected.order}: {word}")

    def _take_back(self, expected: Expected) -> None:
        """A preservation is withdrawn after it was honoured: the relay is told, and logs later that it has ended."""
        with self._desk() as desk:
            desk.take_back(expected.number)
            standing = [(entry, desk.order_index(entry.number)) for entry in desk.standing()]
            leaf = desk.order_index(expected.number)
        self._changed(expected, "withdrawn")
        self.on_taken_back(leaf, standing)

    def log_ends(self, preserving: Collection[int]) -> bool:
        """Log the end of each preservation that has ended; one whose text is sealed waits until it is opened.

        Args:
            preserving: leaves of the orders by which the relay still keeps something.

        Returns:
            whether one has ended, and the relay has not erased yet what it kept.
        """
        with self._desk() as desk:
            ended = [entry.number for entry in desk.ended() if not desk.is_closed(entry.number)]
            over = [number for number in ended if desk.order_index(number) not in preserving]
        for number in over:
            with self._desk() as desk:
                desk.release(number)
            self._changed(next(one for one in self._expected.values() if one.number == number), "released")
        return len(over) < len(ended)

    def _open(self, order: Order) -> None:
        expected = self._expected.get(order.id)
        if expected is None or not expected.is_sealed:
            return
        with self._desk() as desk:
            desk.open_sealed(expected.number)
        expected.is_opened = True
        self.read(f"{order.id}: opened")
        self.on_opened()

    def _exit(self, step: ExitStep) -> None:
        code = self._codes[step.jurisdiction]
        with self._desk() as desk:
            desk.exit_step(code, step.step, step.ends_s, self._told(step))
        self._exits.append((code, step.step))
        self.read(f"leaving {step.jurisdiction}: {step.step}")

    def _told(self, step: ExitStep) -> str:
        """What is said; an order is named by its number, since its text may be sealed."""
        first, _, rest = step.cause.partition(" ")
        if first in self._expected and rest in ("", "withdrawn"):
            first = f"order {self._expected[first].number}"
        day = Moment(step.ends_s)
        said = {
            "announced": f"Service in {step.jurisdiction} ends on {day}",
            "extended": f"Service in {step.jurisdiction} ends later, on {day}",
            "cancelled": f"Service in {step.jurisdiction} goes on",
            "completed": f"Service in {step.jurisdiction} has ended",
        }[step.step]
        return f"{said}: {' '.join((first, rest)).strip()}."

    # ---- the log

    @property
    def readings(self) -> Sequence[LogReading]:
        """The log as it was read so far."""
        return self._reader.readings

    def read(self, after: str) -> LogReading:
        """Let audit/ read the log."""
        return self._reader.read(self._now_s(), after)

    def gaps(self) -> list[str]:
        """What happened and is not in the log as it was read last."""
        return gaps(list(self._expected.values()), self._exits, self._reader.log)

    def finished(self, now_s: int) -> PublicLog:
        """Read the log once more, at the end of the run."""
        self._reader.read(now_s, "the end")
        return PublicLog(
            self._origin,
            tuple(self._reader.readings),
            len(self._expected),
            sum(one.is_answered for one in self._expected.values()),
            len(self._exits),
            tuple(self.gaps()),
        )

    def publish(self, folder: Path) -> None:
        """Copy what is public into a folder: the log for any web server, its key, and the relay's card."""
        with self._desk() as desk:
            log: TransparencyLog = desk.log
            names = [tile.path for tile in tiles_of(0, log.size)]
        for name in (*names, CHECKPOINT_NAME):
            target = folder / LOG_FOLDER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self._home.path / LOG_FOLDER / name).read_bytes())
        for name in (LOG_VKEY_NAME, CARD_NAME):
            (folder / name).write_bytes((self._home.path / name).read_bytes())


def _call(do: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: do(*arguments)


def _line(text: str) -> str:
    """One printable line of what the docket takes."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:NAME_CHARACTERS_MAX].strip()
