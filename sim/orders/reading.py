"""The public log of a simulated relay as a stranger reads it: by audit/ alone, from the card and the checkpoint before.

    reader = LogReader(folder, card)
    reading = reader.read(at_s, "order 0")       every leaf, every hash, and that the tree before is its beginning
    gaps(expected, exits, reader.log)            what happened in the run and is not in the log, or the other way

Nothing here asks the relay or its desk what it has written. What must be in the log is what the run has seen happen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit.material import read_card
from audit.order_log import LoggedOrder, OrderLog, verify_log
from audit.tlog import CHECKPOINT_NAME, NOTE_BYTES_MAX

__all__ = ["Expected", "LogReader", "LogReading", "PublicLog", "gaps"]


@dataclass
class Expected:
    """An order that was served in the run, and what has become of it so far.

    Attributes:
        order: its id in the scenario.
        number: on the docket, from 0.
        kind: the docket's word.
        issuer: as the docket has it.
        code: of the jurisdiction.
        at_s: when it was served.
        is_sealed: whether its text is sealed.
        is_answered: whether it was answered.
        is_opened: whether the seal was opened.
        changes: extended, appealed, capturing, withdrawn, released; in order.
    """

    order: str
    number: int
    kind: str
    issuer: str
    code: str
    at_s: int
    is_sealed: bool
    is_answered: bool = False
    is_opened: bool = False
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LogReading:
    """The log as it was read at one moment.

    Attributes:
        at_s: when, Unix time in seconds.
        after: what had happened.
        size: leaves.
        root: of the tree, in hexadecimal.
        findings: each rule that it breaks; the tree before is not its beginning, for one.
    """

    at_s: int
    after: str
    size: int
    root: str
    findings: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no rule was broken."""
        return not self.findings


@dataclass(frozen=True)
class PublicLog:
    """What a run's log came to.

    Attributes:
        origin: its name.
        readings: one at the beginning, one after each thing that was logged, one at the end.
        served: orders that were served on the relay.
        answered: those that were answered.
        exits: steps of leaving a jurisdiction.
        gaps: what is missing in the log, or is there and never happened.
    """

    origin: str
    readings: tuple[LogReading, ...]
    served: int
    answered: int
    exits: int
    gaps: tuple[str, ...]

    @property
    def findings(self) -> list[str]:
        """What any reading found."""
        return [finding for reading in self.readings for finding in reading.findings]

    @property
    def holds(self) -> bool:
        """Whether every reading held, and the log says what happened."""
        return not self.findings and not self.gaps


class LogReader:
    """Reads one log again and again; keeps the checkpoint of the reading before, and each reading.

    Args:
        folder: the log's.
        card: the relay's, as a file's bytes.
    """

    def __init__(self, folder: Path, card: bytes) -> None:
        self.readings: list[LogReading] = []
        self.log = OrderLog()
        self._folder = folder
        self._card = read_card(card, "relay card")
        self._checkpoint: bytes | None = None

    def read(self, at_s: int, after: str) -> LogReading:
        """Read it whole.

        Args:
            at_s: the reader's clock, Unix time in seconds.
            after: what has just happened.
        """
        self.log = log = verify_log(self._folder, self._card, at_s, self._checkpoint)
        if log.size:
            with (self._folder / CHECKPOINT_NAME).open("rb") as file:
                self._checkpoint = file.read(NOTE_BYTES_MAX)
        reading = LogReading(at_s, after, log.size, log.root.hex(), tuple(log.findings))
        self.readings.append(reading)
        return reading


def gaps(expected: Sequence[Expected], exits: Sequence[tuple[str, str]], log: OrderLog) -> list[str]:
    """What happened and is not in a log, or is there and did not happen.

    Args:
        expected: orders that were served, by number.
        exits: (code, step) of each step of leaving a jurisdiction, in order.
        log: as it was read.
    """
    logged = {order.number: order for order in log.orders}
    found = [gap for one in expected for gap in _gaps_of(one, logged.get(one.number))]
    if len(log.orders) > len(expected):
        found.append(f"the log has {len(log.orders)} orders, {len(expected)} were served")
    steps = [(one.jurisdiction, one.step) for one in log.exits]
    if steps != list(exits):
        found.append(f"the log has the exits {_words(steps)}; said were {_words(exits)}")
    return found


def _gaps_of(one: Expected, logged: LoggedOrder | None) -> list[str]:
    if logged is None:
        return [f"order {one.order} has no leaf"]
    found = []
    if one.is_answered != (logged.answered_at is not None):
        found.append(f"order {one.order} " + ("has no answer" if one.is_answered else "was not answered"))
    if (one.is_sealed, one.is_opened) != (logged.sealed or logged.opened, logged.opened):
        found.append(f"order {one.order} is sealed or opened otherwise than it was")
    if one.is_opened or not one.is_sealed:
        said = (logged.kind, logged.issuer, logged.jurisdiction, logged.received_at)
        if said != (one.kind, one.issuer, one.code, one.at_s):
            found.append(f"order {one.order} is another than was served")
    changes = [word for word, _at_s, _deadline in logged.changes]
    # That a capture begins tells what is asked: of a sealed order it is sealed too.
    told = [word for word in one.changes if word != "capturing" or one.is_opened or not one.is_sealed]
    if changes != told:
        found.append(f"order {one.order} was {', '.join(one.changes) or 'not changed'}: the log says otherwise")
    return found


def _words(steps: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{code} {step}" for code, step in steps) or "none"
