"""The relay of an episode: the real core on a memory store under virtual time, with two people enrolled.

    stage = Stage()                          once a process: enrolment is the same in every episode
    relay = VirtualRelay(stage, chance)      a fresh core from that store, for one episode
    relay.link(stage.ana)
    relay.advance(at_ms)
    relay.say(stage.ana, Submit(…))

Ana has a phone, Bob a phone and a tablet; the tablet is off. Links are real: handshake, signatures, sealed and numbered
frames. What a live observer sees is noted as it passes. What the service does between core and store (take a batch,
commit, read, send) is done here in its order, at once: to commit takes no virtual time.
"""

from typing import Final, NamedTuple

from keys.identity import AccountKey, DeviceKeys, TenantAdminKey
from keys.prekeys import PrekeyRing
from relay.core import CoreConfig, RelayCore, RelayIdentity
from relay.store.memory import MemoryStore
from sim.experiments.game.chance import Chance
from sim.experiments.game.contents import ANA, BOB
from wire.commands import DeviceCommand, Enrol, PublishList, Subscribe, encode_commands
from wire.identity import SignedList, device_tag, list_hash
from wire.link import WELCOME, FrameSealer, PendingHello, accept_welcome, begin_hello
from wire.rotation import relay_id_of
from wire.signing import SigningKey

__all__ = ["START_MS", "Frame", "LogLine", "Phone", "Stage", "VirtualRelay"]

START_MS: Final = 1_448_841_600_000
"""2015-11-30 00:00 UTC, the day on which the order was to take effect."""
_BEFORE_MS: Final = 60_000
_CREDIT: Final = 64
_TENANT: Final = "acme.example"


class Frame(NamedTuple):
    """One packet as it passes the broker, with what the relay opens of it.

    Attributes:
        at_ms: Unix time in milliseconds.
        up: whether it goes to the relay.
        size: bytes of the packet.
        commands: what a device asks; empty for packets of a handshake and those of the relay.
    """

    at_ms: int
    up: bool
    size: int
    commands: tuple[DeviceCommand, ...]


class LogLine(NamedTuple):
    """The numbers of a `committed` line of the relay's log (protocol.md section 10); the time has whole seconds."""

    at_s: int
    commit: int
    envelopes: int
    acks: int
    body_bytes: int


class Phone:
    """A device's side of a link."""

    def __init__(self, keys: DeviceKeys) -> None:
        self.keys = keys
        self.tag = device_tag(keys.public)
        self.pending: PendingHello | None = None
        self.sealer: FrameSealer | None = None

    def __repr__(self) -> str:
        return f"Phone(keys={self.keys!r})"


class Stage:
    """Two people and their devices, enrolled at a relay; made from a seed of its own, the same for every run."""

    def __init__(self) -> None:
        chance = Chance(0, "stage", 0)
        self.signing_key = SigningKey(chance(32))
        self.relay_id = relay_id_of(self.signing_key.public)
        self.identity = RelayIdentity(self.relay_id, self.signing_key.seed)
        self.config = CoreConfig()
        self.ana, self.bob, self.tablet = (DeviceKeys.generate(chance) for _ in range(3))
        self.store = MemoryStore(self.relay_id)
        admin = TenantAdminKey.generate(chance)
        relay = VirtualRelay(self, chance, START_MS - _BEFORE_MS)
        relay.core.admit_tenant(_TENANT, admin.public)
        self.lists: dict[str, SignedList] = {}
        for account, devices in ((ANA, (self.ana,)), (BOB, (self.bob, self.tablet))):
            first = devices[0]
            account_key = AccountKey.generate(chance)
            signed = account_key.first_list(account, [first.entry])
            _, prekeys = PrekeyRing.generate(first, relay.now_ms // 1_000, 0, chance)
            token = admin.activate(account, START_MS // 1_000, chance)
            relay.link(first)
            relay.say(first, Enrol(relay.next_ref(), token, signed, prekeys))
            if len(devices) > 1:
                signed = account_key.next_list(signed, [each.entry for each in devices])
                relay.say(first, PublishList(relay.next_ref(), signed))
            self.lists[account] = signed
        self.store = relay.store
        self.list_hashes = {account: list_hash(signed) for account, signed in self.lists.items()}
        assert len(self.store.mailboxes) == 3, "three devices are enrolled"

    def __repr__(self) -> str:
        return "Stage(keys=<redacted>)"


class VirtualRelay:
    """One relay for one episode.

    Args:
        stage: who is enrolled; its rows are copied.
        chance: the entropy of core and links.
        now_ms: where virtual time begins, Unix milliseconds.
    """

    def __init__(self, stage: Stage, chance: Chance, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms
        self.frames: list[Frame] = []
        self.log: list[LogLine] = []
        self.store = _copy(stage.store, stage.relay_id)
        self.core = RelayCore(stage.config, stage.identity, self.store.load(), chance)
        self._first_key = stage.signing_key.public
        self._relay_id = stage.relay_id
        self._chance = chance
        self._phones: dict[bytes, Phone] = {}
        self._refs = 0

    def next_ref(self) -> int:
        """A number for the next command."""
        self._refs += 1
        return self._refs

    def link(self, keys: DeviceKeys) -> None:
        """Let a device begin a link."""
        phone = Phone(keys)
        self._phones[phone.tag] = phone
        phone.pending = begin_hello(self._relay_id, self._chance)
        self._up(phone, phone.pending.packet, ())
        assert phone.sealer is not None, "the relay answered the hello"

    def subscribe(self, keys: DeviceKeys) -> None:
        """Let a device's mail be delivered."""
        self.say(keys, Subscribe(self.next_ref(), keys.mailbox, 0, _CREDIT))

    def say(self, keys: DeviceKeys, *commands: DeviceCommand) -> None:
        """Let a linked device send one frame, and the relay do all that follows at once."""
        phone = self._phones[device_tag(keys.public)]
        assert phone.sealer is not None, "the device has a link"
        self._up(phone, phone.sealer.seal(encode_commands(commands)), commands)

    def advance(self, until_ms: int) -> None:
        """Let time pass, and the relay do what falls due meanwhile."""
        while (due_ms := self.core.next_deadline()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.core.tick(self.now_ms)
            self._run()
        self.now_ms = until_ms

    def _up(self, phone: Phone, packet: bytes, commands: tuple[DeviceCommand, ...]) -> None:
        self.frames.append(Frame(self.now_ms, True, len(packet), commands))
        self.core.receive(phone.tag, packet, self.now_ms)
        self._run()

    def _run(self) -> None:
        core = self.core
        while True:
            if core.has_work() and (batch := core.take_batch(self.now_ms)) is not None:
                self.store.commit(batch)
                core.committed(batch, self.now_ms)
                index = batch.commit.idx if batch.commit is not None else 0
                line = LogLine(self.now_ms // 1_000, index, len(batch.envelopes), batch.acks, batch.body_bytes)
                self.log.append(line)
            if core.has_reads():
                reads = core.take_reads()
                core.loaded([(read, self.store.read(read.seqs)) for read in reads], self.now_ms)
            for tag, packet in core.take_packets():
                self.frames.append(Frame(self.now_ms, False, len(packet), ()))
                self._down(self._phones[tag], packet)
            if not core.has_work() and not core.has_reads():
                return

    def _down(self, phone: Phone, packet: bytes) -> None:
        """A device takes what concerns its handshake; what it does about mail is the pattern's."""
        if packet[0] == WELCOME and phone.pending is not None:
            keys, _, prove = accept_welcome(phone.pending, self._first_key, packet, [phone.keys.signing])
            phone.pending, phone.sealer = None, FrameSealer(keys.link_id, keys.up_key)
            self.frames.append(Frame(self.now_ms, True, len(prove), ()))
            self.core.receive(phone.tag, prove, self.now_ms)


def _copy(store: MemoryStore, relay_id: bytes) -> MemoryStore:
    copy = MemoryStore(relay_id)
    copy.mailboxes.update(store.mailboxes)
    copy.lists.update(store.lists)
    copy.prekeys.update(store.prekeys)
    copy.tenants.update(store.tenants)
    copy.used_tokens.update(store.used_tokens)
    return copy
