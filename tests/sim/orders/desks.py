"""A clerk with a home of its own and a clock that tests move: the orders of a scenario without its people."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from relay import home as relay_home
from relay.core.answers import Facts
from relay.home import Home
from relay.logkey import LOG_FOLDER
from sim.engine.chance import generator
from sim.orders.clerk import Clerk, Received
from sim.orders.policy import ABOUT_ONE
from sim.orders.reading import PublicLog
from sim.scenario.scenario import Scenario, from_toml
from sim.scenario.timeline import Order

ORDERS: Final = """
name = "orders"
start = 2015-11-01
days = 60

[[jurisdiction]]
name = "Pakistan"
code = "PK"
policy = "leave-rather"
answers = { past-metadata = "appeal" }

[[jurisdiction]]
name = "Canada"

[[tenant]]
domain = "acme.example"
jurisdiction = "Canada"
people = 2

[[order]]
id = "everything"
date = 2015-11-02
kind = "wholesale-content"
jurisdiction = "Pakistan"
issuer = "the regulator"
deadline = 2015-11-20
withdrawn = 2015-12-01

[[order.extension]]
on = 2015-11-10
deadline = 2015-12-10

[[order]]
id = "record"
date = 2015-11-03
kind = "subscriber-record"
jurisdiction = "Canada"
issuer = "a court"
person = "p0@acme.example"

[[order]]
id = "quiet"
date = 2015-11-04
kind = "key-disclosure"
jurisdiction = "Canada"
issuer = "a secret court"
sealed = true
opened = 2015-12-05

[[order]]
id = "who"
date = 2015-11-05
kind = "past-metadata"
jurisdiction = "Pakistan"
issuer = "the police"
person = "p1@acme.example"

[[order]]
id = "silence"
date = 2015-11-06
kind = "secrecy"
jurisdiction = "Canada"
issuer = "a secret court"

[[order]]
id = "carriers"
date = 2015-11-07
kind = "block"
jurisdiction = "Canada"
issuer = "the regulator"
deadline = 2015-11-30
withdrawn = 2015-12-02

[[assert]]
check = "log-complete"
"""


@dataclass
class Filing:
    """A clerk at work, and what it was given."""

    scenario: Scenario
    home: Home
    now_s: int = 0
    served: list[Received] = field(default_factory=list)
    note: bytes = b""

    def begin(self) -> None:
        self.now_s = self.scenario.start.unix_s
        self.clerk = Clerk(self.scenario, self.home, lambda: self.now_s, generator(7, "desk").randbytes)

    def run(self, facts: Facts | None = None) -> PublicLog:
        """Let everything happen at its moment."""
        calls: list[tuple[int, Callable[[], None]]] = []
        self.clerk.plan(lambda at_ms, call: calls.append((at_ms, call)))
        for order in self.scenario.order:
            calls.append((1_000 * order.date.unix_s, partial(self._serve, order, facts or Facts(found=1))))
        for at_ms, call in sorted(calls, key=lambda one: one[0]):
            self.now_s = at_ms // 1_000
            call()
        log = self.clerk.finished(self.scenario.end.unix_s)
        self.note = (self.home.path / LOG_FOLDER / "checkpoint").read_bytes()
        return log

    def _serve(self, order: Order, facts: Facts) -> None:
        person = (order.person or "p0@acme.example") if order.kind in ABOUT_ONE else ""
        self.served.append(self.clerk.answer(self.clerk.receive(order, person), facts))

    def desk_size(self) -> int:
        with self.clerk._desk() as desk:
            return desk.log.size


def filing(folder: Path, text: str, *changes: str) -> Filing:
    """Begin a log for a scenario."""
    home = relay_home.init(folder / "relay", generator(7, "relay key").randbytes, broker="mqtt://127.0.0.1:9")
    filed = Filing(from_toml(text, changes), home)
    filed.begin()
    return filed
