"""A world for devices: virtual time, a relay core with a memory store, and a network that misbehaves when told to.

Time stands still while anything can run and jumps to the next timer when nothing can, so that a test of an hour takes
milliseconds, and one seed repeats one run (but for ML-KEM, which takes no seed).
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from client.device import Device
from client.errors import TransportClosed
from client.state import Settings, Surroundings
from client.transport import Channel
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from relay.core import CoreConfig, RelayCore, RelayIdentity
from relay.held import held_of
from relay.store.memory import MemoryStore
from wire.card import RelayCard
from wire.commands import RelayCommand
from wire.identity import Token, device_tag
from wire.signing import SigningKey

T = TypeVar("T")

PASSPHRASE = b"correct horse"
# 1 December 2015, 00:00 UTC.
START_S = 1_448_928_000
RELAY_SEED = b"r" * 32


class _VirtualSelector(selectors.SelectSelector):
    """Never sleeps: a wait moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0
        self.idle = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            # asyncio fires a timer that is a rounding error ahead; set again for the same moment by whoever finds it
            # too early, it would fire without end if the clock stood quite still.
            self.now_s += 1e-9
            return ready
        if timeout is None:
            raise RuntimeError("deadlock: nothing can run and no timer is set")
        self.now_s += max(timeout, 1e-6)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a scenario under virtual time; it must end by itself."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(asyncio.ensure_future(scenario(), loop=loop))
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


@dataclass
class Faults:
    """How often the network misbehaves, each from 0 to 1."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0


class _Port:
    """A device's connection to the network."""

    def __init__(self, world: World, tag: bytes) -> None:
        self._world = world
        self._tag = tag
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def send(self, packet: bytes) -> None:
        if self._world.ports.get(self._tag) is not self:
            raise TransportClosed("cut")
        self._world.up(self._tag, packet)

    async def receive(self) -> bytes:
        packet = await self.queue.get()
        if packet is None:
            raise TransportClosed("cut")
        return packet


class World:
    """One relay, one network, and the devices that a test makes.

    Args:
        folder: where homes go.
        seed: of the network's faults.
        settings: of every device.
    """

    def __init__(self, folder: Path, seed: int = 0, settings: Settings | None = None, **config: Any) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.settings = settings or Settings()
        self.config = CoreConfig(**config)
        self.key = SigningKey(RELAY_SEED)
        self.card = RelayCard(self.key.public, "mqtt://127.0.0.1:1")
        self.admin = {domain: TenantAdminKey.generate(self.entropy) for domain in ("acme.example", "globex.example")}
        self.store = MemoryStore(self.card.relay_id)
        self.faults = Faults()
        self.ports: dict[bytes, _Port] = {}
        self.up_taps: list[Callable[[bytes, bytes], bytes | None]] = []
        self.down_taps: list[Callable[[bytes, bytes], bytes | None]] = []
        self.tamper: Callable[[RelayCommand], RelayCommand | None] | None = None
        self.seed = RELAY_SEED
        self.on = False
        self._last_s = 0.0
        self._work_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.start()

    # Time and chance

    def now(self) -> float:
        return START_S + asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return int(self.now() * 1_000)

    def entropy(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    # The relay

    def start(self) -> None:
        """Start the relay on what its store holds."""
        rotations = tuple(row.record for row in self.store.load().rotations)
        identity = RelayIdentity(self.card.relay_id, self.seed, rotations)
        self.core = RelayCore(self.config, identity, self.store.load(), self.entropy)
        for domain, key in self.admin.items():
            self.core.admit_tenant(domain, key.public)
        self.on = True

    def kill(self) -> None:
        """The relay is gone, with all that was not committed."""
        self.on = False
        if self._timer:
            self._timer.cancel()

    def restart(self) -> None:
        self.kill()
        self.start()

    def up(self, tag: bytes, packet: bytes) -> None:
        for tap in self.up_taps:
            replaced = tap(tag, packet)
            if replaced is None:
                return
            packet = replaced
        self._carry(lambda: self._arrive(tag, packet))

    def _arrive(self, tag: bytes, packet: bytes) -> None:
        if self.on:
            self.core.receive(tag, packet, self.now_ms())
            self.work_soon()

    def down(self, tag: bytes, packet: bytes) -> None:
        for tap in self.down_taps:
            replaced = tap(tag, packet)
            if replaced is None:
                return
            packet = replaced
        self._carry(lambda: self._hand_over(tag, packet))

    def _hand_over(self, tag: bytes, packet: bytes) -> None:
        port = self.ports.get(tag)
        if port:
            port.queue.put_nowait(packet)

    def _carry(self, deliver: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        copies = 1 + (self.rng.random() < self.faults.duplicate)
        if self.rng.random() < self.faults.drop:
            copies = 0
        for _ in range(copies):
            if self.rng.random() < self.faults.delay:
                loop.call_later(self.rng.random() * 3, deliver)
            else:
                # Packets that are not delayed stay in order, as a broker keeps them.
                self._last_s = max(self._last_s + 1e-6, loop.time() + 0.001)
                loop.call_at(self._last_s, deliver)

    def work_soon(self) -> None:
        if not self._work_due:
            self._work_due = True
            asyncio.get_running_loop().call_later(0.001, self.work)

    def work(self) -> None:
        """One turn of the relay's service, without threads."""
        self._work_due = False
        if not self.on:
            return
        now_ms, core = self.now_ms(), self.core
        core.tick(now_ms)
        while (batch := core.take_batch(now_ms)) is not None:
            try:
                self.store.commit(batch)
            except OSError as error:
                core.aborted(batch, error, now_ms)
            else:
                core.committed(batch, now_ms)
        reads = core.take_reads()
        if reads:
            core.loaded([(read, self.store.read(read.seqs)) for read in reads], now_ms)
            self.work_soon()
        while (read := core.take_record(now_ms)) is not None:
            core.record_made(read, held_of(self.store.rows(read.rows), read.account).data, now_ms)
        for tag, packet in core.take_packets():
            self.down(tag, packet)
        deadline_ms = core.next_deadline()
        if self._timer:
            self._timer.cancel()
        if deadline_ms is not None:
            wait_s = max(0.001, (deadline_ms - self.now_ms()) / 1_000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.work_soon)

    def held(self) -> int:
        """Envelopes in the relay's store."""
        return len(self.store.envelopes)

    # The network

    @asynccontextmanager
    async def _connect(self, device: bytes) -> AsyncIterator[Channel]:
        port = _Port(self, device)
        self.ports[device] = port
        try:
            yield port
        finally:
            if self.ports.get(device) is port:
                del self.ports[device]

    def connect(self, topic_up: str, topic_down: str) -> Any:
        """Meets `client.transport.Transport`."""
        _bp, relay_id, tag, _up = topic_up.split("/")
        assert topic_down == topic_up.removesuffix("up") + "down"
        assert relay_id == self.card.relay_id.hex()
        return self._connect(bytes.fromhex(tag))

    def cut(self, device: Device) -> None:
        """The broker's connection ends; the device connects again."""
        port = self.ports.pop(device_tag(device.state.keys.public), None)
        if port:
            port.queue.put_nowait(None)

    # Devices

    def token(self, account: str) -> Token:
        domain = account.partition("@")[2]
        return self.admin[domain].activate(account, START_S + 10**6, self.entropy)

    def _arguments(self, settings: Settings | None) -> dict[str, Any]:
        return {
            "settings": settings or self.settings,
            "surroundings": Surroundings(self.now, self.entropy),
            "transport": self,
        }

    def new(self, account: str, name: str = "", settings: Settings | None = None, **more: Any) -> Device:
        home = self.folder / (name or account)
        return Device.new(
            home, self.card, self.token(account), PASSPHRASE, cost=CHEAP_FOR_TESTS, **self._arguments(settings), **more
        )

    def request(self, name: str, settings: Settings | None = None) -> Device:
        home = self.folder / name
        return Device.request(home, self.card, PASSPHRASE, cost=CHEAP_FOR_TESTS, **self._arguments(settings))

    def open(self, name: str, settings: Settings | None = None, **more: Any) -> Device:
        return Device.open(self.folder / name, PASSPHRASE, **self._arguments(settings), **more)
