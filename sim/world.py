"""A small world in one process: a real relay on a real store, real devices of two companies, and what they say.

    async with World.start(folder) as world:
        await world.talk()
    served = world.order(out)            another process, `python -m relay`, hands everything over
    report = served.audit()

The relay is relay/process.py's, with the loopback transport in place of a broker, and its home on the disk; the devices
are client/device.py's. Ana and Bilal work at Acme, Chloe and Dawud at Globex; Chloe's phone is off, so what people
write to her waits at the relay. Every text that she is sent is a canary that was committed to before.

It is fast, because the controls are built on it: passphrases are stretched as cheaply as the vault allows.
"""

import asyncio
import contextlib
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import keys.chain
import keys.ratchet
from audit import Report, run
from audit.keysearch import KeySearchSettings
from client.content import Kind
from client.device import Device
from client.errors import TransportClosed
from client.transport import Channel
from client.volunteer import Item, opening_items, receipt_items
from keys.identity import TenantAdminKey
from keys.prekeys import PrekeyRing
from keys.vault import CHEAP_FOR_TESTS
from relay import home as relay_home
from relay.home import Home
from relay.process import assemble
from relay.transport import TransportClosed as RelayTransportClosed
from relay.transport.loopback import DevicePort, Network
from relay.transport.loopback import Transport as LoopbackTransport
from wire.codec import encode
from wire.envelope import Envelope
from wire.hashing import label
from wire.identity import Token
from wire.prekeys import OneTimePrekey

__all__ = ["ABSENT", "PASSPHRASE", "PEOPLE", "Canary", "LoopbackDevices", "Served", "World"]

PEOPLE: Final = ("ana@acme.example", "bilal@acme.example", "chloe@globex.example", "dawud@globex.example")
ABSENT: Final = "chloe@globex.example"
"""Her phone is off: her mail stays at the relay."""

_SENTENCES: Final = (
    "The loom stands behind the blue door, and the lock opens with ",
    "Do not wait for me on Friday; the table is booked under number ",
    "My brother carries the papers across on the boat with registration ",
    "La réponse est oui, et le numéro du dossier est ",
)
PASSPHRASE: Final = b"a passphrase of the simulation"
_WAIT_S: Final = 20.0
_ONE_TIME_PREKEYS_MAX: Final = 4
_FAR_FUTURE_S: Final = 4_102_444_800


Cheat = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Canary:
    """A text that its sender has committed to."""

    who: str
    nonce: bytes
    text: str

    def __repr__(self) -> str:
        return f"Canary(who={self.who!r}, nonce=<redacted>, text=<redacted>)"

    @property
    def commitment(self) -> bytes:
        """SHA-256(L("canary") ‖ nonce ‖ text), protocol.md section 12.1."""
        return sha256(label("canary") + self.nonce + self.text.encode()).digest()


class LoopbackDevices:
    """client/transport.py's `Transport` over relay/transport/loopback.py's network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @contextlib.asynccontextmanager
    async def connect(self, topic_up: str, topic_down: str) -> AsyncIterator[Channel]:
        """Attach the device whose tag the topics name."""
        tag = bytes.fromhex(topic_up.split("/")[2])
        assert topic_down.split("/")[2] == tag.hex()
        yield _LoopbackChannel(self._network.device(tag))


class _LoopbackChannel:
    def __init__(self, port: DevicePort) -> None:
        self._port = port

    async def send(self, packet: bytes) -> None:
        await self._port.send(packet)

    async def receive(self) -> bytes:
        try:
            return await self._port.receive()
        except RelayTransportClosed as error:
            raise TransportClosed(str(error)) from None


@dataclass(repr=False)
class Served:
    """A disclosure, and what the participants give the verifier beside it."""

    folder: Path
    card: bytes
    commitments: bytes
    volunteered: list[bytes]
    order: bytes | None = None
    earlier: Path | None = None

    def __repr__(self) -> str:
        return f"Served(folder={str(self.folder)!r}, volunteered=<{len(self.volunteered)} files>)"

    def audit(self, key_search: KeySearchSettings | None = None) -> Report:
        """What the independent verifier says.

        Args:
            key_search: how to search for keys that nobody volunteered; None for no such search.
        """
        return run(
            self.folder,
            card=self.card,
            volunteered=self.volunteered,
            commitments=self.commitments,
            order=self.order,
            key_search=key_search,
            earlier=self.earlier,
        )


@dataclass(repr=False)
class Evidence:
    """What people will give the verifier, and what a cheat would like to have: gathered when the devices stop."""

    canaries: list[Canary] = field(default_factory=list)
    openings: list[Item] = field(default_factory=list)
    receipts: dict[str, list[Item]] = field(default_factory=dict)
    secrets: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    private_keys: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of each device, its Ed25519 seed and X25519 identity key: for relays that cheat; nobody volunteers the latter."""
    chains: dict[bytes, bytes] = field(default_factory=dict)
    """Message key to the chain key one step before it, of what was written to the absent one; nobody volunteers it."""

    def __repr__(self) -> str:
        return f"Evidence(canaries={len(self.canaries)}, openings={len(self.openings)}, secrets=<redacted>)"

    @property
    def commitments(self) -> bytes:
        """The file of commitments (section 12.1)."""
        return encode(["blindpost/v1/commitments", [[canary.commitment, canary.who] for canary in self.canaries]])

    def volunteered(self, more: Sequence[Item] = ()) -> list[bytes]:
        """One file for each person (section 12.2): secrets, receipts, openings; and `more` of the absent one."""
        files = []
        for who in PEOPLE:
            items: list[Item] = [[1, name, secret] for name, secret in self.secrets.get(who, [])]
            items += self.receipts.get(who, [])
            items += [[4, canary.nonce, canary.text.encode()] for canary in self.canaries if canary.who == who]
            if who == ABSENT:
                items += [*self.openings, *more]
            files.append(encode(["blindpost/v1/volunteered", who, items]))
        return files


class World:
    """Relay and devices. Made by `start`; after the context the relay is at rest and the home can be copied.

    Args:
        folder: everything of this world lies in it.
        home: the relay's home.
    """

    def __init__(self, folder: Path, home: Home) -> None:
        self.folder = folder
        self.home = home
        self.evidence = Evidence()
        self.network = Network()
        self.devices: dict[str, Device] = {}
        self._running: set[str] = set()
        self._admins: dict[str, TenantAdminKey] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, folder: Path) -> AsyncIterator["World"]:
        """Make a relay with two companies and four people, all enrolled; the absent one goes offline."""
        folder.mkdir(parents=True, exist_ok=True)
        with few_prekeys():
            async with cls._started(folder) as world:
                yield world
        world._gather()

    @classmethod
    @contextlib.asynccontextmanager
    async def _started(cls, folder: Path) -> AsyncIterator["World"]:
        # No broker listens there: the loopback network takes its place. The port is one that nobody uses.
        world = cls(folder, relay_home.init(folder / "relay", os.urandom, broker="mqtt://127.0.0.1:9"))
        async with world.served():
            await world._enrol()
            try:
                yield world
            finally:
                await asyncio.gather(*(world.switch_off(account) for account in list(world._running)))

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """The relay at work, with the loopback network."""
        with self.home.locked():
            service, discloser = assemble(self.home, LoopbackTransport(self.network))
            service.log.started(os.getpid(), self.home.config.partition)
            ready = asyncio.Event()

            async def on_ready() -> None:
                ready.set()

            task = asyncio.create_task(service.run(on_ready))
            try:
                await ready.wait()
                self._admins = {domain: TenantAdminKey.generate() for domain in ("acme.example", "globex.example")}
                for domain, admin in self._admins.items():
                    await service.admit_tenant(domain, admin.public)
                yield
            finally:
                service.stop()
                await task
                discloser.close()

    def token(self, account: str) -> Token:
        """An activation token of the account's company."""
        return self._admins[account.partition("@")[2]].activate(account, _FAR_FUTURE_S)

    async def _enrol(self) -> None:
        transport = LoopbackDevices(self.network)
        for account in PEOPLE:
            token = self.token(account)
            home = self.folder / account.partition("@")[0]
            device = Device.new(home, self.home.card, token, PASSPHRASE, transport=transport, cost=CHEAP_FOR_TESTS)
            self.devices[account] = device
            await device.__aenter__()
            self._running.add(account)
        await asyncio.gather(*(device.enrolled(_WAIT_S) for device in self.devices.values()))

    async def switch_off(self, account: str) -> None:
        """Take a device off the network, and close its home."""
        self._running.discard(account)
        await self.devices[account].__aexit__(None, None, None)

    async def switch_on(self, account: str) -> None:
        """Open a device's home again, and bring it back on the network."""
        home = self.folder / account.partition("@")[0]
        device = Device.open(home, PASSPHRASE, transport=LoopbackDevices(self.network))
        self.devices[account] = device
        await device.__aenter__()
        self._running.add(account)

    async def talk(self, cheat: Cheat | None = None, withdrawn: int = 0) -> None:
        """Say good morning while all are there, then write to the absent one; her mail stays.

        Args:
            cheat: what holds while people write to the absent one (sim/mutants/client_side.py).
            withdrawn: how many chats the first canary's writer sends to her before it, and takes back.
        """
        await self.say("ana@acme.example", (ABSENT, "bilal@acme.example"), "good morning")
        (first,) = await self.devices[ABSENT].receive(_WAIT_S)
        assert first.payload == b"good morning"
        await self.devices[ABSENT].idle(_WAIT_S)
        await self.switch_off(ABSENT)
        self.evidence.canaries = draw_canaries()
        first_canary, *others = self.evidence.canaries
        with recorded_chains(self.evidence.chains), cheat() if cheat else contextlib.nullcontext():
            for _ in range(withdrawn):
                await self._take_back(first_canary.who, b"never mind")
            await self._send(first_canary.who, (ABSENT,), Kind.EMAIL, letter(first_canary))
            for canary in others:
                await self.say(canary.who, (ABSENT,), canary.text)
        await asyncio.gather(*(self.devices[account].idle(_WAIT_S) for account in self._running))

    async def _take_back(self, who: str, text: bytes) -> None:
        """Send the absent one a chat and withdraw it."""
        device = self.devices[who]
        message = device.compose(Kind.CHAT, text, (ABSENT,))
        await device.send(message, (ABSENT,), wait_s=_WAIT_S)
        await device.withdraw(message.message_id, _WAIT_S)

    async def say(self, who: str, to: Sequence[str], text: str) -> None:
        """Send a chat and wait for the receipts."""
        await self._send(who, to, Kind.CHAT, text.encode())

    async def _send(self, who: str, to: Sequence[str], kind: Kind, payload: bytes) -> None:
        device = self.devices[who]
        await device.send(device.compose(kind, payload, to), to, wait_s=_WAIT_S)

    def _gather(self) -> None:
        """Open every home once more, offline, and take what its person may volunteer."""
        for account in PEOPLE:
            device = Device.open(self.folder / account.partition("@")[0], PASSPHRASE)
            try:
                self.evidence.receipts[account] = receipt_items(device)
                self.evidence.secrets[account] = [("device signing seed", device.state.keys.signing.seed)]
                (_, seed), (_, identity_key) = device.state.keys.secrets()
                self.evidence.private_keys.append((seed, identity_key))
                if account == ABSENT:
                    self.evidence.openings = opening_items(device, stored_envelopes(self.home.store_path))
            finally:
                device.close()


@contextlib.contextmanager
def few_prekeys() -> Iterator[None]:
    """Publish four one-time prekeys at a time, not 64: they would be nine tenths of the store that each audit reads."""
    real = PrekeyRing._add_one_time

    def add_few(ring: PrekeyRing, generation: Any, count: int) -> tuple[OneTimePrekey, ...]:
        return real(ring, generation, min(count, _ONE_TIME_PREKEYS_MAX))

    with replaced(PrekeyRing, "_add_one_time", add_few):
        yield


@contextlib.contextmanager
def recorded_chains(chains: dict[bytes, bytes]) -> Iterator[None]:
    """Keep, of each message that is written until the block ends, its key and the chain key before it."""
    step = keys.chain.chain_step

    def recorded(chain: bytes) -> tuple[bytes, bytes]:
        following, message_key = step(chain)
        chains[message_key] = chain
        return following, message_key

    with replaced(keys.ratchet, "chain_step", recorded):
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    """Put something else in the place of a function of a class or module, until the block ends."""
    real = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, real)


def stored_envelopes(path: Path) -> list[Envelope]:
    """The envelopes of a relay's store that is at rest, in the order of their arrival."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT mailbox, envelope_id, expiry, body FROM envelopes ORDER BY seq")
        return [Envelope(*row) for row in rows]


def draw_canaries() -> list[Canary]:
    """Texts that nobody has ever written before, one of each of the three who write to the absent one, and one more."""
    writers = [person for person in PEOPLE if person != ABSENT]
    return [
        Canary(writers[index % len(writers)], os.urandom(32), f"{sentence}{secrets.randbelow(10**16):016d}.")
        for index, sentence in enumerate(_SENTENCES)
    ]


def letter(canary: Canary) -> bytes:
    """The canary as an email."""
    lines = (
        f"From: {canary.who}",
        f"To: {ABSENT}",
        "Subject: between us",
        "Content-Type: text/plain; charset=utf-8",
        "",
        canary.text,
        "",
    )
    return "\r\n".join(lines).encode()
