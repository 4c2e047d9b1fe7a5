"""A relay core with a memory store, and devices that speak to it: what the tests of the core and of the stores share.

Devices are made from seeds, the clock is a number, entropy is a seeded generator: one seed replays one run to the byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from relay.core import Batch, CoreConfig, RelayCore, RelayIdentity
from relay.core.events import RecordRead
from relay.held import held_of
from relay.store.memory import MemoryStore
from relay.store.protocol import Store, StoreError
from wire.commands import (
    Ack,
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Linked,
    Receipts,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
    decode_relay_commands,
    encode_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    Token,
    device_tag,
    list_hash,
    sign_activation,
    sign_list,
)
from wire.limits import ML_KEM_768_PUBLIC_BYTES
from wire.link import (
    FRAME,
    UNKNOWN_LINK,
    WELCOME,
    FrameOpener,
    FrameSealer,
    LinkKeys,
    PendingHello,
    accept_welcome,
    begin_hello,
)
from wire.prekeys import (
    KemPrekey,
    OneTimePrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    one_time_prekey_signed_bytes,
    signed_prekey_signed_bytes,
)
from wire.receipt import Receipt, verify_receipt
from wire.rotation import relay_id_of
from wire.signing import SigningKey

START_MS = 1_448_841_600_000
HOUR_S = 3_600


def seeded(name: str) -> bytes:
    """32 bytes that depend on a name only."""
    return sha256(name.encode()).digest()


class Device:
    """A device of the tests: keys, its mailbox, and its side of one link."""

    def __init__(self, name: str, account: str) -> None:
        self.name = name
        self.account = account
        self.key = SigningKey(seeded(f"{name} device"))
        self.dh_key = seeded(f"{name} dh")
        self.mailbox = seeded(f"{name} mailbox")[:16]
        self.tag = device_tag(self.key.public)
        self.rng = random.Random(name)  # a test's entropy is to be repeatable
        self.pending: PendingHello | None = None
        self.keys: LinkKeys | None = None
        self.sealer: FrameSealer | None = None
        self.opener: FrameOpener | None = None
        self.ref = 0
        self.inbox: list[RelayCommand] = []
        self.unknown = 0

    @property
    def entry(self) -> DeviceEntry:
        return DeviceEntry(self.key.public, self.dh_key, self.mailbox)

    def next_ref(self) -> int:
        self.ref += 1
        return self.ref

    def prekeys(self, one_time: int = 2, generation: int = 0) -> Prekeys:
        tail = f"{self.name} {generation}"
        prekey_id = seeded(f"spk {tail}")[:16]
        x_key, kem_key = seeded(f"x {tail}"), (seeded(f"kem {tail}") * 37)[:ML_KEM_768_PUBLIC_BYTES]
        return Prekeys(
            self.key.public,
            SignedPrekey(
                prekey_id, x_key, self.key.sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, x_key))
            ),
            KemPrekey(prekey_id, kem_key, self.key.sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))),
            tuple(self.one_time(f"{tail} {index}") for index in range(one_time)),
        )

    def one_time(self, name: str) -> OneTimePrekey:
        prekey_id = seeded(f"otp {self.name} {name}")[:16]
        x_key, kem_key = seeded(f"ox {name}"), (seeded(f"okem {name}") * 37)[:ML_KEM_768_PUBLIC_BYTES]
        signed = one_time_prekey_signed_bytes(prekey_id, x_key, kem_key)
        return OneTimePrekey(prekey_id, x_key, kem_key, self.key.sign("one-time-prekey", signed))

    def frame(self, *commands: DeviceCommand) -> bytes:
        assert self.sealer is not None
        return self.sealer.seal(encode_commands(commands))

    def take(self, kind: type) -> list[RelayCommand]:
        """Remove and return what came of one kind."""
        taken = [command for command in self.inbox if isinstance(command, kind)]
        self.inbox = [command for command in self.inbox if not isinstance(command, kind)]
        return taken

    def refusals(self) -> list[Refusal]:
        return [item for item in self.take(Refusal) if isinstance(item, Refusal)]

    def delivered(self) -> list[Delivered]:
        return [one for item in self.take(Delivery) if isinstance(item, Delivery) for one in item.envelopes]

    def done(self) -> list[int]:
        return [ref for item in self.take(Done) if isinstance(item, Done) for ref in item.refs]

    def receipts(self) -> list[Receipts]:
        return [item for item in self.take(Receipts) if isinstance(item, Receipts)]

    def linked(self) -> list[Linked]:
        return [item for item in self.take(Linked) if isinstance(item, Linked)]

    def directories(self) -> list[Directory]:
        return [item for item in self.take(Directory) if isinstance(item, Directory)]


@dataclass
class Mail:
    """An envelope together with the token that opens its id."""

    token: bytes
    envelope: Envelope


class World:
    """One relay, one tenant, any devices. Packets go where they are told to; nothing is lost unless a test loses it."""

    def __init__(
        self,
        config: CoreConfig | None = None,
        seed: int = 1,
        store: Store | None = None,
        restarted: Callable[[Store], Store] | None = None,
        ack_answer_ms: int = 0,
    ) -> None:
        # Acks are answered at once, unless a test wants to see them wait.
        self.config = replace(config or CoreConfig(), ack_answer_ms=ack_answer_ms)
        self.rng = random.Random(seed)  # a test's entropy is to be repeatable
        self.now_ms = START_MS
        self.relay_key = SigningKey(seeded("relay"))
        self.relay_id = relay_id_of(self.relay_key.public)
        self.identity = RelayIdentity(self.relay_id, self.relay_key.seed)
        self.store: Store = store or MemoryStore(self.relay_id)
        self._restarted = restarted or (lambda store: store)
        self.core = RelayCore(self.config, self.identity, self.store.load(), self.entropy)
        self.admin = SigningKey(seeded("acme admin"))
        self.account_keys: dict[str, SigningKey] = {}
        self.lists: dict[str, tuple[DeviceList, SignedList]] = {}
        self.devices: dict[bytes, Device] = {}
        self.packets: list[tuple[bytes, bytes]] = []
        self.fail = 0
        self.makes_records = True
        self.mails = 0
        self.core.admit_tenant("acme.example", self.admin.public)
        self.run()

    def entropy(self, count: int) -> bytes:
        return self.rng.randbytes(count)

    @property
    def now_s(self) -> int:
        return self.now_ms // 1_000

    # ---- the relay's loop

    def run(self) -> None:
        """Commit, read and carry packets until nothing more comes of it."""
        while True:
            moved = self.commit_once()
            moved |= self.read_once()
            moved |= self.record_once()
            moved |= self.carry() > 0
            if not moved and not self.core.has_work():
                return

    def commit_once(self) -> bool:
        if not self.core.has_work():
            return False
        batch = self.core.take_batch(self.now_ms)
        if batch is None:
            return True
        self.end(batch)
        return True

    def end(self, batch: Batch) -> None:
        if self.fail:
            self.fail -= 1
            self.core.aborted(batch, StoreError("full"), self.now_ms)
            return
        self.store.commit(batch)
        self.core.committed(batch, self.now_ms)

    def read_once(self) -> bool:
        reads = self.core.take_reads()
        self.core.loaded([(read, self.store.read(read.seqs)) for read in reads], self.now_ms)
        return bool(reads)

    def record_once(self) -> bool:
        """Make the record that is wanted, if any."""
        read = self.core.take_record(self.now_ms) if self.makes_records else None
        if read is not None:
            self.core.record_made(read, self.record_of(read), self.now_ms)
        return read is not None

    def record_of(self, read: RecordRead) -> bytes:
        return held_of(self.store.rows(read.rows), read.account).data

    def carry(self) -> int:
        """Bring what the relay says to the devices."""
        packets = self.core.take_packets()
        self.packets.extend(packets)
        for tag, packet in packets:
            device = self.devices.get(tag)
            if device is not None:
                self.hear(device, packet)
        return len(packets)

    def hear(self, device: Device, packet: bytes) -> None:
        if packet[0] == UNKNOWN_LINK:
            device.unknown += 1
        elif packet[0] == WELCOME and device.pending is not None:
            keys, _chain, prove = accept_welcome(device.pending, self.relay_key.public, packet, [device.key])
            device.keys, device.pending = keys, None
            device.sealer, device.opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
            self.core.receive(device.tag, prove, self.now_ms)
        elif packet[0] == FRAME and device.opener is not None:
            plain = device.opener.open(packet)
            if plain is not None:
                device.inbox.extend(decode_relay_commands(plain))

    def after(self, ms: int) -> None:
        """Let time pass, in one step."""
        self.now_ms += ms
        self.core.tick(self.now_ms)
        self.run()

    def restart(self) -> None:
        """Kill the relay between two commits, and start it from what the store holds."""
        self.store = self._restarted(self.store)
        self.core = RelayCore(self.config, self.identity, self.store.load(), self.entropy)

    # ---- devices

    def device(self, name: str, account: str | None = None) -> Device:
        device = Device(name, account or f"{name}@acme.example")
        self.devices[device.tag] = device
        return device

    def link(self, device: Device) -> None:
        device.pending = begin_hello(self.relay_id, device.rng.randbytes)
        self.core.receive(device.tag, device.pending.packet, self.now_ms)
        self.run()

    def token(self, account: str, nonce: str = "", not_after: int | None = None) -> Token:
        until = self.now_s + HOUR_S if not_after is None else not_after
        activation = Activation(account.partition("@")[2], account, seeded(f"nonce {account}{nonce}")[:16], until)
        return sign_activation(self.admin, activation)

    def first_list(self, device: Device) -> SignedList:
        account = device.account
        key = self.account_keys.setdefault(account, SigningKey(seeded(f"{account} account")))
        devices = DeviceList(account, 1, NO_PREVIOUS, key.public, (device.entry,))
        signed = sign_list(key, devices)
        self.lists[account] = (devices, signed)
        return signed

    def next_list(self, account: str, *devices: Device) -> SignedList:
        before, signed_before = self.lists[account]
        key = self.account_keys[account]
        entries = tuple(device.entry for device in devices)
        newer = DeviceList(account, before.version + 1, list_hash(signed_before), key.public, entries)
        signed = sign_list(key, newer)
        self.lists[account] = (newer, signed)
        return signed

    def send(self, device: Device, *commands: DeviceCommand) -> None:
        """Send one frame, and let the relay run."""
        self.core.receive(device.tag, device.frame(*commands), self.now_ms)
        self.run()

    def enrolled(self, name: str, account: str | None = None, credit: int = 64) -> Device:
        """A device that is linked, enrolled as its account's first, and subscribed."""
        device = self.device(name, account)
        self.link(device)
        signed = self.first_list(device)
        self.send(device, Enrol(device.next_ref(), self.token(device.account), signed, device.prekeys()))
        if credit:
            self.subscribe(device, credit=credit)
        device.inbox.clear()
        return device

    def subscribe(self, device: Device, after: int = 0, credit: int = 64) -> None:
        self.send(device, Subscribe(device.next_ref(), device.mailbox, after, credit))

    # ---- mail

    def mail(self, to: Device, body_bytes: int = 400, token: bytes | None = None, expiry: int | None = None) -> Mail:
        self.mails += 1
        token = token or seeded(f"token {self.mails}")[:16]
        body = (seeded(f"body {self.mails}") * (body_bytes // 32 + 1))[:body_bytes]
        until = expiry if expiry is not None else self.now_s // HOUR_S * HOUR_S + 24 * HOUR_S
        return Mail(token, Envelope(to.mailbox, envelope_id_of(token), until, body))

    def submit(self, sender: Device, account: str, *mails: Mail) -> Submit:
        hashed = list_hash(self.lists[account][1])
        return Submit(sender.next_ref(), account, hashed, tuple(mail.envelope for mail in mails))

    def ack(self, device: Device, *mails: Mail) -> Ack:
        return Ack(device.next_ref(), device.mailbox, tuple(mail.token for mail in mails))

    def check_receipts(self, submit: Submit, receipts: Sequence[Receipts]) -> dict[int, Receipt]:
        """Verify every receipt of a submit; return them by position."""
        found: dict[int, Receipt] = {}
        for command in receipts:
            for entry in command.entries:
                if entry.ref != submit.ref:
                    continue
                envelope = submit.envelopes[entry.position]
                receipt = Receipt(
                    command.header,
                    command.signature,
                    envelope.mailbox,
                    envelope.envelope_id,
                    envelope.expiry,
                    entry.number,
                    entry.leaf,
                    entry.path,
                    sha256(envelope.body).digest(),
                )
                verify_receipt(self.relay_key.public, receipt)
                found[entry.position] = receipt
        return found


@dataclass
class Pair:
    """Two people who may write to each other."""

    world: World
    ana: Device
    bob: Device
    mails: list[Mail] = field(default_factory=list)


def a_pair(config: CoreConfig | None = None, seed: int = 1, credit: int = 64) -> Pair:
    """Ana and Bob, enrolled and subscribed."""
    world = World(config, seed)
    return Pair(world, world.enrolled("ana", credit=credit), world.enrolled("bob", credit=credit))
