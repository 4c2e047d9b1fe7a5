"""Planted bugs: one part of the relay, its disk or a device replaced, as somebody could really have written it.

    with planted("ack-lost-on-restart"):      inside, every trial has the bug

Each bug breaks one invariant, and counts as found only if a trial breaks that one and the honest trial of the same seed
breaks none. Nothing here is imported by the program but by the swarm.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import keys.message
from relay.core.batch import Staged
from relay.core.commitlog import CommitLog
from relay.core.core import RelayCore
from relay.core.delivery import Deliveries
from relay.core.events import Batch, CoreConfig, Snapshot
from relay.core.links import Link
from relay.core.mailboxes import Held, Mailbox, Mailboxes
from relay.log import RelayLog
from relay.store.protocol import StoreError
from relay.store.sqlite import SqliteStore
from sim.engine.disk import Disk, SimulatedStore
from sim.engine.handset import Handset
from sim.engine.machine import Machine
from sim.swarm.bodies import SealedTexts
from sim.swarm.log_bugs import answer_without_leaf, checkpoint_forgets, leaf_rewritten_after_restart
from sim.swarm.witness import Invariant
from sim.world import replaced
from wire.commands import Ack, Submit
from wire.padding import pad

__all__ = ["BUGS", "Bug", "planted"]

_TAG_BYTES: Final = 16


@dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes:
        name: for `--bug`.
        breaks: the invariant that it breaks.
        about: how it came about.
        plant: a context in which it is there.
    """

    name: str
    breaks: Invariant
    about: str
    plant: Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug until the block ends; the empty name plants none.

    Raises:
        KeyError: there is none of that name.
    """
    if not name:
        yield
        return
    with BUGS[name].plant():
        yield


# ---- what has a receipt is kept


@contextlib.contextmanager
def _receipt_before_commit() -> Iterator[None]:
    pump = Machine.pump
    early: list[tuple[bytes, bytes]] = []

    def receipts_first(machine: Machine, core: RelayCore, batch: Batch, clock_ms: int) -> None:
        core.committed(batch, clock_ms)
        early.extend(core.take_packets())
        with contextlib.suppress(StoreError):
            machine.disk.commit(batch)

    def with_early(machine: Machine, now_ms: int) -> list[tuple[bytes, bytes]]:
        packets = pump(machine, now_ms)
        before, early[:] = list(early), []
        return before + packets

    with replaced(Machine, "_store", receipts_first), replaced(Machine, "pump", with_early):
        yield


@contextlib.contextmanager
def _failed_commit_ignored() -> Iterator[None]:
    """As after an fsync whose error nobody looked at."""

    def store(machine: Machine, core: RelayCore, batch: Batch, clock_ms: int) -> None:
        with contextlib.suppress(StoreError):
            machine.disk.commit(batch)
        core.committed(batch, clock_ms)

    with replaced(Machine, "_store", store):
        yield


# ---- nothing is shown twice


@contextlib.contextmanager
def _seen_marks_lost() -> Iterator[None]:
    """A device that keeps its seen-marks and its acks with the link, and begins anew with the next one."""
    is_linked = Handset._is_linked

    def forgetful(handset: Handset) -> None:
        if not handset.linked:
            handset._seen.clear()
            for ref in [ref for ref, asked in handset._asked.items() if isinstance(asked.command, Ack)]:
                del handset._asked[ref]
        is_linked(handset)

    with replaced(Handset, "_is_linked", forgetful):
        yield


# ---- no plaintext


@contextlib.contextmanager
def _text_in_body() -> Iterator[None]:
    """A device that pads, and leaves it at that."""

    def seal(_key: bytes, _associated: bytes, _nonce: bytes, content: bytes) -> bytes:
        return pad(content) + bytes(_TAG_BYTES)

    with replaced(keys.message, "seal_content", seal):
        yield


@contextlib.contextmanager
def _text_in_log() -> Iterator[None]:
    """A debug line for a commit that failed; the texts come from devices that report them."""
    told: list[bytes] = []
    text, aborted = SealedTexts.text, RelayLog.aborted

    def tell(bodies: SealedTexts, length: int) -> bytes:
        told[:] = [text(bodies, length)]
        return told[0]

    def with_debug_line(log: RelayLog, envelopes: int) -> None:
        aborted(log, envelopes)
        for one in told:
            os.write(log._file, b"debug text=" + one.hex().encode() + b"\n")

    with replaced(SealedTexts, "text", tell), replaced(RelayLog, "aborted", with_debug_line):
        yield


# ---- the log only grows


@contextlib.contextmanager
def _chain_forked_after_crash() -> Iterator[None]:
    """A relay that forgets at its start which header was the last."""
    init = CommitLog.__init__

    def forgetful(log: CommitLog, relay_id: bytes, partition: int, snapshot: Snapshot) -> None:
        init(log, relay_id, partition, snapshot)
        log.head_hash = bytes(len(log.head_hash))

    with replaced(CommitLog, "__init__", forgetful):
        yield


@contextlib.contextmanager
def _commit_dated_back() -> Iterator[None]:
    """Headers bear the clock's time, wherever the clock has gone."""
    stage = CommitLog.stage

    def by_the_clock(log: CommitLog, leaves: list[bytes], key: Any, now_ms: int) -> Any:
        log._head_time_ms = 0
        return stage(log, leaves, key, now_ms)

    with replaced(CommitLog, "stage", by_the_clock):
        yield


# ---- acks are honoured


@contextlib.contextmanager
def _ack_lost_on_restart() -> Iterator[None]:
    """Erasures are written behind: a crash loses those of the last commits."""
    commit, load = Disk.commit, Disk.load
    behind: list[tuple[Disk, Batch]] = []

    def erasures_later(disk: Disk, batch: Batch) -> None:
        acked = {stone.seq for stone in batch.tombstones}
        if not acked or not isinstance(disk.store, SimulatedStore):
            commit(disk, batch)
            return
        rows = [disk.store.envelopes.get(seq) for seq in batch.envelopes_erased]
        commit(disk, batch)
        behind.append((disk, Batch(envelopes=[row for row in rows if row is not None], tombstones=batch.tombstones)))
        del behind[:-4]

    def without_the_last(disk: Disk) -> Snapshot:
        for one, batch in behind:
            if one is disk and isinstance(disk.store, SimulatedStore):
                for row in batch.envelopes:
                    if row.commit_index in disk.store.commits:
                        disk.store.envelopes[row.seq] = row
                for stone in batch.tombstones:
                    disk.store.tombstones.pop(stone.seq, None)
        behind.clear()
        return load(disk)

    with replaced(Disk, "commit", erasures_later), replaced(Disk, "load", without_the_last):
        yield


@contextlib.contextmanager
def _ack_not_erased() -> Iterator[None]:
    """An acked envelope gets its tombstone, and stays where it was."""
    stage_leaving = Mailboxes.stage_leaving

    def leave(mailboxes: Mailboxes, staged: Staged, held: Held, reason: int, token: bytes) -> None:
        stage_leaving(mailboxes, staged, held, reason, token)
        staged.batch.envelopes_erased.pop()

    with replaced(Mailboxes, "stage_leaving", leave):
        yield


@contextlib.contextmanager
def _bytes_left_in_file() -> Iterator[None]:
    """A database that unlinks what it deletes, and does not overwrite it."""
    connect = SqliteStore._connect

    def careless(store: SqliteStore) -> Any:
        connection = connect(store)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    with replaced(SqliteStore, "_connect", careless):
        yield


# ---- quotas


@contextlib.contextmanager
def _quota_not_counted_after_restart() -> Iterator[None]:
    """What was there at the start is not counted."""
    load = Mailboxes._load

    def uncounted(mailboxes: Mailboxes, snapshot: Snapshot) -> None:
        load(mailboxes, snapshot)
        for mailbox in mailboxes.by_id.values():
            mailbox.held = 0
            mailbox.held_bytes = 0

    with replaced(Mailboxes, "_load", uncounted):
        yield


@contextlib.contextmanager
def _tombstones_not_counted() -> Iterator[None]:
    """Only what waits counts; what was acked is free."""
    check_room = Mailboxes.check_room

    def live_only(mailboxes: Mailboxes, mailbox: Mailbox, envelopes: int, body_bytes: int) -> None:
        stones = len(mailbox.tombstones)
        config: CoreConfig = mailboxes._config
        mailbox.held -= stones
        mailbox.held_bytes -= stones * config.tombstone_bytes
        try:
            check_room(mailboxes, mailbox, envelopes, body_bytes)
        finally:
            mailbox.held += stones
            mailbox.held_bytes += stones * config.tombstone_bytes

    with replaced(Mailboxes, "check_room", live_only):
        yield


# ---- after healing everything arrives


@contextlib.contextmanager
def _message_dropped_on_heal() -> Iterator[None]:
    """A device that forgets what was under way when its network comes back."""
    cut = Handset.cut

    def forgetful(handset: Handset, on: bool) -> None:
        if not on:
            for ref in [ref for ref, asked in handset._asked.items() if isinstance(asked.command, Submit)]:
                del handset._asked[ref]
        cut(handset, on)

    with replaced(Handset, "cut", forgetful):
        yield


@contextlib.contextmanager
def _backlog_skipped() -> Iterator[None]:
    """A relay that takes a new link's question for delivery to be about new mail only."""
    subscribe = Deliveries.subscribe

    def only_new(deliveries: Deliveries, mailbox: Mailbox, link: Link, after: int, credit: int) -> None:
        subscribe(deliveries, mailbox, link, mailbox.newest if not link.subscribed else after, credit)

    with replaced(Deliveries, "subscribe", only_new):
        yield


def _bugs() -> Iterator[Bug]:
    kept, once, dark = Invariant.RECEIPTED_IS_KEPT, Invariant.SHOWN_ONCE, Invariant.NO_PLAINTEXT
    appends, acks, quota, arrives = (
        Invariant.LOG_APPENDS,
        Invariant.ACK_HONOURED,
        Invariant.QUOTA_KEPT,
        Invariant.ALL_ARRIVES,
    )
    yield Bug("receipt-before-commit", kept, "the receipt leaves, then the batch is stored", _receipt_before_commit)
    yield Bug("failed-commit-ignored", kept, "the error of a commit is not looked at", _failed_commit_ignored)
    yield Bug("seen-marks-lost", once, "a device forgets with its link what it has shown", _seen_marks_lost)
    yield Bug("text-in-body", dark, "a device pads and does not encrypt", _text_in_body)
    yield Bug("text-in-log", dark, "a debug line when a commit fails, in hexadecimal", _text_in_log)
    yield Bug("chain-forked-after-crash", appends, "the last header is forgotten at a start", _chain_forked_after_crash)
    yield Bug("commit-dated-back", appends, "headers follow the clock when it jumps back", _commit_dated_back)
    yield Bug(
        "leaf-rewritten-after-restart",
        appends,
        "the public log dates its last leaf anew when it is opened",
        leaf_rewritten_after_restart,
    )
    yield Bug(
        "answer-without-leaf", appends, "an order is answered, and the public log has no leaf", answer_without_leaf
    )
    yield Bug("checkpoint-forgets", appends, "the public log goes on from the checkpoint before", checkpoint_forgets)
    yield Bug("ack-lost-on-restart", acks, "erasures are written behind, a crash loses them", _ack_lost_on_restart)
    yield Bug("ack-not-erased", acks, "an acked envelope gets a tombstone and stays", _ack_not_erased)
    yield Bug("bytes-left-in-file", acks, "SQLite without secure_delete", _bytes_left_in_file)
    yield Bug(
        "quota-not-counted-after-restart",
        quota,
        "what is there at a start is not counted",
        _quota_not_counted_after_restart,
    )
    yield Bug("tombstones-not-counted", quota, "what was acked does not count", _tombstones_not_counted)
    yield Bug("message-dropped-on-heal", arrives, "a network's return clears what waits", _message_dropped_on_heal)
    yield Bug("backlog-skipped", arrives, "a new link is given new mail only", _backlog_skipped)


BUGS: Final[Mapping[str, Bug]] = {bug.name: bug for bug in _bugs()}
"""By name, in the order of the invariants."""
