"""One trial: a scenario is run with its witness, and everything that was wrong is returned.

    trial = run_trial(tree)                       the engine of sim/engine/, faults and all
    trial.violations                              what did not hold; empty for an honest run

The same tree gives the same trial.
"""

import gc
import os
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay import home as relay_home
from relay.store.protocol import Store
from relay.store.sqlite import SqliteStore
from sim.engine.chance import generator
from sim.engine.disk import Disk, SimulatedStore
from sim.engine.population import draw_population
from sim.engine.standin import standing_in
from sim.engine.town import Town
from sim.scenario.scenario import Scenario, from_toml
from sim.swarm.bodies import SealedTexts
from sim.swarm.docketing import Docketing
from sim.swarm.generate import Tree
from sim.swarm.toml_text import to_toml
from sim.swarm.witness import Invariant, Violation, Witness
from sim.world import replaced
from wire.errors import RefusalCode

__all__ = ["Trial", "judge", "run_trial"]

_TRACEBACK_LINES: Final = 3
_NOWHERE: Final = "mqtt://127.0.0.1:9"
"""No broker listens there: the simulated network takes its place."""


@dataclass(frozen=True)
class Trial:
    """What came of a scenario.

    Attributes:
        messages: how many were written.
        receipted: envelopes that got a receipt.
        faults: faults that really happened.
        violations: what did not hold.
    """

    messages: int
    receipted: int
    faults: int
    violations: tuple[Violation, ...]

    def broken(self) -> set[Invariant]:
        """Invariants that did not hold."""
        return {violation.invariant for violation in self.violations}


def run_trial(tree: Tree) -> Trial:
    """Run a scenario, and judge it.

    Raises:
        ScenarioError: the tree is no scenario.
    """
    return judge(from_toml(to_toml(tree)))


def judge(scenario: Scenario) -> Trial:
    """Run a scenario that was written by hand, or shrunk, and judge it by the same invariants.

    Orders go onto the docket and into the log, and do what they do to the service; there is no disclosure, no ghost,
    and nothing is preserved. The scenario's own assertions are not looked at.
    """
    # No power is cut to the desk's disk here, and to wait for it would take most of a small run.
    quick = replaced(os, "fsync", lambda descriptor: None)
    with tempfile.TemporaryDirectory(prefix="blindpost-swarm-") as folder, standing_in(), quick:
        return _Run(scenario, Path(folder)).play()


class _Run:
    def __init__(self, scenario: Scenario, folder: Path) -> None:
        seed = scenario.seed
        rng = generator(seed, "swarm relay")
        home = relay_home.init(folder / "relay", rng.randbytes, broker=_NOWHERE)
        identity = home.load_keys().identity(home.config.partition)
        self._store = _store(scenario, identity.relay_id, folder)
        self._disk = Disk(self._store, generator(seed, "disk"))
        self._log_path = folder / "relay.log"
        population = draw_population(scenario, seed)
        self._town = Town(scenario, population, seed, identity, self._disk, self._log_path)
        self._bodies = self._town.bodies = SealedTexts(generator(seed, "texts"))
        self._scenario = scenario
        self._witness = Witness(scenario.relay, self._bodies.mark, lambda: self._town.calendar.now_ms)
        self._witness.attach(self._town.machine)
        self._docket = Docketing(self._town, home, self._witness) if scenario.order else None

    def play(self) -> Trial:
        town, witness = self._town, self._witness
        was_on = gc.isenabled()
        gc.disable()
        try:
            town.play(self._docket.serve if self._docket is not None else lambda number: None)
            self._judge()
        except Exception as error:
            # Whatever raises in the relay or a device ends a process: a finding like any other.
            where = traceback.extract_tb(error.__traceback__)[-_TRACEBACK_LINES:]
            path = " < ".join(f"{Path(step.filename).name}:{step.name}" for step in reversed(where))
            witness.violated(Invariant.RUNS, f"{type(error).__name__}: {error} ({path})")
        finally:
            self._store.close()
            if was_on:
                gc.enable()
        ledger = town.ledger
        return Trial(
            ledger.messages, ledger.total("receipted"), sum(town.faults.counts.values()), tuple(witness.violations)
        )

    def _judge(self) -> None:
        witness, ledger = self._witness, self._town.ledger
        snapshot = self._store.load()
        bodies = self._store.read([row.seq for row in snapshot.envelopes])
        witness.check_store(snapshot, bodies)
        witness.check_log(self._log_path.read_bytes())
        self._store.checkpoint()
        witness.check_erased(b"".join(path.read_bytes() for path in self._store.paths()))
        twice = ledger.total("shown_twice")
        if twice:
            witness.violated(Invariant.SHOWN_ONCE, f"{twice} messages were shown twice on a device")
        # A clock that jumped refuses a submit, and takes its repeat when it is right again: the sender was told that it
        # failed, and it came. Deliveries of those are nobody's here.
        told = witness.refused.get(RefusalCode.EXPIRY_INVALID, 0)
        for count, what in (
            (ledger.spoilt, "deliveries had another body than was sent"),
            (0 if told else ledger.strange, "deliveries were of nobody's envelope"),
            (ledger.false_receipts, "receipts did not verify"),
        ):
            if count:
                witness.violated(Invariant.RECEIPTED_IS_KEPT, f"{count} {what}")
        self._judge_arrival()
        if self._docket is not None:
            self._docket.end()

    def _judge_arrival(self) -> None:
        """Nobody is away and nothing fails any more: what was not refused for room or time has arrived."""
        witness, town = self._witness, self._town
        never = 0
        for sent in town.ledger.sent.values():
            if sent.shown or sent.withdrawn or sent.expiry_s * 1_000 <= witness.latest_clock_ms:
                continue
            if not sent.receipted and sent.envelope_id in witness.refused_for_room:
                continue
            never += 1
        if never:
            witness.violated(Invariant.ALL_ARRIVES, f"{never} envelopes have not arrived")
        waiting = sum(len(jobs) for handset in town.handsets for jobs in handset._waiting.values())
        if waiting:
            witness.violated(Invariant.ALL_ARRIVES, f"{waiting} messages have not left their device")
        # A clock that jumped refuses expiries that were right; its senders were told, definitely.
        told = witness.refused.get(RefusalCode.EXPIRY_INVALID, 0)
        if town.ledger.failed > told:
            witness.violated(Invariant.ALL_ARRIVES, f"{town.ledger.failed} messages were refused for good")


def _store(scenario: Scenario, relay_id: bytes, folder: Path) -> Store:
    if scenario.relay.store == "sqlite":
        return SqliteStore(folder / "store.sqlite", relay_id)
    return SimulatedStore(relay_id)
