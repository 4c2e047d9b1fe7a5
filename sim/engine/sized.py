"""A run from beginning to end: town, orders, outcome; the relay's home lies on a disk, for log and disclosures."""

import dataclasses
import gc
from collections.abc import Callable, Mapping
from pathlib import Path

from relay import home as relay_home
from relay.core.policy import Decision
from relay.home import Home
from relay.store.memory import MemoryStore
from relay.store.protocol import Store
from relay.store.sqlite import SqliteStore
from sim.engine.chance import generator
from sim.engine.disclosures import Disclosed, disclose
from sim.engine.disk import Disk, SimulatedStore
from sim.engine.outcome import Outcome, ServedOrder
from sim.engine.population import draw_population
from sim.engine.real import RealTown, check_real
from sim.engine.standin import standing_in
from sim.engine.town import Town
from sim.engine.traffic import HOUR_S
from sim.orders.captured import Captured
from sim.orders.capturing import Capturing
from sim.orders.clerk import Clerk, Received
from sim.orders.found import facts_of
from sim.orders.keeping import Keeping
from sim.orders.policy import ABOUT_ONE, discloses
from sim.orders.reading import PublicLog
from sim.orders.service import happenings, service_changes
from sim.scenario.base import DAY_S
from sim.scenario.scenario import Scenario
from sim.scenario.timeline import Order
from sim.virtual_time import run_virtually
from sim.world import few_prekeys

__all__ = ["run_real", "run_sized"]

Progress = Callable[[int], None]


def run_sized(scenario: Scenario, seed: int, folder: Path, progress: Progress) -> Outcome:
    """Run a scenario.

    Args:
        scenario: which.
        seed: by what chance.
        folder: an empty one; the relay's home and the orders' disclosures go there.
        progress: told the simulated time, in Unix seconds.
    """
    home = _home(scenario, seed, folder / "relay")
    store: Store = _store(scenario, home)
    disk = Disk(store, generator(seed, "disk"))
    population = draw_population(scenario, seed)
    gc_was_on = gc.isenabled()
    # A month's million rows have no cycles; to look for them again and again would take half of the time.
    gc.disable()
    try:
        with standing_in():
            identity = home.load_keys().identity(home.config.partition)
            town = Town(scenario, population, seed, identity, disk, home.log_path)
            town.on_hour = progress
            bench = _Bench(scenario, town, home, folder)
            town.play(bench.serve)
            town.faults.happened("full-disk", disk.failed)
            town.faults.happened("slow-disk", disk.slowed)
    finally:
        if gc_was_on:
            gc.enable()
    return _outcome(town, bench, store, "sized")


def run_real(scenario: Scenario, seed: int, folder: Path, progress: Progress) -> Outcome:
    """The same with the real client.

    Raises:
        ScenarioError: the scenario asks for what only a sized run has.
    """
    check_real(scenario)
    home = _home(scenario, seed, folder / "relay")
    store = _store(scenario, home)
    disk = Disk(store, generator(seed, "disk"))
    population = draw_population(scenario, seed)
    identity = home.load_keys().identity(home.config.partition)
    homes = folder / "devices"
    homes.mkdir()

    async def play() -> tuple[Town, _Bench]:
        town = RealTown(homes, home.card, scenario, population, seed, identity, disk, home.log_path)
        town.on_hour = progress
        bench = _Bench(scenario, town, home, folder)
        await town.play_through(bench.serve)
        return town, bench

    with few_prekeys():
        town, bench = run_virtually(play)
    return _outcome(town, bench, store, "real")


def _outcome(town: Town, bench: "_Bench", store: Store, crypto: str) -> Outcome:
    lost = _lost(town, bench.now_s, store)
    store.close()
    return Outcome(
        town.scenario,
        town.seed,
        crypto,
        len(town.population),
        len(town.handsets),
        town.ledger,
        bench.finished(),
        town.faults.counts,
        service_changes(town.scenario),
        happenings(town.scenario),
        lost,
        bench.log,
        len(town.alarms),
    )


def _home(scenario: Scenario, seed: int, path: Path) -> Home:
    relay = scenario.relay
    # No broker listens there: the simulated network takes its place.
    return relay_home.init(
        path,
        generator(seed, "relay key").randbytes,
        broker="mqtt://127.0.0.1:9",
        retention_s=relay.retention_days * DAY_S,
        mailbox_envelopes_max=relay.mailbox_envelopes_max,
        mailbox_bytes_max=relay.mailbox_bytes_max,
    )


def _store(scenario: Scenario, home: Home) -> Store:
    relay_id = home.card.relay_id
    if scenario.relay.store == "sqlite":
        return SqliteStore(home.store_path, relay_id)
    return SimulatedStore(relay_id)


_PRESERVED_S = 90 * DAY_S
"""18 USC 2703(f): 90 days, where the order names no end."""


class _Bench:
    """Serves the orders of a run."""

    def __init__(self, scenario: Scenario, town: Town, home: Home, folder: Path) -> None:
        self._scenario = scenario
        self._town = town
        self._home = home
        self._folder = folder
        self._choices = generator(town.seed, "orders")
        self._served: list[ServedOrder] = []
        self._ghosts: set[str] = set()
        self._clerk = Clerk(
            scenario, home, lambda: town.calendar.now_ms // 1_000, generator(town.seed, "desk").randbytes
        )
        self._clerk.plan(town.calendar.at)
        self._keeping = Keeping(town, self._clerk)
        self._capturing = Capturing(town, self._clerk, home, folder / "orders")

    def serve(self, number: int) -> None:
        """Serve an order, now."""
        order = self._scenario.order[number]
        town, clerk = self._town, self._clerk
        at_s = town.calendar.now_ms // 1_000
        person = self._person(order)
        received = clerk.receive(order, person)
        disclosed = self._disclose(order, at_s) if discloses(order) else None
        held = town.held_of(person)
        is_honoured = received.decision is Decision.HONOUR
        until_s = 0
        if order.kind == "preservation" and is_honoured and received.leaf is not None:
            until_s = order.deadline.unix_s if order.deadline is not None else at_s + _PRESERVED_S
            self._keeping.begin(person, until_s, received.leaf)
        is_ghost = order.kind == "ghost-device" and is_honoured and town.put_ghost(person)
        if is_ghost:
            self._ghosts.add(order.id)
            if order.withdrawn is not None:
                town.calendar.at(1_000 * order.withdrawn.unix_s, town.machine.take_ghosts_away)
        capturing = self._capturing.begin(received)
        if capturing is not None:
            self._served.append(ServedOrder(order, at_s, capturing.answer, person, held, disclosed, filed=capturing))
            return
        facts = facts_of(received, town.disk.store, self._folder / "orders" / order.id, disclosed, until_s)
        done = clerk.answer(received, facts, ghost=is_ghost)
        self._served.append(ServedOrder(order, at_s, done.answer, person, held, disclosed, filed=done))

    @property
    def log(self) -> PublicLog:
        """The public log, at the end of the run; what is public of it is put beside the relay's home."""
        self._clerk.publish(self._folder)
        return self._clerk.finished(self.now_s)

    @property
    def now_s(self) -> int:
        """When the run ends."""
        return self._scenario.end.unix_s + round(self._scenario.settle_hours * HOUR_S)

    def finished(self) -> list[ServedOrder]:
        """All of them, at the end of the run."""
        captured = self._capturing.finished()
        return [self._as_it_ended(served, captured) for served in self._served]

    def _as_it_ended(self, served: ServedOrder, captured: Mapping[str, tuple[Received, Captured]]) -> ServedOrder:
        if served.order.id in captured:
            filed, found = captured[served.order.id]
            return dataclasses.replace(served, filed=filed, captured=found)
        return self._with_ghost(served) if served.order.id in self._ghosts else served

    def _with_ghost(self, served: ServedOrder) -> ServedOrder:
        town = self._town
        encrypted = sum(sent.device < 0 for sent in town.ledger.sent.values())
        person = town.accounts.index(served.person)
        return dataclasses.replace(served, ghost_encrypted=encrypted, ghost_alarms=town.alarmed_by(person))

    def _person(self, order: Order) -> str:
        if order.person or order.kind not in ABOUT_ONE:
            return order.person
        place = [one.name for one in self._scenario.jurisdiction].index(order.jurisdiction)
        people = self._town.population.of_place(place) or range(len(self._town.population))
        return self._town.accounts[self._choices.choice(people)]

    def _disclose(self, order: Order, at_s: int) -> Disclosed:
        store = self._town.disk.store
        folder = self._folder / "orders" / order.id
        if isinstance(store, MemoryStore):
            held: MemoryStore | Path = store
        else:
            store.checkpoint()
            held = self._home.store_path
        bodies = self._town.bodies
        disclosed = disclose(
            self._home, held, folder, at_s, volunteered=self._town.volunteered(), kept_keys=bodies.kept_keys
        )
        self._town.machine.disclosed(at_s)
        return disclosed


def _lost(town: Town, now_s: int, store: Store) -> int:
    """Receipted envelopes that were neither shown nor withdrawn, have not expired, and are not there."""
    rows = store.envelopes.values() if isinstance(store, MemoryStore) else store.load().envelopes
    held = {row.envelope_id for row in rows}
    return sum(
        not (sent.shown or sent.withdrawn or sent.expiry_s <= now_s or sent.envelope_id in held)
        for sent in town.ledger.receipted()
    )
