"""A run with `crypto = "real"`: client/device.py on its own home, real handshakes, links and ratchets, in virtual time.

The town is the one of a sized run: the same people, traffic, network, faults and law, and the same relay. Only its
calendar is an event loop that jumps (sim/virtual_time.py), since the client is asyncio code, and its handsets are real.
What is sent, receipted and shown is learnt from the clients themselves, not from the relay.

One seed gives the same events in the same order; ciphertext differs, since ML-KEM and sealed rows take no seed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from client.content import Kind
from client.device import Device
from client.errors import Alarm, TransportClosed
from client.state import Settings, Surroundings
from client.volunteer import receipt_items
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from relay.core import RelayIdentity
from sim.engine.calendar import Calendar
from sim.engine.chance import generator
from sim.engine.disk import Disk
from sim.engine.handset import Handset
from sim.engine.ledger import Message, Sent
from sim.engine.people import DeviceKeys, People
from sim.engine.population import Population
from sim.engine.town import Town
from sim.engine.traffic import CHAT, HOUR_S
from sim.scenario.base import DAY_S, ScenarioError
from sim.scenario.scenario import Scenario
from wire.card import RelayCard
from wire.codec import encode
from wire.errors import BlindpostError
from wire.identity import device_tag

__all__ = ["RealTown", "check_real"]

PEOPLE_MAX: Final = 200
_PASSPHRASE: Final = b"a passphrase of the simulation"
_KEEPALIVE_S: Final = 300.0
_TOKEN_S: Final = 86_400
_DISBELIEVED: Final = frozenset({"SignatureError", "FormatError", *(kind.__name__ for kind in Alarm.__subclasses__())})
"""Kinds of notices that say that something is not what its owner made."""


def check_real(scenario: Scenario) -> None:
    """Whether a scenario can be run with the real client.

    Raises:
        ScenarioError: it asks for what only a sized run has.
    """
    if scenario.people_count > PEOPLE_MAX:
        raise ScenarioError("crypto", f"real is for at most {PEOPLE_MAX} people; see --people")
    if scenario.relay.protection != "blindpost" or scenario.relay.escrow:
        raise ScenarioError("crypto", "real has the real client, which knows no older protection and no escrow")
    if any(tenant.devices_per_person > 1 for tenant in scenario.tenant):
        raise ScenarioError("tenant.devices_per_person", "must be 1 with crypto = real")


class LoopCalendar(Calendar):
    """A calendar on the running loop: between its calls, clients run."""

    def __init__(self, now_ms: int, grid_ms: int) -> None:
        self._begins_ms = now_ms
        self._loop = asyncio.get_running_loop()
        self._settling = False
        self.settle: Callable[[int], None] = lambda now_ms: None
        super().__init__(now_ms, grid_ms)

    @property
    def now_ms(self) -> int:
        """Unix time in virtual milliseconds."""
        return self._begins_ms + int(self._loop.time() * 1_000 + 1e-6)

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        """The loop's clock cannot be set: it is where it is."""

    def at(self, moment_ms: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call at a moment of the grid."""
        grid_ms = self.grid_ms
        moment_ms = -(-max(moment_ms, self.now_ms + 1) // grid_ms) * grid_ms
        self._loop.call_at((moment_ms - self._begins_ms) / 1_000, self._call, call, arguments)

    def _call(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        call(*arguments)
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        self.moments += 1
        self.settle(self.now_ms)

    async def until(self, moment_ms: int) -> None:
        """Let time pass."""
        await asyncio.sleep(max(0.0, (moment_ms - self.now_ms) / 1_000))


class RealHandset(Handset):
    """A real device, and the network's end of its connection.

    Args:
        town: carries its packets.
        index: its number, and its person's.
        device: the client.
    """

    __slots__ = ("_channel", "_shown", "_up", "device")

    def __init__(self, town: "RealTown", index: int, device: Device) -> None:
        keys = device.state.keys
        names = DeviceKeys(keys.public, keys.dh_public, keys.mailbox, device_tag(keys.public))
        super().__init__(town, index, index, names)
        self.device = device
        self._channel: asyncio.Queue[bytes | None] | None = None
        self._up = asyncio.Event()
        self._shown: set[bytes] = set()

    # client/transport.py's Transport and Channel

    @contextlib.asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator["RealHandset"]:
        """Wait for the network, as a phone does."""
        await self._up.wait()
        self._channel = asyncio.Queue()
        try:
            yield self
        finally:
            self._channel = None

    async def send(self, packet: bytes) -> None:
        """Hand a packet to the network."""
        if self._channel is None or not self.reachable:
            raise TransportClosed("the network is gone")
        self.town.up(self, packet)

    async def receive(self) -> bytes:
        """Wait for a packet."""
        channel = self._channel
        packet = await channel.get() if channel is not None else None
        if packet is None:
            raise TransportClosed("the network is gone")
        return packet

    def hear(self, packet: bytes) -> None:
        """A packet of the relay has come."""
        if self._channel is not None:
            self._channel.put_nowait(packet)

    # What the town does with a handset

    def switch_off(self, announced: bool) -> None:
        """Leave the network. The real client announces nothing."""
        if self.online:
            self.online = False
            self.town.offline += 1
            self._hang_up()

    def cut(self, on: bool) -> None:
        """Something comes between this device and the relay, or goes."""
        self.cuts += 1 if on else -1
        if self.cuts:
            self._hang_up()
        else:
            self.resume()

    def _hang_up(self) -> None:
        self._up.clear()
        if self._channel is not None:
            self._channel.put_nowait(None)

    def resume(self) -> None:
        """The network is there again."""
        if self.reachable:
            self._up.set()

    def keep_alive(self) -> None:
        """The client does that by itself."""

    def flush(self) -> None:
        """The client says what it has to say by itself."""

    def write(self, message: Message) -> None:
        """Send a message."""
        town = self.town
        assert isinstance(town, RealTown)
        to = tuple(town.accounts[person] for person in message.to)
        text = f"message {message.number} from {town.accounts[self.person]}: "
        payload = (text + "lorem ipsum " * (message.content_bytes // 12 + 1))[: max(len(text), message.content_bytes)]
        kind = Kind.CHAT if message.kind == CHAT else Kind.EMAIL
        if kind is Kind.EMAIL:
            payload = f"From: {town.accounts[self.person]}\r\nTo: {', '.join(to)}\r\n\r\n{payload}\r\n"
        content = self.device.compose(kind, payload.encode(), to)
        try:
            self.device.post(content, to)
        except BlindpostError:
            town.ledger.failed += 1
            return
        town.written[content.message_id] = message

    def withdraw(self, sents: list[Sent], mailbox: bytes) -> None:
        """Senders take back what was not fetched; the client asks by message."""
        town = self.town
        assert isinstance(town, RealTown)
        for message_id in {sent.message_id for sent in sents if sent.message_id}:
            town.spawn(self._take_back(message_id))

    async def _take_back(self, message_id: bytes) -> None:
        town = self.town
        asked = await self.device.withdraw(message_id)
        town.ledger.hour.withdrawn += asked

    async def live(self) -> None:
        """Show what arrives, until the run ends."""
        town = self.town
        assert isinstance(town, RealTown)
        while True:
            for received in await self.device.receive(HOUR_S):
                self.enrolled = True
                message = town.written.get(received.message_id)
                if message is None:
                    town.ledger.strange += 1
                    continue
                town.ledger.hour.delivered += 1
                town.ledger.hour.shown += 1
                if received.message_id in self._shown:
                    town.ledger.hour.shown_twice += 1
                    continue
                self._shown.add(received.message_id)
                town.shown(self, message)

    def has_shown(self, message_id: bytes) -> bool:
        """Whether its person has seen it."""
        return message_id in self._shown


class RealPeople(People):
    """The companies' keys; devices make their own."""

    def __init__(self, population: Population, domains: list[str], seed: int) -> None:
        self._admins_by_domain = {
            domain: TenantAdminKey.generate(generator(seed, f"admin/{domain}").randbytes) for domain in domains
        }
        self.admin_keys = [(domain, admin.public) for domain, admin in self._admins_by_domain.items()]
        self.person_of = list(range(len(population)))
        self.devices_of = [(person,) for person in self.person_of]
        self.handsets = []
        self._population = population
        self._seed = seed

    def token(self, person: int, now_s: int) -> Any:
        """An activation token of a person."""
        account = self._population.accounts[person]
        admin = self._admins_by_domain[account.partition("@")[2]]
        return admin.activate(account, now_s + _TOKEN_S, generator(self._seed, f"token/{person}").randbytes)


class RealTown(Town):
    """A town of real devices.

    Args:
        homes: a folder for their homes.
        card: the relay's.
        more: as of `Town`.
    """

    def __init__(
        self,
        homes: Path,
        card: RelayCard,
        scenario: Scenario,
        population: Population,
        seed: int,
        identity: RelayIdentity,
        disk: Disk,
        log_path: Path,
    ) -> None:
        self._homes = homes
        self._card = card
        self.written: dict[bytes, Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._told: set[tuple[int, str]] = set()
        """(device, account) of each alarm."""
        super().__init__(scenario, population, seed, identity, disk, log_path)

    def _make_calendar(self, now_ms: int, grid_ms: int) -> Calendar:
        self.loop_calendar = LoopCalendar(now_ms, grid_ms)
        self.loop_calendar.settle = self.settle
        return self.loop_calendar

    def _make_people(self) -> People:
        domains = [tenant.domain for tenant in self.scenario.tenant]
        self.real_people = RealPeople(self.population, domains, self.seed)
        return self.real_people

    def _make_handsets(self) -> list[Handset]:
        return [self._make_handset(person) for person in range(len(self.population))]

    def _make_handset(self, person: int) -> Handset:
        start_s = self.scenario.start.unix_s
        ends: list[RealHandset] = []

        class Line:
            """The device's transport, before its handset is there."""

            def connect(self, topic_up: str, topic_down: str) -> Any:
                return ends[0].connect(topic_up, topic_down)

        settings = Settings(expiry_s=self.scenario.relay.retention_days * DAY_S, keepalive_s=_KEEPALIVE_S)
        calendar = self.calendar
        device = Device.new(
            self._homes / f"device-{person}",
            self._card,
            self.real_people.token(person, start_s),
            _PASSPHRASE,
            settings=settings,
            surroundings=Surroundings(
                now=lambda: calendar.now_ms / 1_000, random=generator(self.seed, f"device/{person}").randbytes
            ),
            transport=Line(),
            cost=CHEAP_FOR_TESTS,
        )
        handset = RealHandset(self, person, device)
        ends.append(handset)
        return handset

    @property
    def devices(self) -> list[RealHandset]:
        """The handsets, which are real ones."""
        return [handset for handset in self.handsets if isinstance(handset, RealHandset)]

    def spawn(self, work: Any) -> None:
        """Let something go on beside; its failure ends the run."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    def _device_of(self, person: int) -> Handset | None:
        handset = self.handsets[person]
        assert isinstance(handset, RealHandset)
        return handset if handset.online and handset.device.state.device.enrolled else None

    def close_hour(self) -> None:
        """Receipts are learnt from the clients: each hour what they hold by then."""
        before = self.ledger.total("receipted")
        self._gather_receipts()
        self.ledger.hour.receipted = sum(sent.receipted for sent in self.ledger.sent.values()) - before
        super().close_hour()

    def _gather_receipts(self) -> None:
        devices = self.devices
        by_mailbox = {handset.keys.mailbox: handset for handset in devices}
        for message_id, message in self.written.items():
            for held in devices[message.person].device.receipts_of(message_id):
                sent = self.ledger.sent.get(held.envelope_id)
                to = by_mailbox.get(held.mailbox)
                if sent is None:
                    # A mailbox that nobody of the run owns is a ghost's.
                    device = -1 if to is None else to.index
                    sent = Sent(message, device, held.token, held.envelope_id, held.expiry, 0, 1)
                    sent.message_id = message_id
                    sent.receipted = True
                    self.ledger.sent[held.envelope_id] = sent
                    self.ledger.hour.envelopes += 1
                sent.withdrawn = held.withdrawn
                sent.shown = to is not None and to.has_shown(message_id)

    def alarmed_by(self, person: int) -> int:
        """How many devices told their person that something of somebody is not to be believed."""
        return len({device for device, account in self._told if account == self.accounts[person]})

    def _gather_notices(self) -> None:
        for handset in self.devices:
            for notice in handset.device.notices():
                if notice.kind in _DISBELIEVED:
                    self._told |= {(handset.index, account) for account in notice.accounts}

    def volunteered(self) -> list[bytes]:
        """Everybody's receipts, as files for the verifier (protocol.md section 12.2)."""
        return [
            encode(["blindpost/v1/volunteered", self.accounts[handset.person], receipt_items(handset.device)])
            for handset in self.devices
        ]

    async def play_through(self, orders: Callable[[int], None]) -> None:
        """Let the scenario take place.

        Raises:
            BaseException: what ended a device.
        """
        calendar = self.loop_calendar
        end_s = self.scenario.end.unix_s
        for handset in self.devices:
            await handset.device.__aenter__()
            self.spawn(handset.live())
        self.begin(orders)
        await calendar.until(end_s * 1_000)
        self.heal()
        await calendar.until((end_s + round(self.scenario.settle_hours * HOUR_S)) * 1_000)
        self.close_hour()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.machine.kill()
        self._gather_notices()
        for handset in self.devices:
            await handset.device.__aexit__(None, None, None)
        if self._failures:
            raise self._failures[0]
