"""`python -m benchmarks hotpath`: where each microsecond of a message goes inside the relay, and each part's floor.

No broker and no second process: the frames of senders and recipients are made beforehand or between the stages, and
only the relay's own stages are timed, in CPU time of this thread. One round is one commit: frames in (submits of all
senders, and the acks of what the round before delivered), batch, SQLite on disk, receipts and deliveries out. So each
figure is the CPU of one message from its submit to its erasure, without the transport.

The floors are the same bytes through the library alone: secretbox, msgspec, SHA-256, Ed25519, SQLite.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from benchmarks.machine import describe
from relay.core import CoreConfig, RelayCore, RelayIdentity
from relay.store.sqlite import SqliteStore
from wire.codec import encode
from wire.commands import (
    Ack,
    Delivery,
    DeviceCommand,
    Enrol,
    Submit,
    Subscribe,
    decode_device_commands,
    decode_relay_commands,
    encode_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    device_tag,
    list_hash,
    sign_activation,
    sign_list,
)
from wire.limits import COMMANDS_PER_FRAME_MAX, ML_KEM_768_PUBLIC_BYTES, TOKENS_PER_ACK_MAX
from wire.link import FRAME, WELCOME, FrameOpener, FrameSealer, accept_welcome, begin_hello
from wire.prekeys import (
    KemPrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    signed_prekey_signed_bytes,
)
from wire.rotation import relay_id_of
from wire.signing import SigningKey

TENANT = "bench.example"
_STEP = 251
STAGES = ("receive", "take_batch", "sqlite", "committed", "take_packets")


class Device:
    """One device's side of a link, as little as the relay's stages need."""

    def __init__(self, name: str) -> None:
        self.account = f"{name}@{TENANT}"
        self.key = SigningKey(os.urandom(32))
        self.mailbox = os.urandom(16)
        self.tag = device_tag(self.key.public)
        account_key = SigningKey(os.urandom(32))
        entry = DeviceEntry(self.key.public, os.urandom(32), self.mailbox)
        self.signed = sign_list(account_key, DeviceList(self.account, 1, NO_PREVIOUS, account_key.public, (entry,)))
        self.list_hash = list_hash(self.signed)
        self.gateway = self
        """The device whose link carries this one's commands."""
        self.sealer: FrameSealer | None = None
        self.opener: FrameOpener | None = None
        self.ref = 0

    def frame(self, *commands: DeviceCommand) -> tuple[bytes, bytes]:
        """Seal commands; returns the topic's tag and the packet."""
        sealer = self.gateway.sealer
        assert sealer is not None
        return self.gateway.tag, sealer.seal(encode_commands(commands))

    def next_ref(self) -> int:
        """Number a command."""
        self.gateway.ref += 1
        return self.gateway.ref


class Stages:
    """CPU time by stage, in ns."""

    def __init__(self) -> None:
        self.ns = dict.fromkeys(STAGES, 0)
        self.on = False

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done meanwhile."""
        start = time.thread_time_ns()
        yield
        if self.on:
            self.ns[stage] += time.thread_time_ns() - start


class Rig:
    """A relay's core and store with linked, enrolled, subscribed devices.

    Args:
        path: the store's file.
        senders: how many.
        recipients: how many.
        a_link: devices behind one link.
    """

    def __init__(self, path: Path, senders: int, recipients: int, a_link: int = 1) -> None:
        key = SigningKey(os.urandom(32))
        relay_id = relay_id_of(key.public)
        self.public, self.relay_id = key.public, relay_id
        self.store = SqliteStore(path, relay_id)
        self.core = RelayCore(
            CoreConfig(hello_relay_burst=1_000_000, prove_signatures_burst=1_000_000),
            RelayIdentity(relay_id, key.seed),
            self.store.load(),
            os.urandom,
        )
        self.stages = Stages()
        self.admin = SigningKey(os.urandom(32))
        self.core.admit_tenant(TENANT, self.admin.public)
        self.devices: dict[bytes, Device] = {}
        self.tokens: dict[bytes, bytes] = {}
        self.delivered = 0
        self.receipts = 0
        self.acked = 0
        self.waiting: list[tuple[bytes, bytes]] = []
        self.senders = self._devices("s", senders, a_link)
        self.recipients = self._devices("r", recipients, a_link)

    def _devices(self, letter: str, count: int, a_link: int) -> list[Device]:
        devices = [Device(f"{letter}{number}") for number in range(count)]
        for start in range(0, count, a_link):
            self._link(devices[start : start + a_link])
        return devices

    def _link(self, devices: list[Device]) -> None:
        first = devices[0]
        self.devices[first.tag] = first
        pending = begin_hello(self.relay_id, os.urandom)
        self.core.receive(first.tag, pending.packet, now_ms())
        (welcome,) = [packet for tag, packet in self.core.take_packets() if packet[0] == WELCOME]
        keys, _, prove = accept_welcome(pending, self.public, welcome, [device.key for device in devices])
        first.sealer, first.opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        self.core.receive(first.tag, prove, now_ms())
        for device in devices:
            device.gateway = first
            activation = Activation(TENANT, device.account, os.urandom(16), now_ms() // 1_000 + 600)
            token = sign_activation(self.admin, activation)
            self.waiting.append(
                device.frame(
                    Enrol(device.next_ref(), token, device.signed, prekeys_of(device)),
                    Subscribe(device.next_ref(), device.mailbox, 0, 1_024),
                )
            )
            self.round([])

    def submits(self, frames: int, size: int, body_bytes: int, at: int) -> list[tuple[bytes, bytes]]:
        """Make so many frames of one submit, of all senders in turn, to recipients in turn."""
        packets = []
        for number in range(at, at + frames):
            sender = self.senders[number % len(self.senders)]
            packets.append(sender.frame(self._submit(sender, number, size, body_bytes)))
        return packets

    def single_submits(self, frames: int, size: int, body_bytes: int, at: int) -> list[tuple[bytes, bytes]]:
        """Make so many frames of submits of one envelope each, each to another recipient, as a gateway sends them."""
        packets = []
        for number in range(at, at + frames):
            sender = self.senders[number % len(self.senders)]
            # A step that is prime to the usual numbers of recipients: neighbours are behind different gateways.
            places = range(number * size, (number + 1) * size)
            submits = [self._submit(sender, _STEP * place, 1, body_bytes) for place in places]
            packets.append(sender.frame(*submits))
        return packets

    def _submit(self, sender: Device, number: int, size: int, body_bytes: int) -> Submit:
        recipient = self.recipients[number % len(self.recipients)]
        expiry = (now_ms() // 3_600_000 + 25) * 3_600
        envelopes = []
        for _ in range(size):
            token = os.urandom(16)
            envelope_id = envelope_id_of(token)
            self.tokens[envelope_id] = token
            envelopes.append(Envelope(recipient.mailbox, envelope_id, expiry, os.urandom(body_bytes)))
        return Submit(sender.next_ref(), recipient.account, recipient.list_hash, tuple(envelopes))

    def round(self, packets: list[tuple[bytes, bytes]]) -> None:
        """Receive, commit, tell: one turn of the service's loop."""
        core, stages = self.core, self.stages
        now = now_ms()
        packets, self.waiting = self.waiting + packets, []
        with stages("receive"):
            for tag, packet in packets:
                core.receive(tag, packet, now)
        with stages("take_batch"):
            batch = core.take_batch(now)
        if batch is not None:
            with stages("sqlite"):
                self.store.commit(batch)
            with stages("committed"):
                core.committed(batch, now)
        with stages("take_packets"):
            told = core.take_packets()
        for tag, packet in told:
            self._hear(self.devices[tag], packet)

    def _hear(self, device: Device, packet: bytes) -> None:
        if packet[0] != FRAME:
            return
        assert device.opener is not None
        plain = device.opener.open(packet)
        assert plain is not None, "a frame that does not open"
        commands = decode_relay_commands(plain)
        acks: list[DeviceCommand] = []
        for command in commands:
            if isinstance(command, Delivery):
                tokens = [self.tokens.pop(one.envelope_id) for one in command.envelopes]
                self.delivered += len(tokens)
                for start in range(0, len(tokens), TOKENS_PER_ACK_MAX):
                    some = tuple(tokens[start : start + TOKENS_PER_ACK_MAX])
                    acks.append(Ack(device.next_ref(), command.mailbox, some))
            elif type(command).__name__ == "Receipts":
                self.receipts += len(command.entries)  # type: ignore[union-attr]
            elif type(command).__name__ == "Refusal":
                raise RuntimeError(f"refused: {command}")
        for start in range(0, len(acks), COMMANDS_PER_FRAME_MAX):
            self.waiting.append(device.frame(*acks[start : start + COMMANDS_PER_FRAME_MAX]))


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def prekeys_of(device: Device) -> Prekeys:
    """The least that an enrolment needs."""
    prekey_id, key, kem_key = os.urandom(16), os.urandom(32), os.urandom(ML_KEM_768_PUBLIC_BYTES)
    sign = device.key.sign
    return Prekeys(
        device.key.public,
        SignedPrekey(prekey_id, key, sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, key))),
        KemPrekey(prekey_id, kem_key, sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))),
        (),
    )


def measure(
    folder: Path, size: int, per_commit: int, rounds: int, recipients: int, body_bytes: int, gateways: bool = False
) -> dict[str, float]:
    """Run rounds of `per_commit` envelopes, `size` a frame; return CPU in µs a message by stage, and their sum."""
    rig = Rig(folder / f"store-{size}.sqlite", 20, recipients, 250 if gateways else 1)
    make = rig.single_submits if gateways else rig.submits
    frames = max(1, per_commit // size)
    rig.round(make(frames, size, body_bytes, 0))
    gc.collect()
    gc.freeze()
    rig.stages.on = True
    sent = 0
    for number in range(rounds):
        packets = make(frames, size, body_bytes, number * frames)
        sent += frames * size
        rig.round(packets)
    rig.round([])
    rig.stages.on = False
    rig.round([])
    if rig.receipts != sent + frames * size or rig.delivered != rig.receipts or rig.core.counters.envelopes_held:
        raise RuntimeError(f"{sent} sent, {rig.receipts} receipted, {rig.delivered} delivered")
    rig.store.close()
    figures = {stage: ns / 1_000 / sent for stage, ns in rig.stages.ns.items()}
    figures["sum"] = sum(figures.values())
    return figures


# ---- floors


def each_us(job: Callable[[], object], times: int = 2_000) -> float:
    """The median CPU of a job in µs, of five runs."""
    runs = []
    for _ in range(5):
        start = time.thread_time_ns()
        for _ in range(times):
            job()
        runs.append((time.thread_time_ns() - start) / 1_000 / times)
    return statistics.median(runs)


def floors(size: int, body_bytes: int) -> dict[str, float]:
    """What each part of one message costs in its library alone, in µs."""
    envelopes = tuple(
        Envelope(os.urandom(16), os.urandom(16), 1_700_000_000, os.urandom(body_bytes)) for _ in range(size)
    )
    submit = [Submit(7, f"r1@{TENANT}", os.urandom(32), envelopes)]
    plain = encode_commands(submit)
    sealer, opener = FrameSealer(bytes(8), bytes(32)), FrameOpener(bytes(32))
    packet = sealer.seal(plain)

    def opened() -> None:
        opener.counter = 0
        assert opener.open(packet) is not None

    key = SigningKey(os.urandom(32))
    body = envelopes[0].body
    return {
        "secretbox open": each_us(opened) / size,
        "decode and re-encode": each_us(lambda: decode_device_commands(plain)) / size,
        "encode": each_us(lambda: encode(submit)) / size,
        "secretbox seal": each_us(lambda: sealer.seal(plain)) / size,
        "SHA-256 of the body": each_us(lambda: sha256(body).digest()),
        "SHA-256 of 64 bytes": each_us(lambda: sha256(body[:64]).digest()),
        "Ed25519 signature (one a commit)": each_us(lambda: key.sign("commit", body[:150]), 200),
    }


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hotpath", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", default="1,8,64", help="envelopes a frame (default 1,8,64)")
    parser.add_argument("--commit", type=int, default=256, help="envelopes a commit (default 256)")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--recipients", type=int, default=100)
    parser.add_argument(
        "--gateways",
        action="store_true",
        help="devices share links, 250 each, and a frame holds submits of one envelope each, as `relay` has it",
    )
    parser.add_argument("--body", type=int, default=1_040, help="bytes of a body (default 1040)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    report: dict[str, object] = {"machine": describe(), "command": " ".join(("python -m benchmarks hotpath", *argv))}
    sizes = [int(size) for size in arguments.frames.split(",")]
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        stages = {
            size: measure(
                Path(folder),
                size,
                arguments.commit,
                arguments.rounds,
                arguments.recipients,
                arguments.body,
                arguments.gateways,
            )
            for size in sizes
        }
    least = {size: floors(size, arguments.body) for size in sizes}
    report |= {"stages_us": stages, "floors_us": least}
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    print(report["machine"], report["command"], sep="\n")
    for title, table in (("stage", stages), ("floor", least)):
        print(f"\n{title:34}" + "".join(f"{size:>8}" for size in sizes) + "   envelopes a frame, us of CPU each")
        for name in table[sizes[0]]:
            print(f"{name:34}" + "".join(f"{table[size][name]:8.2f}" for size in sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
