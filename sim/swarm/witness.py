"""The witness: sees from outside what goes into the relay, comes out of it and is committed, and judges by invariants.

    packet ─▶ [witness] ─▶ core            submits and acks, by device and reference
    batch  ─▶ [witness] ─▶ disk            rows, erasures, the chain, quotas
    core   ─▶ [witness] ─▶ packet          receipts, deliveries, dones, refusals
    start  ─▶ [witness]                    what the store holds then, against what was promised before

It never asks the relay: of frames it reads what the relay read, of the store the rows. Each violation names its
invariant and the moment. What is promised counts from the moment at which the promise leaves the relay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from relay.core.events import Batch, CommitRow, EnvelopeIndexRow, EnvelopeRow, Snapshot
from relay.core.mailboxes import tombstone_key
from relay.store.protocol import StoreError
from sim.engine.disk import PowerCut
from sim.engine.machine import Machine
from sim.scenario.places import Relay
from sim.swarm.bodies import forms_of
from wire.codec import decode, encode
from wire.commands import (
    Ack,
    Delivery,
    DeviceCommand,
    Done,
    Receipts,
    Refusal,
    Submit,
    decode_device_commands,
    decode_relay_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import FormatError, RefusalCode
from wire.limits import HASH_BYTES
from wire.link import FRAME, FRAME_OVERHEAD_BYTES
from wire.receipt import CommitHeader, commit_hash

__all__ = ["Invariant", "Violation", "Witness"]

TOMBSTONE_BYTES: Final = 128
_VIOLATIONS_MAX: Final = 20
_RUN_BYTES: Final = 32
"""So many bytes of a body name it; they are random."""
_NOTHING: Final = bytes(HASH_BYTES)


@unique
class Invariant(Enum):
    """What must hold in every run."""

    RECEIPTED_IS_KEPT = "no receipted envelope is lost"
    SHOWN_ONCE = "nothing is delivered twice to a person"
    NO_PLAINTEXT = "no plaintext in the relay"
    LOG_APPENDS = "the log is append-only"
    ACK_HONOURED = "every ack is honoured"
    QUOTA_KEPT = "quotas are kept"
    ALL_ARRIVES = "after healing every message arrives"
    RUNS = "nothing raises"


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold.

    Attributes:
        invariant: which.
        at_ms: true time, in milliseconds of Unix time.
        what: what was seen.
    """

    invariant: Invariant
    at_ms: int
    what: str


class Witness:
    """Judges one run; `attach` before it begins.

    Args:
        settings: the relay's quotas.
        mark: what the texts of the run consist of.
        now_ms: true time.
    """

    def __init__(self, settings: Relay, mark: bytes, now_ms: Callable[[], int]) -> None:
        self.violations: list[Violation] = []
        self.refused_for_room: set[bytes] = set()
        """Ids of envelopes that were refused because a quota was full."""
        self.refused: dict[RefusalCode, int] = {}
        self.receipted: dict[tuple[bytes, bytes], int] = {}
        """(mailbox, envelope id): expiry of what a receipt left the relay for."""
        self.acked: set[tuple[bytes, bytes]] = set()
        """What the relay has said `done` for."""
        self.latest_clock_ms = 0
        """The latest that the relay's clock has shown: what expires before may be gone."""
        self._settings = settings
        self._now_ms = now_ms
        self._forms = forms_of(mark)
        self._mark = mark
        self._submits: dict[tuple[bytes, int], tuple[Envelope, ...]] = {}
        self._acks: dict[tuple[bytes, int], Ack] = {}
        self._runs: dict[tuple[bytes, bytes], bytes] = {}
        self._rows: dict[int, tuple[bytes, bytes, int]] = {}
        self._held: dict[tuple[bytes, bytes], int] = {}
        self._stones: dict[int, bytes] = {}
        self._used: dict[bytes, list[int]] = {}
        self._uncertain: Batch | None = None
        self._headers: dict[int, bytes] = {}
        self._stone_keys: set[bytes] = set()

    # ---- where it stands

    def attach(self, machine: Machine) -> None:
        """Stand between a relay and its network, and between it and its disk."""
        receive, pump, disk = machine.receive, machine.pump, machine.disk
        load, commit = disk.load, disk.commit

        def seen_receive(tag: bytes, packet: bytes, now_ms: int) -> None:
            self._clock(now_ms + machine.clock_offset_ms)
            self._goes_in(tag, packet)
            receive(tag, packet, now_ms)

        def seen_pump(now_ms: int) -> list[tuple[bytes, bytes]]:
            self._clock(now_ms + machine.clock_offset_ms)
            packets = pump(now_ms)
            for tag, packet in packets:
                self._comes_out(tag, packet)
            return packets

        def seen_load() -> Snapshot:
            snapshot = load()
            self._starts(snapshot)
            return snapshot

        def seen_commit(batch: Batch) -> None:
            self._uncertain = batch
            try:
                commit(batch)
            except StoreError:
                self._uncertain = None
                raise
            except PowerCut:
                # Stored or not: the next start tells.
                raise
            self._uncertain = None
            self._stored(batch)

        machine.receive = seen_receive  # type: ignore[method-assign]
        machine.pump = seen_pump  # type: ignore[method-assign]
        disk.load = seen_load  # type: ignore[method-assign]
        disk.commit = seen_commit  # type: ignore[method-assign]

    def _clock(self, clock_ms: int) -> None:
        self.latest_clock_ms = max(self.latest_clock_ms, clock_ms)

    def violated(self, invariant: Invariant, what: str) -> None:
        """Note a violation."""
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, self._now_ms(), what))

    # ---- packets

    def _goes_in(self, tag: bytes, packet: bytes) -> None:
        if not packet or packet[0] != FRAME:
            return
        plain = packet[FRAME_OVERHEAD_BYTES:]
        self._search(plain, "a frame to the relay")
        try:
            commands: Sequence[DeviceCommand] = decode_device_commands(plain)
        except FormatError:
            return
        for command in commands:
            if isinstance(command, Submit):
                self._submits[tag, command.ref] = command.envelopes
                for one in command.envelopes:
                    self._runs[one.mailbox, one.envelope_id] = one.body[-_RUN_BYTES:]
            elif isinstance(command, Ack):
                self._acks[tag, command.ref] = command

    def _comes_out(self, tag: bytes, packet: bytes) -> None:
        if not packet or packet[0] != FRAME:
            return
        plain = packet[FRAME_OVERHEAD_BYTES:]
        self._search(plain, "a frame of the relay")
        for command in decode_relay_commands(plain):
            match command:
                case Receipts():
                    self._receipts(tag, command)
                case Delivery():
                    self._delivers(command)
                case Done(refs):
                    for ref in refs:
                        self._done(tag, ref)
                case Refusal():
                    self._refuses(tag, command)
                case _:
                    pass

    def _receipts(self, tag: bytes, command: Receipts) -> None:
        header = decode(CommitHeader, command.header, "commit header")
        self._same_header(header.index, command.header)
        for entry in command.entries:
            envelopes = self._submits.get((tag, entry.ref), ())
            if entry.position < len(envelopes):
                envelope = envelopes[entry.position]
                self.receipted.setdefault((envelope.mailbox, envelope.envelope_id), envelope.expiry)

    def _delivers(self, command: Delivery) -> None:
        for delivered in command.envelopes:
            if (command.mailbox, delivered.envelope_id) in self.acked:
                self.violated(Invariant.ACK_HONOURED, f"{delivered.envelope_id.hex()} is delivered after its ack")

    def _done(self, tag: bytes, ref: int) -> None:
        ack = self._acks.pop((tag, ref), None)
        if ack is None:
            return
        for token in ack.tokens:
            key = (ack.mailbox, envelope_id_of(token))
            self.acked.add(key)
            if key in self._held:
                self.violated(Invariant.ACK_HONOURED, f"{key[1].hex()} is still in the store after its ack")

    def _refuses(self, tag: bytes, command: Refusal) -> None:
        code = RefusalCode(command.code)
        self.refused[code] = self.refused.get(code, 0) + 1
        if code is RefusalCode.MAILBOX_FULL:
            self.refused_for_room.update(one.envelope_id for one in self._submits.get((tag, command.ref), ()))

    # ---- the store

    def _stored(self, batch: Batch) -> None:
        """A commit is durable."""
        for seq in batch.envelopes_erased:
            row = self._rows.pop(seq, None)
            if row is not None:
                mailbox, envelope_id, size = row
                self._held.pop((mailbox, envelope_id), None)
                self._use(mailbox, -1, -size)
        for seq in batch.tombstones_erased:
            stone = self._stones.pop(seq, None)
            if stone is not None:
                self._use(stone, -1, -TOMBSTONE_BYTES)
        for tombstone in batch.tombstones:
            self._stones[tombstone.seq] = tombstone.mailbox
            self._stone_keys.add(tombstone.key)
            self._use(tombstone.mailbox, 1, TOMBSTONE_BYTES)
        for envelope in batch.envelopes:
            self._insert(envelope, len(envelope.body))
        if batch.commit is not None:
            self._append(batch.commit)
        for mailbox in {row.mailbox for row in batch.envelopes}:
            self._within_quota(mailbox)

    def _insert(self, row: EnvelopeRow | EnvelopeIndexRow, size: int) -> None:
        self._rows[row.seq] = (row.mailbox, row.envelope_id, size)
        self._held[row.mailbox, row.envelope_id] = row.seq
        self._use(row.mailbox, 1, size)

    def _use(self, mailbox: bytes, count: int, size: int) -> None:
        used = self._used.setdefault(mailbox, [0, 0])
        used[0] += count
        used[1] += size

    def _within_quota(self, mailbox: bytes) -> None:
        settings = self._settings
        count, size = self._used[mailbox]
        if count > settings.mailbox_envelopes_max or size > settings.mailbox_bytes_max:
            self.violated(Invariant.QUOTA_KEPT, f"{mailbox.hex()} holds {count} envelopes and tombstones, {size} bytes")

    def _append(self, row: CommitRow) -> None:
        header = decode(CommitHeader, row.header, "commit header")
        before = self._headers.get(header.index - 1)
        previous = commit_hash(before) if before is not None else _NOTHING if header.index == 1 else None
        newest = max(self._headers, default=0)
        if header.index != row.idx or header.index != newest + 1:
            self.violated(Invariant.LOG_APPENDS, f"commit {header.index} does not come after {newest}")
        if previous is not None and header.previous != previous:
            self.violated(Invariant.LOG_APPENDS, f"commit {header.index} does not name the one before it")
        if before is not None and header.time_ms < decode(CommitHeader, before, "commit header").time_ms:
            self.violated(Invariant.LOG_APPENDS, f"commit {header.index} is dated before the one before it")
        self._same_header(header.index, row.header)

    def _same_header(self, index: int, header: bytes) -> None:
        known = self._headers.setdefault(index, header)
        if known != header:
            self.violated(Invariant.LOG_APPENDS, f"there are two commits {index}")

    def _starts(self, snapshot: Snapshot) -> None:
        """A process begins on what the store holds."""
        uncertain, self._uncertain = self._uncertain, None
        if uncertain is not None and _is_in(uncertain, snapshot):
            self._stored(uncertain)
        self._rows, self._held, self._stones, self._used, self._stone_keys = {}, {}, {}, {}, set()
        for envelope in snapshot.envelopes:
            self._insert(envelope, envelope.body_bytes)
        for tombstone in snapshot.tombstones:
            self._stones[tombstone.seq] = tombstone.mailbox
            self._stone_keys.add(tombstone.key)
            self._use(tombstone.mailbox, 1, TOMBSTONE_BYTES)
        for row in snapshot.commits:
            self._same_header(row.idx, row.header)
        if self._headers and (snapshot.commits[-1].idx if snapshot.commits else 0) < max(self._headers):
            self.violated(Invariant.LOG_APPENDS, f"the store ends before commit {max(self._headers)}")
        for key in self.acked & self._held.keys():
            self.violated(Invariant.ACK_HONOURED, f"{key[1].hex()} is in the store again")
        self.check_kept()

    # ---- at a start, and at the end

    def check_kept(self) -> None:
        """Every receipted envelope is there, as itself or as its tombstone, unless its time is over."""
        for (mailbox, envelope_id), expiry in self.receipted.items():
            if expiry * 1_000 <= self.latest_clock_ms or (mailbox, envelope_id) in self._held:
                continue
            if tombstone_key(mailbox, envelope_id) not in self._stone_keys:
                self.violated(Invariant.RECEIPTED_IS_KEPT, f"{envelope_id.hex()} has a receipt and is not there")

    def check_store(self, snapshot: Snapshot, bodies: Sequence[bytes | None]) -> None:
        """Search all that the store holds at the end, and compare it with what was promised."""
        self._starts(snapshot)
        for body in bodies:
            self._search(body or b"", "a body in the store")
        for table in ("tombstones", "commits", "mailboxes", "lists", "prekeys", "tenants", "used_tokens"):
            for row in getattr(snapshot, table):
                self._search(encode(list(row)), f"a row of {table}")

    def check_erased(self, raw: bytes) -> None:
        """Search the raw bytes of a store, after its checkpoint, for what was acked."""
        for key in self.acked:
            if self._runs[key] in raw:
                self.violated(Invariant.ACK_HONOURED, f"bytes of {key[1].hex()} are in the store's file after its ack")

    def check_log(self, log: bytes) -> None:
        """Search the log, in more than one spelling."""
        if any(form in log for form in self._forms):
            self.violated(Invariant.NO_PLAINTEXT, "a text is in the log")

    def _search(self, data: bytes, where: str) -> None:
        if self._mark in data:
            self.violated(Invariant.NO_PLAINTEXT, f"a text is in {where}")


def _is_in(batch: Batch, snapshot: Snapshot) -> bool:
    """Whether a torn commit was stored, by any of its rows."""
    if batch.commit is not None:
        return any(row.idx == batch.commit.idx and row.header == batch.commit.header for row in snapshot.commits)
    return False
