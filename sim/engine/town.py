"""Everybody and everything of a sized run: people, network, relay, faults and the law, in one queue of events.

    intent ─▶ handset ─▶ frame ─▶ network ─▶ relay ─▶ network ─▶ handset ─▶ shown ─▶ perhaps an answer

Each moment has two halves: first what arrives and what people do, then `settle`, in which devices say what has gathered
and the relay works on what it has. Nothing here looks at a clock, and every draw is from a generator of the seed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay.core import CoreConfig, RelayIdentity
from relay.log import RelayLog
from sim.engine.bodies import bodies_under
from sim.engine.calendar import Calendar
from sim.engine.chance import generator
from sim.engine.conditions import FaultCounts, Trigger, triggers
from sim.engine.disk import Disk
from sim.engine.handset import Handset
from sim.engine.ledger import Ledger, Message, Sent
from sim.engine.machine import Machine
from sim.engine.people import People
from sim.engine.population import Population
from sim.engine.traffic import HOUR_S, Intent, TrafficPlan
from sim.orders.service import BLOCKED, ENDED, ENDING, SERVED, service_changes
from sim.scenario.base import DAY_S, Moment
from sim.scenario.conduct import BrokerRestart, ClockJump, Crash, FullDisk, Partition, SlowDisk, TornWrite
from sim.scenario.scenario import Scenario
from wire.errors import BlindpostError
from wire.identity import DeviceEntry
from wire.merkle import verify_path
from wire.receipt import Receipt, verify_header
from wire.receipt import leaf_hash as receipt_leaf
from wire.signing import SigningKey

__all__ = ["Town"]

MANY_DEVICES: Final = 2_000
_FINE_MS: Final = 10
_COARSE_MS: Final = 100
_JOIN_PER_S: Final = 150
"""Devices join so fast: below the handshakes that a relay takes in a second (protocol.md section 6.2)."""
_KEEPALIVE_S: Final = 60.0
_HEADERS_KEPT: Final = 4_096


class Town:
    """One sized run.

    Args:
        scenario: what happens.
        population: to whom.
        seed: by what chance.
        identity: the relay's.
        disk: the relay's.
        log_path: the relay's log.
    """

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        seed: int,
        identity: RelayIdentity,
        disk: Disk,
        log_path: Path,
    ) -> None:
        self.scenario = scenario
        self.population = population
        self.accounts = population.accounts
        self.relay_id = identity.relay_id
        self.relay_key = SigningKey(identity.seed).public
        self.entropy = generator(seed, "bytes").randbytes
        self.ledger = Ledger()
        self.faults = FaultCounts()
        self.disk = disk
        self.talking: list[Handset] = []
        self.alarms: list[tuple[int, int]] = []
        """(number of the device, person) of each list that was refused because its account key was not the pinned."""
        start_s = scenario.start.unix_s
        self.seed = seed
        devices = sum(population.devices)
        self.is_large = devices >= MANY_DEVICES
        self.calendar = self._make_calendar(start_s * 1_000, _COARSE_MS if self.is_large else _FINE_MS)
        self.timer_grid_ms = 10_000 if self.is_large else 1_000
        self.step_s = scenario.people.step_s or (10 if self.is_large else 1)
        self.people = self._make_people()
        self.handsets = self._make_handsets()
        self.people.handsets = self.handsets
        self._by_tag = {handset.keys.tag: handset for handset in self.handsets}
        self.offline = devices
        relay = scenario.relay
        self.bodies = bodies_under(relay.protection, relay.escrow, generator(seed, "bodies").randbytes)
        self.machine = Machine(
            _config(scenario, devices),
            identity,
            disk,
            generator(seed, "relay").randbytes,
            lambda: self.calendar.now_ms,
            self._at,
            self._torn,
            RelayLog(log_path, self._clock_ms),
            self.timer_grid_ms,
        )
        self._plan = TrafficPlan(scenario, population, seed)
        self._network = generator(seed, "network")
        self._absences = generator(seed, "absences")
        self._choices = generator(seed, "choices")
        self._headers: dict[bytes, tuple[bytes, int]] = {}
        self._broker_down_until_ms = 0
        self._healed = False
        self._counted = (0, 0, 0)
        self._down_s = 30.0
        self._states = [SERVED] * len(scenario.jurisdiction)
        self._names = {one.name: number for number, one in enumerate(scenario.jurisdiction)}
        self.on_hour: Callable[[int], None] = lambda now_s: None

    # What a run with the real client makes otherwise (sim/engine/real.py).

    def _make_calendar(self, now_ms: int, grid_ms: int) -> Calendar:
        return Calendar(now_ms, grid_ms)

    def _make_people(self) -> People:
        domains = [tenant.domain for tenant in self.scenario.tenant]
        return People(self.population, domains, self.seed, self.scenario.start.unix_s)

    def _make_handsets(self) -> list[Handset]:
        return [
            Handset(self, device, person, self.people.keys[device])
            for device, person in enumerate(self.people.person_of)
        ]

    # ---- the run

    def play(self, orders: Callable[[int], None]) -> None:
        """Let the scenario take place.

        Args:
            orders: called with the number of an order when it is served.
        """
        end_s = self.scenario.end.unix_s
        self.begin(orders)
        self.calendar.run(end_s * 1_000, self.settle)
        self.heal()
        self.calendar.run((end_s + round(self.scenario.settle_hours * HOUR_S)) * 1_000, self.settle)
        self.close_hour()

    def begin(self, orders: Callable[[int], None]) -> None:
        """Start the relay, and put everything that is known beforehand into the calendar."""
        start_s = self.scenario.start.unix_s
        self.ledger.begin_hour(start_s)
        self.machine.start()
        assert self.machine.core is not None
        for domain, admin_key in self.people.admin_keys:
            self.machine.core.admit_tenant(domain, admin_key)
        self.settle(start_s * 1_000)
        for handset in self.handsets:
            self.calendar.at(start_s * 1_000 + 1_000 * handset.index // _JOIN_PER_S, handset.switch_on)
        joined_s = start_s + len(self.handsets) // _JOIN_PER_S + 10
        for handset in self.handsets:
            self._plan_absence(handset, joined_s)
        for trigger in triggers(self.scenario, self.seed):
            self.calendar.at(trigger.at_s * 1_000, self._fault, trigger)
        for change in service_changes(self.scenario):
            self.calendar.at(change.at_s * 1_000, self._service, self._names[change.jurisdiction], change.state)
        for number, order in enumerate(self.scenario.order):
            self.calendar.at(order.date.unix_s * 1_000, orders, number)
        self.calendar.at(joined_s * 1_000, self._hour_of_traffic, joined_s)
        self._next_hour(start_s)

    def settle(self, now_ms: int) -> None:
        """The second half of a moment."""
        talking, self.talking = self.talking, []
        for handset in talking:
            handset.flush()
        for tag, packet in self.machine.pump(now_ms):
            self._down(tag, packet)
        held = self.machine.envelopes_held
        self.ledger.backlog_most = max(self.ledger.backlog_most, held)

    def _at(self, moment_ms: int, call: Callable[[], None]) -> None:
        self.calendar.at(moment_ms, call)

    def _clock_ms(self) -> int:
        """What the relay's clock shows."""
        return self.calendar.now_ms + self.machine.clock_offset_ms

    def _next_hour(self, now_s: int) -> None:
        following_s = (now_s // HOUR_S + 1) * HOUR_S
        self.calendar.at(following_s * 1_000, self._hour_over, following_s)

    def _hour_over(self, now_s: int) -> None:
        self.close_hour()
        self.ledger.begin_hour(now_s)
        self.on_hour(now_s)
        self._next_hour(now_s)
        if not self._healed:
            self._hour_of_traffic(now_s)

    def close_hour(self) -> None:
        """Write down what is of the end of the hour."""
        hour = self.ledger.hour
        counters, before = self.machine.counters, self._counted
        hour.commits = counters.commits - before[0]
        hour.aborted = counters.aborted - before[1]
        hour.expired = counters.expired - before[2]
        self._counted = counters.commits, counters.aborted, counters.expired
        hour.backlog = self.machine.envelopes_held
        hour.links = counters.links
        hour.offline = self.offline

    # ---- people

    def _hour_of_traffic(self, from_s: int) -> None:
        to_s = min((from_s // HOUR_S + 1) * HOUR_S, self.scenario.end.unix_s)
        step_ms = self.step_s * 1_000
        for at_s, intent in self._plan.hour(from_s, to_s):
            self.calendar.at(-(-int(at_s * 1_000) // step_ms) * step_ms, self.write, intent)

    def write(self, intent: Intent) -> None:
        """Somebody writes, if they can."""
        most = self.scenario.traffic.messages_max
        device = self._device_of(intent.person)
        here = self._states[self.population.places[intent.person]]
        to = tuple(person for person in intent.to if self._may_write(person))
        if device is None or here in (ENDING, ENDED) or not to or self._healed or 0 < most <= self.ledger.messages:
            self.ledger.dropped += 1
            return
        ledger = self.ledger
        ledger.messages += 1
        ledger.hour.sent += 1
        message = Message(ledger.messages, intent.person, to, intent.kind, intent.content_bytes, self.calendar.now_ms)
        device.write(message)

    def _device_of(self, person: int) -> Handset | None:
        """The device at which a person writes: one that is on."""
        for index in self.people.devices_of[person]:
            handset = self.handsets[index]
            if handset.online and handset.enrolled:
                return handset
        return None

    def _may_write(self, to: int) -> bool:
        return self._states[self.population.places[to]] not in (ENDING, ENDED)

    def shown(self, handset: Handset, message: Message) -> None:
        """A device shows a message; its person may answer."""
        if message.person == handset.person or handset.index != self.people.devices_of[handset.person][0]:
            return
        answer = self._plan.reply(handset.person, message.person, message.kind)
        if answer is not None:
            step_ms = self.step_s * 1_000
            at_ms = self.calendar.now_ms + int(answer[0] * 1_000)
            self.calendar.at(-(-at_ms // step_ms) * step_ms, self.write, answer[1])

    def alarm(self, handset: Handset, person: int) -> None:
        """A device refuses a list of somebody."""
        self.alarms.append((handset.index, person))

    def alarmed_by(self, person: int) -> int:
        """How many devices refused a list of a person."""
        return len({device for device, whose in self.alarms if whose == person})

    def put_ghost(self, account: str) -> bool:
        """Put a device of nobody on a person's list, as the operator is ordered to."""
        rng = generator(self.seed, f"ghost/{account}")
        key = SigningKey(rng.randbytes(32)).public
        return self.machine.put_ghost(account, DeviceEntry(key, rng.randbytes(32), rng.randbytes(16)))

    def volunteered(self) -> list[bytes]:
        """What people give the verifier (protocol.md section 12.2)."""
        return self.bodies.volunteered

    def entry_of(self, device: int) -> DeviceEntry:
        """A device as lists name it."""
        return self.people.keys[device].entry

    def expiry_s(self, now_s: int) -> int:
        """How long an envelope that is sent now is kept: whole hours, as client/ asks for."""
        return (now_s + self.scenario.relay.retention_days * DAY_S) // HOUR_S * HOUR_S

    def _plan_absence(self, handset: Handset, from_s: int) -> None:
        people = self.scenario.people
        share = people.offline_share
        if not share:
            return
        rng = self._absences
        mean_on_s = people.offline_hours * HOUR_S * (1 - share) / share
        # Whoever would be away in the first morning joins first, and leaves right after.
        wait_s = 0.0 if rng.random() < share else rng.expovariate(1 / mean_on_s)
        self.calendar.at(int((from_s + wait_s) * 1_000), self._leave, handset)

    def _leave(self, handset: Handset) -> None:
        if self._healed or handset.cuts:
            return
        people, rng = self.scenario.people, self._absences
        handset.switch_off(announced=rng.random() >= people.abrupt_share)
        away_s = rng.expovariate(1 / (people.offline_hours * HOUR_S))
        self.calendar.at(self.calendar.now_ms + int(away_s * 1_000), self._return, handset)

    def _return(self, handset: Handset) -> None:
        if not self._healed:
            handset.switch_on()
            self._plan_absence(handset, self.calendar.now_ms // 1_000)

    # ---- the network

    def up(self, handset: Handset, packet: bytes) -> None:
        """A device says something."""
        self.ledger.hour.bytes_up += len(packet)
        if not handset.reachable or self.calendar.now_ms < self._broker_down_until_ms:
            self.ledger.hour.packets_lost += 1
            return
        for wait_ms in self._ways():
            self.calendar.after(wait_ms, self._arrive, handset, packet)

    def _arrive(self, handset: Handset, packet: bytes) -> None:
        if handset.cuts or not self.machine.is_up or self.calendar.now_ms < self._broker_down_until_ms:
            self.ledger.hour.packets_lost += 1
            return
        self.machine.receive(handset.keys.tag, packet, self.calendar.now_ms)

    def _down(self, tag: bytes, packet: bytes) -> None:
        handset = self._by_tag[tag]
        self.ledger.hour.bytes_down += len(packet)
        for wait_ms in self._ways():
            self.calendar.after(wait_ms, self._hand_over, handset, packet)

    def _hand_over(self, handset: Handset, packet: bytes) -> None:
        if not handset.reachable or self.calendar.now_ms < self._broker_down_until_ms:
            self.ledger.hour.packets_lost += 1
            return
        handset.hear(packet)

    def _ways(self) -> tuple[int, ...]:
        """When each copy of a packet arrives."""
        network, rng = self.scenario.network, self._network
        if self._healed:
            return (network.delay_ms,)
        if network.loss and rng.random() < network.loss:
            self.ledger.hour.packets_lost += 1
            return ()
        wait_ms = network.delay_ms
        if network.delay_spread_ms:
            wait_ms += rng.randrange(network.delay_spread_ms + 1)
        if network.reorder and rng.random() < network.reorder:
            wait_ms += rng.randrange(network.reorder_ms)
        if network.duplication and rng.random() < network.duplication:
            return wait_ms, wait_ms + rng.randrange(network.reorder_ms)
        return (wait_ms,)

    def is_genuine(self, receipt: Receipt) -> bool:
        """Whether a receipt proves what it says. The signature of a header is verified once for all who hold it."""
        try:
            known = self._headers.get(receipt.header)
            if known is None:
                header = verify_header(self.relay_key, receipt.header, receipt.signature)
                if len(self._headers) >= _HEADERS_KEPT:
                    self._headers.clear()
                known = self._headers[receipt.header] = header.root, header.leaf_count
            root, leaf_count = known
            leaf = receipt_leaf(receipt.mailbox, receipt.envelope_id, receipt.expiry, receipt.number, receipt.body_hash)
            verify_path(leaf, receipt.leaf, leaf_count, receipt.path, root)
        except BlindpostError:
            return False
        return True

    # ---- faults

    def _fault(self, trigger: Trigger) -> None:
        fault, calendar = trigger.fault, self.calendar
        match fault:
            case Crash(down_s=down_s):
                if self.machine.is_up:
                    self.faults.happened("crash")
                    self._crash(down_s)
            case TornWrite(down_s=down_s):
                self._down_s = down_s
                self.disk.tear_next = True
            case FullDisk(minutes=minutes):
                self.disk.full = True
                calendar.after(int(minutes * 60_000), self._disk_has_room, self.disk.failed)
            case SlowDisk(minutes=minutes, delay_ms=delay_ms):
                self.disk.delay_ms = delay_ms
                calendar.after(int(minutes * 60_000), self._disk_is_quick, self.disk.slowed)
            case ClockJump(seconds=seconds, minutes=minutes):
                self.faults.happened("clock-jump")
                self.machine.clock_offset_ms = 1_000 * seconds
                calendar.after(int(minutes * 60_000), self._clock_is_right)
            case BrokerRestart(down_s=down_s):
                self.faults.happened("broker-restart")
                self._broker_down_until_ms = calendar.now_ms + int(down_s * 1_000)
            case Partition():
                self._partition(fault)

    def _disk_has_room(self, failed_before: int) -> None:
        self.disk.full = False
        self.faults.happened("full-disk", int(self.disk.failed > failed_before))

    def _disk_is_quick(self, slowed_before: int) -> None:
        self.disk.delay_ms = 0
        self.faults.happened("slow-disk", int(self.disk.slowed > slowed_before))

    def _clock_is_right(self) -> None:
        self.machine.clock_offset_ms = 0

    def _torn(self) -> None:
        self.faults.happened("torn-write")
        self._recover_after(self._down_s)

    def _crash(self, down_s: float) -> None:
        self.machine.kill()
        self._recover_after(down_s)

    def _recover_after(self, down_s: float) -> None:
        self.calendar.after(int(down_s * 1_000), self._start_again)

    def _start_again(self) -> None:
        if self.machine.is_up:
            return
        self.machine.start()
        # Devices find out at their next keep-alive that the relay does not know their links any more.
        spread_s = max(_KEEPALIVE_S, len(self.handsets) / _JOIN_PER_S)
        for handset in self.handsets:
            self.calendar.after(int(self._choices.random() * spread_s * 1_000), handset.keep_alive)

    def _partition(self, fault: Partition) -> None:
        place = self._names.get(fault.jurisdiction)
        cut = [
            handset
            for handset in self.handsets
            if (place is None or self.population.places[handset.person] == place)
            and self._choices.random() < fault.share
        ]
        if not cut:
            return
        self.faults.happened("partition")
        for handset in cut:
            handset.cut(on=True)
        self.calendar.after(int(fault.minutes * 60_000), self._partition_over, cut)

    def _partition_over(self, cut: list[Handset]) -> None:
        for handset in cut:
            handset.cut(on=False)

    def heal(self) -> None:
        """Nobody writes any more, everybody is on, nothing fails."""
        self._healed = True
        self.disk.full = False
        self.disk.tear_next = False
        self.disk.delay_ms = 0
        self.machine.clock_offset_ms = 0
        self.machine.take_ghosts_away()
        for handset in self.handsets:
            handset.switch_on()
            self.calendar.after(int(self._choices.random() * _KEEPALIVE_S * 1_000), handset.keep_alive)

    # ---- the law

    def held_of(self, account: str) -> dict[str, int | str]:
        """What the relay truthfully holds of a person, from its rows; of all of them without a name."""
        snapshot = self.disk.load()
        boxes = [row for row in snapshot.mailboxes if account in ("", row.account)]
        ids = {row.mailbox for row in boxes}
        waiting = [row for row in snapshot.envelopes if row.mailbox in ids]
        held: dict[str, int | str] = {
            "devices": sum(not row.closed for row in boxes),
            "envelopes waiting": len(waiting),
            "bytes waiting": sum(row.body_bytes for row in waiting),
            "tombstones": sum(row.mailbox in ids for row in snapshot.tombstones),
        }
        if account and boxes:
            held["enrolled on"] = str(Moment(min(row.enrolled_day for row in boxes) * DAY_S))
        return held

    def _service(self, place: int, state: str) -> None:
        before, self._states[place] = self._states[place], state
        here = [handset for handset in self.handsets if self.population.places[handset.person] == place]
        if (state in (BLOCKED, ENDED)) != (before in (BLOCKED, ENDED)):
            if state == ENDED:
                self._take_back(here)
            for handset in here:
                handset.cut(on=state in (BLOCKED, ENDED))
        elif state == ENDED:
            self._take_back(here)
        if state == ENDING:
            # They are told to fetch what waits: whoever is away comes back once.
            for handset in here:
                handset.switch_on()

    def _take_back(self, here: list[Handset]) -> None:
        """Senders withdraw what the people of a place have not fetched."""
        devices = {handset.index for handset in here}
        left: dict[tuple[int, int], list[Sent]] = {}
        for sent in self.ledger.sent.values():
            if sent.device in devices and sent.receipted and not sent.shown and not sent.withdrawn:
                left.setdefault((sent.message.person, sent.device), []).append(sent)
        for (person, device), sents in left.items():
            sender = self._device_of(person)
            if sender is not None:
                sender.withdraw(sents, self.people.keys[device].mailbox)


def _config(scenario: Scenario, devices: int) -> CoreConfig:
    relay = scenario.relay
    return CoreConfig(
        retention_s=relay.retention_days * DAY_S,
        mailbox_envelopes_max=relay.mailbox_envelopes_max,
        mailbox_bytes_max=relay.mailbox_bytes_max,
        # Without waiting for company, so that no timer is needed for an answer.
        ack_answer_ms=0,
        redeliver_most_ms=int(relay.redeliver_most_s * 1_000),
        links_max=max(20_000, 2 * devices),
        topics_max=max(20_000, 2 * devices),
    )
