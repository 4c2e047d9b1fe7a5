"""What a run gives: the ledger, the orders and their disclosures, faults, and which assertions held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sim.engine.disclosures import Disclosed
from sim.engine.ledger import Ledger
from sim.orders.captured import Captured
from sim.orders.clerk import Received
from sim.orders.policy import Answer
from sim.orders.reading import PublicLog
from sim.orders.service import Change, Happening, state_on
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import Order

__all__ = ["Checked", "Outcome", "ServedOrder"]


@dataclass(frozen=True)
class ServedOrder:
    """An order, the answer, and what was handed over.

    Attributes:
        order: as the scenario has it.
        at_s: when it was served.
        answer: what the relay said.
        person: whom it is about; empty for all.
        held: what is truthfully held of that person, or of all: names and values.
        disclosed: the disclosure, if one was made.
        ghost_encrypted: of a ghost device that was put on a list, how many envelopes were encrypted to it; None: none
            was put.
        ghost_alarms: of it, how many devices refused the list.
        filed: what the desk made of it, and its leaves in the public log.
        captured: what was recorded as it passed, if that was ordered and honoured.
    """

    order: Order
    at_s: int
    answer: Answer
    person: str
    held: Mapping[str, int | str]
    disclosed: Disclosed | None = None
    ghost_encrypted: int | None = None
    ghost_alarms: int = 0
    filed: Received | None = None
    captured: Captured | None = None

    @property
    def said(self) -> str:
        """The answer in the words of the relay's own code; empty where there is none."""
        return self.filed.said if self.filed is not None else ""


@dataclass(frozen=True)
class Checked:
    """An assertion and whether it held."""

    check: str
    about: str
    held: bool
    found: str


@dataclass
class Outcome:
    """One run, at its end.

    Attributes:
        scenario: what was run.
        seed: by what chance.
        crypto: `sized` or `real`.
        people: how many.
        devices: how many.
        ledger: what happened.
        served: orders, in the order of their dates.
        faults: how often each kind happened.
        changes: of service.
        happenings: the public timeline.
        lost: receipted envelopes that are nowhere.
        log: the relay's public log.
        alarms: devices that refused a device list.
        checks: the assertions.
    """

    scenario: Scenario
    seed: int
    crypto: str
    people: int
    devices: int
    ledger: Ledger
    served: Sequence[ServedOrder]
    faults: Mapping[str, int]
    changes: Sequence[Change]
    happenings: Sequence[Happening]
    lost: int
    log: PublicLog
    alarms: int = 0
    checks: Sequence[Checked] = field(default_factory=list)

    def states_at(self, at_s: int) -> list[str]:
        """The service of each jurisdiction at a moment."""
        return [state_on(self.changes, place.name, at_s) for place in self.scenario.jurisdiction]

    @property
    def held(self) -> bool:
        """Whether every assertion held."""
        return all(check.held for check in self.checks)
