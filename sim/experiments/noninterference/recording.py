"""One run with clients, and what of it is handed to a relay again.

`record` plays a script: phones, a network that loses, doubles, delays and spoils packets, a disk that fails, a relay
that is killed. What it keeps is the relay's inputs: each packet with its moment, and the operator's acts, which are the
script's. `replay` hands the same inputs to another relay at the same moments, without any phone, and with the bodies
of a world: a frame is opened, each body in it replaced, and sealed again under the same key and counter, so that every
byte around the bodies is what it was. Packets that the network spoilt are spoilt in the same place.

Rules: a body's replacement has its length (`UnequalLength` otherwise), and depends on mailbox, envelope id and which
body under that id it is; so the same envelope again is the same again, and another body under a used id is another one.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from nacl.bindings import crypto_secretbox

from keys.identity import TenantAdminKey
from sim.experiments.noninterference.linked import Sealed
from sim.experiments.noninterference.minds import Said
from sim.experiments.noninterference.phones import Person
from sim.experiments.noninterference.script import (
    Away,
    Devices,
    Hostile,
    Outage,
    Prekeys,
    Script,
    Send,
    Withdrawal,
)
from sim.experiments.noninterference.stage import Parts, Stage
from sim.experiments.noninterference.trace import Trace
from sim.virtual_time import run_virtually
from wire.commands import DeviceCommand, Submit, encode_commands
from wire.envelope import Envelope
from wire.errors import BlindpostError
from wire.identity import Token
from wire.link import FRAME
from wire.signing import SigningKey

__all__ = ["Arrival", "Bodies", "Recording", "Town", "UnequalLength", "record", "replay"]

Bodies = Mapping[tuple[bytes, bytes], tuple[bytes, ...]]
"""By mailbox and envelope id: the bodies that were handed in under it, in the order of their first submits."""

_LATENCY_S: Final = (0.001, 0.005)
_DELAY_MAX_S: Final = 3.0
_ENROLLED_S: Final = 1.0
"""Before the first act, so that people are there to be written to."""
_SETTLE_MS: Final = 45_000
_LATE_MS: Final = 32 * 86_400_000
_TENANTS: Final = ("acme.example", "globex.example")


class UnequalLength(BlindpostError):
    """A body's replacement has another length: the inputs differ in more than content."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that reached the relay's broker connection.

    Attributes:
        at_s: virtual seconds since the loop began.
        tag: the topic's device tag.
        packet: its bytes as they arrived.
        sealed: what it was before it was sealed; None for a packet without bodies.
        spoilt_at: the place of the byte in which the network flipped a bit; None if it did not.
    """

    at_s: float
    tag: bytes
    packet: bytes
    sealed: Sealed | None
    spoilt_at: int | None


@dataclass(frozen=True)
class Recording:
    """A recorded run.

    Attributes:
        script: what was played.
        sqlite: whether rows were kept in SQLite.
        arrivals: the relay's inputs, in order.
        said: every envelope's bodies of both worlds.
        link_keys: by link id, the key of the relay's direction.
        trace: what the relay did.
        opened: bodies that their recipients opened, both worlds counted.
        signing_key: the relay's.
    """

    script: Script
    sqlite: bool
    arrivals: tuple[Arrival, ...]
    said: Mapping[tuple[bytes, bytes], tuple[Said, ...]]
    link_keys: Mapping[bytes, bytes]
    trace: Trace
    opened: int
    signing_key: SigningKey

    def bodies(self, world: int) -> Bodies:
        """The bodies of a world: 0 as recorded, 1 of the other contents."""
        return {key: tuple(said.bodies[world] for said in variants) for key, variants in self.said.items()}

    def random_bodies(self, seed: int) -> Bodies:
        """Random bytes of the same lengths, drawn for each envelope by itself."""
        return {
            key: tuple(
                random.Random(f"{seed}/random/{key[0].hex()}/{key[1].hex()}/{variant}").randbytes(len(one.bodies[0]))
                for variant, one in enumerate(variants)
            )
            for key, variants in self.said.items()
        }


class Town:
    """Everybody but the relay, in a recorded run."""

    def __init__(self, script: Script, stage: Stage) -> None:
        self.script = script
        self.link_keys: dict[bytes, bytes] = {}
        self.said: dict[tuple[bytes, bytes], list[Said]] = {}
        self.arrivals: list[Arrival] = []
        self.opened = 0
        self.closed = False
        self.relay_id = stage.relay_id
        self.relay_key = stage.signing_key.public
        self._stage = stage
        self._rng = random.Random(f"{script.seed}/network")  # a run is to be repeatable
        self._admins = _admins(script)
        self._people = [Person(self, index) for index in range(script.people)]
        self._by_tag = {phone.tag: phone for person in self._people for phone in person.phones}

    @property
    def now_s(self) -> int:
        """Unix time."""
        return Stage.now_ms() // 1_000

    def token(self, account: str, entropy: Callable[[int], bytes]) -> Token:
        """An activation of the account's company."""
        return self._admins[account.partition("@")[2]].activate(account, self.now_s + 10**6, entropy)

    def register(self, envelope: Envelope, said: Said) -> None:
        """Note the bodies of an envelope."""
        self.said.setdefault((envelope.mailbox, envelope.envelope_id), []).append(said)

    def said_in(self, key: tuple[bytes, bytes], body: bytes) -> Said:
        """What was encrypted into a delivered body.

        Raises:
            BlindpostError: the relay delivered a body that nobody submitted.
        """
        for said in self.said.get(key, ()):
            if said.bodies[0] == body:
                return said
        raise BlindpostError("the relay delivered a body that nobody submitted under that id")

    # ---- the network

    def up(self, tag: bytes, packet: bytes, sealed: Sealed | None) -> None:
        """Carry a packet to the relay, or lose, double, delay or spoil it."""
        for spoilt in self._copies():
            at = self._rng.randrange(len(packet)) if spoilt else None
            self._later(self._arrive, tag, packet, sealed, at)

    def down(self, tag: bytes, packet: bytes) -> None:
        """Carry a packet to a device, with the same faults."""
        for spoilt in self._copies():
            at = self._rng.randrange(len(packet)) if spoilt else None
            self._later(self._hand_over, tag, packet, at)

    def _copies(self) -> list[bool]:
        faults, rng = self.script.faults, self._rng
        copies = 0 if rng.random() < faults.drop else 1 + (rng.random() < faults.duplicate)
        return [rng.random() < faults.spoil for _ in range(copies)]

    def _later(self, carry: Callable[..., None], *arguments: object) -> None:
        latency_s = self._rng.uniform(*_LATENCY_S)
        if self._rng.random() < self.script.faults.delay:
            latency_s += self._rng.random() * _DELAY_MAX_S
        asyncio.get_running_loop().call_later(latency_s, carry, *arguments)

    def _arrive(self, tag: bytes, packet: bytes, sealed: Sealed | None, spoilt_at: int | None) -> None:
        if self.closed:
            return
        packet = _spoilt(packet, spoilt_at)
        self.arrivals.append(Arrival(asyncio.get_running_loop().time(), tag, packet, sealed, spoilt_at))
        self._stage.arrive(tag, packet)

    def _hand_over(self, tag: bytes, packet: bytes, spoilt_at: int | None) -> None:
        phone = self._by_tag.get(tag)
        if phone is not None and not self.closed:
            phone.hear(_spoilt(packet, spoilt_at))

    # ---- the script

    def begin(self) -> None:
        """Switch the phones on, and let the script take its course."""
        loop = asyncio.get_running_loop()
        for person in self._people:
            loop.call_later(self._rng.random() / 10, person.first.switch_on)
        for act in self.script.acts:
            if not isinstance(act, Outage):
                loop.call_later(_ENROLLED_S + act.at_ms / 1_000 + self._rng.random() / 1_000, self._do, act)

    def _do(self, act: object) -> None:
        people = self._people
        assert isinstance(act, (Send, Withdrawal, Away, Devices, Prekeys, Hostile))
        person = people[act.who % len(people)]
        phone = person.first
        match act:
            case Send():
                phone.send(act, people[act.to % len(people)].account)
            case Withdrawal():
                phone.withdraw()
            case Away(for_ms=for_ms):
                for one in person.phones:
                    if one.on:
                        one.switch_off()
                        asyncio.get_running_loop().call_later(for_ms / 1_000, one.switch_on)
            case Devices():
                person.change_devices()
            case Prekeys(anew=anew):
                phone.refresh_prekeys(anew)
            case Hostile(misdeed=misdeed):
                phone.misbehave(misdeed, people[(act.who + 1) % len(people)].first)


def _admins(script: Script) -> dict[str, TenantAdminKey]:
    rng = random.Random(f"{script.seed}/tenants")  # a run is to be repeatable
    return {domain: TenantAdminKey.generate(rng.randbytes) for domain in _TENANTS}


def _spoilt(packet: bytes, at: int | None) -> bytes:
    return packet if at is None else packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :]


async def _conduct(stage: Stage, script: Script, begin: Callable[[], None], close: Callable[[], None]) -> None:
    """The relay's side of a script: starts, ends, and the month after, in which everything expires."""
    loop = asyncio.get_running_loop()
    await stage.start([(domain, admin.public) for domain, admin in sorted(_admins(script).items())])
    began_s = loop.time()
    begin()
    for outage in sorted((act for act in script.acts if isinstance(act, Outage)), key=lambda act: act.at_ms):
        await asyncio.sleep(max(0.0, began_s + outage.at_ms / 1_000 - loop.time()))
        await (stage.kill() if outage.killed else stage.stop())
        await asyncio.sleep(outage.for_ms / 1_000)
        await stage.start()
    await asyncio.sleep(max(0.0, began_s + (script.end_ms + _SETTLE_MS) / 1_000 - loop.time()))
    close()
    await stage.kill()
    await stage.start()
    await asyncio.sleep(_LATE_MS / 1_000)
    await stage.stop()


def record(script: Script, folder: Path, sqlite: bool = False) -> Recording:
    """Play a script with clients.

    Args:
        script: what happens.
        folder: an empty folder for the relay's files.
        sqlite: keep rows in SQLite.

    Raises:
        BlindpostError: a client could not open what it was delivered.
    """

    async def scenario() -> Recording:
        def down(tag: bytes, packet: bytes) -> None:
            town.down(tag, packet)

        stage = Stage(script, folder, Parts(), sqlite, down)
        town = Town(script, stage)

        def close() -> None:
            town.closed = True

        with stage.in_place():
            await _conduct(stage, script, town.begin, close)
        said = {key: tuple(variants) for key, variants in town.said.items()}
        return Recording(
            script, sqlite, tuple(town.arrivals), said, town.link_keys, stage.trace, town.opened, stage.signing_key
        )

    return run_virtually(scenario)


def replay(recording: Recording, bodies: Bodies, folder: Path, parts: Parts | None = None) -> Trace:
    """Hand the recorded inputs to another relay, with these bodies; return what it did.

    Args:
        recording: the inputs.
        bodies: which bodies; `recording.bodies(0)` are the recorded ones.
        folder: an empty folder for the relay's files.
        parts: what the relay is made of.

    Raises:
        UnequalLength: a body of another length than the recorded one.
    """
    packets = _with_bodies(recording, bodies)

    async def scenario() -> Trace:
        stage = Stage(recording.script, folder, parts or Parts(), recording.sqlite, lambda _tag, _packet: None)
        loop = asyncio.get_running_loop()

        def begin() -> None:
            for arrival, packet in zip(recording.arrivals, packets, strict=True):
                loop.call_at(arrival.at_s, stage.arrive, arrival.tag, packet)

        with stage.in_place():
            await _conduct(stage, recording.script, begin, lambda: None)
        return stage.trace

    return run_virtually(scenario)


def _with_bodies(recording: Recording, bodies: Bodies) -> list[bytes]:
    original = recording.bodies(0)
    made: dict[int, bytes] = {}
    packets = []
    for arrival in recording.arrivals:
        sealed = arrival.sealed
        if sealed is None:
            packets.append(arrival.packet)
            continue
        packet = made.get(id(sealed))
        if packet is None:
            packet = made[id(sealed)] = _resealed(sealed, original, bodies)
        packets.append(_spoilt(packet, arrival.spoilt_at))
    return packets


def _resealed(sealed: Sealed, original: Bodies, bodies: Bodies) -> bytes:
    plain = sealed.plain
    if any(isinstance(command, Submit) for command in sealed.commands):
        commands: list[DeviceCommand] = [
            replace(command, envelopes=tuple(_replaced(envelope, original, bodies) for envelope in command.envelopes))
            if isinstance(command, Submit)
            else command
            for command in sealed.commands
        ]
        plain = encode_commands(commands)
    counter = sealed.counter.to_bytes(8, "big")
    return bytes((FRAME,)) + sealed.link_id + counter + crypto_secretbox(plain, counter + bytes(16), sealed.up_key)


def _replaced(envelope: Envelope, original: Bodies, bodies: Bodies) -> Envelope:
    key = (envelope.mailbox, envelope.envelope_id)
    body = bodies[key][original[key].index(envelope.body)]
    if len(body) != len(envelope.body):
        raise UnequalLength(f"a body of {len(envelope.body)} bytes is replaced by one of {len(body)}")
    return replace(envelope, body=body)
