"""What the leaves of a relay's log say, and whether they say it by the rules (protocol.md section 15).

It starts from the relay's card alone: the card's key signed the log's key in the first leaf, every later key is signed
by the one before, and the checkpoint by the last. Each rule that a log breaks is a finding; a leaf of a type that this
reader does not know is skipped, as the protocol says.

A log that is whole in itself can still be another than yesterday's: give the checkpoint that you kept, and the tree of
its size must have its root. Without one, a log that was forked or cut off before you first looked is not noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from audit import decoder
from audit.crypto import verify
from audit.errors import AuditError, DecodeError, ProofError
from audit.manifest import KeyRing, build_key_ring
from audit.material import RelayCard
from audit.merkle import root_of
from audit.schema import TABLES
from audit.tlog import Mirror, Note, read_mirror, read_note, verify_note

LATE_S: Final = 86_400
"""An order is in the log within a day of its receipt, or it counts as back-dated."""
SKEW_S: Final = 300
TIME_S_MAX: Final = 2**40
LEAF_BYTES_MAX: Final = 65_535
KINDS: Final = frozenset(
    {
        "wholesale",
        "content",
        "interception",
        "subscriber",
        "metadata",
        "pen-register",
        "preservation",
        "keys",
        "decrypt",
        "weakness",
        "ghost",
        "secrecy",
        "seizure",
        "leave",
    }
)
OUTCOMES: Final = frozenset({"given", "ciphertext", "refused", "nothing-held"})
STATES: Final = frozenset({"honoured", "refused"})
CAPTURED: Final = {"interception": "ciphertext", "pen-register": "given"}
"""Kinds of order that are honoured by recording what passes, and the outcome of having done so."""
PERSONAL_TABLES: Final = ("mailboxes", "lists", "prekeys", "envelopes", "tombstones")
PERSONAL_COLUMNS: Final = frozenset(
    f"{table}.{name}"
    for table in PERSONAL_TABLES
    for name in ("seq", *("body_bytes" if column.name == "body" else column.name for column in TABLES[table]))
)
"""What an answer about a person may hold, from this reader's own schema of the store."""
_NOBODY: Final = bytes(32)
_UNTIL: Final = re.compile(r"until ([0-9]{4}-[0-9]{2}-[0-9]{2})")


@dataclass(slots=True)
class LoggedOrder:
    """An order, and what the log says became of it. Fields of a sealed order that nobody opened are None or empty."""

    number: int
    index: int
    logged_at: int
    sealed: bool
    secret_until: int
    kind: str = ""
    issuer: str = ""
    jurisdiction: str = ""
    legal_basis: str = ""
    received_at: int | None = None
    deadline: int = 0
    scope: str = ""
    state: str = "open"
    outcome: str = ""
    text: str = ""
    given: tuple[str, ...] = ()
    evidence: bytes = _NOBODY
    answered_at: int | None = None
    opened: bool = False
    until: int = 0
    """Until when a preservation that was honoured holds, Unix time in seconds."""
    capturing_from: int = 0
    """When recording of what passes began, Unix time in seconds."""
    changes: list[tuple[str, int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Exit:
    """A step of leaving a jurisdiction."""

    index: int
    logged_at: int
    jurisdiction: str
    step: str
    ends_at: int
    text: str


@dataclass(slots=True)
class OrderLog:
    """What a log says, and each rule that it breaks.

    Args:
        origin: its name.
        size: how many leaves.
        root: of its checkpoint.
    """

    origin: str = ""
    size: int = 0
    root: bytes = b""
    orders: list[LoggedOrder] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    unknown_leaves: int = 0
    keys: list[tuple[int, bytes]] = field(default_factory=list)
    """From which tree size on which key signs checkpoints."""
    hashes: tuple[bytes, ...] = ()
    """Of all leaves."""
    findings: list[str] = field(default_factory=list)

    def root_at(self, size: int) -> bytes:
        """The root of the tree of the first leaves."""
        return root_of(self.hashes[:size])

    @property
    def holds(self) -> bool:
        """Whether no rule is broken."""
        return not self.findings


def verify_log(
    folder: Path, card: RelayCard, now_s: int | None = None, earlier: bytes | None = None, size: int | None = None
) -> OrderLog:
    """Read a mirror and hold it against all rules; never raises for what the mirror holds.

    Args:
        folder: the mirror.
        card: the relay's, as you had it before.
        now_s: your clock, Unix time in seconds; None: not compared.
        earlier: a checkpoint that you kept.
        size: read the orders as they stood when the log had so many leaves; None: as they stand.
    """
    log = OrderLog()
    try:
        mirror = read_mirror(folder)
    except AuditError as error:
        log.findings.append(str(error))
        return log
    log.origin, log.size, log.root = mirror.note.origin, mirror.note.size, mirror.note.root
    log.hashes = mirror.hashes
    if size is not None and size > mirror.note.size:
        log.findings.append(f"the log has {mirror.note.size} leaves, not {size}")
    _Reader(log, card, now_s).read(mirror.entries[:size])
    if log.keys:
        if size is None:
            _guard(log, lambda: verify_note(mirror.note, log.keys[-1][1], "checkpoint"))
        if earlier is not None:
            _guard(log, lambda: _check_earlier(log, mirror, read_note(earlier, "earlier checkpoint")))
    return log


def _guard(log: OrderLog, check: Callable[[], None]) -> None:
    try:
        check()
    except AuditError as error:
        log.findings.append(str(error))


def _check_earlier(log: OrderLog, mirror: Mirror, note: Note) -> None:
    where = "earlier checkpoint"
    if note.origin != mirror.note.origin:
        raise ProofError(where, "is another log's")
    key = next((key for size, key in reversed(log.keys) if size <= note.size), log.keys[0][1])
    verify_note(note, key, where)
    if note.size > mirror.note.size:
        raise ProofError(where, f"has {note.size} leaves, the log only {mirror.note.size}: leaves were dropped")
    if note.size and mirror.root(note.size) != note.root:
        raise ProofError(where, f"the first {note.size} leaves are others than they were: the log was forked")


class _Reader:
    def __init__(self, log: OrderLog, card: RelayCard, now_s: int | None) -> None:
        self.log = log
        self.card = card
        self.now_s = now_s
        self.time_s = 0
        self.sealed: dict[int, tuple[str, int, bytes]] = {}
        self.take: dict[int, Callable[[int, list[Any]], None]] = {
            1: self._begins,
            2: self._order,
            3: self._answer,
            4: self._sealed,
            5: self._opening,
            6: self._change,
            7: self._exit,
            8: self._key_change,
        }

    def read(self, entries: Sequence[bytes]) -> None:
        for index, entry in enumerate(entries):
            try:
                self._leaf(index, entry)
            except AuditError as error:
                self.log.findings.append(f"leaf {index}: {error}")
        if not self.log.keys:
            self.log.findings.append("leaf 0: does not begin the log: nobody says whose key signs it")

    def _leaf(self, index: int, entry: bytes) -> None:
        fields = decoder.array(decoder.decode(entry, "leaf", LEAF_BYTES_MAX), "leaf")
        if len(fields) < 2:
            raise DecodeError("leaf", "is no array of a type, a time and more")
        kind = decoder.integer(fields[0], "type")
        logged_at = decoder.integer(fields[1], "logged_at", 0, TIME_S_MAX)
        if logged_at < self.time_s:
            self.log.findings.append(f"leaf {index}: is dated before the leaf before it: back-dated or reordered")
        self.time_s = max(self.time_s, logged_at)
        if self.now_s is not None and logged_at > self.now_s + SKEW_S:
            self.log.findings.append(f"leaf {index}: is dated in the future")
        if (index == 0) != (kind == 1):
            raise DecodeError("leaf", "the log begins with its beginning, once")
        take = self.take.get(kind)
        if take is None:
            self.log.unknown_leaves += 1
            return
        take(index, fields)

    def _begins(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "log begins", 8)
        relay_id = decoder.binary(fields[2], "relay_id", 16)
        origin = decoder.text(fields[3], "origin", 254)
        log_key = decoder.binary(fields[4], "log_key", 32)
        first_key = decoder.binary(fields[5], "first_key", 32)
        if relay_id != self.card.relay_id or first_key != self.card.signing_key:
            raise ProofError("log begins", "is the log of another relay than the card's")
        if origin != self.log.origin:
            raise ProofError("log begins", "has another origin than the checkpoint")
        ring = self._ring(fields[6])
        signature = decoder.binary(fields[7], "signature", 64)
        verify(ring.current, "log-begins", _unsigned(fields, 1), signature)
        self.log.keys.append((0, log_key))

    def _ring(self, value: Any) -> KeyRing:
        """The relay's keys from the card's on, by the rotations in a leaf."""
        rotations = decoder.array(value, "rotations", length_max=256)
        packed = tuple(decoder.encode(item, "rotation") for item in rotations)
        return build_key_ring(self.card.signing_key, self.card.relay_id, packed)

    def _order(self, index: int, fields: list[Any]) -> None:
        order = self._new_order(index, fields)
        order.sealed = False
        self.log.orders.append(order)
        self._check_number(order)

    def _new_order(self, index: int, fields: list[Any]) -> LoggedOrder:
        decoder.array(fields, "order", 12)
        order = LoggedOrder(
            decoder.integer(fields[2], "number"),
            index,
            decoder.integer(fields[1], "logged_at", 0, TIME_S_MAX),
            sealed=True,
            secret_until=decoder.integer(fields[11], "secret_until", 0, TIME_S_MAX),
            kind=decoder.text(fields[3], "kind", 32),
            issuer=decoder.text(fields[4], "issuer", 800),
            jurisdiction=decoder.text(fields[5], "jurisdiction", 2),
            legal_basis=decoder.text(fields[6], "legal_basis", 800),
            received_at=decoder.integer(fields[7], "received_at", 0, TIME_S_MAX),
            deadline=decoder.integer(fields[8], "deadline", 0, TIME_S_MAX),
            scope=decoder.text(fields[9], "scope", 32),
        )
        subject = decoder.binary(fields[10], "subject", 32)
        if order.kind not in KINDS or order.scope not in {"all", "tenant", "account", "mailbox"}:
            raise DecodeError("order", "is of a kind or scope that there is not")
        if (order.scope == "all") != (subject == _NOBODY):
            raise DecodeError("order", "its commitment to whom it is about does not fit its scope")
        received_at = order.received_at or 0
        if not order.logged_at - LATE_S <= received_at <= order.logged_at + SKEW_S:
            raise ProofError("order", f"was received at {received_at} and logged at {order.logged_at}: back-dated")
        return order

    def _check_number(self, order: LoggedOrder) -> None:
        if order.number != len(self.log.orders) - 1:
            raise ProofError("order", f"is number {order.number}, {len(self.log.orders) - 1} is next: one was dropped")

    def _of(self, number: int) -> LoggedOrder:
        for order in self.log.orders:
            if order.number == number:
                return order
        raise ProofError("number", f"there is no order {number} before it")

    def _answer(self, index: int, fields: list[Any]) -> None:
        order = self._of(decoder.integer(fields[2], "number") if len(fields) > 2 else -1)
        if order.sealed:
            raise ProofError("answer", f"order {order.number} is sealed, and so is its answer")
        self._set_answer(order, fields)
        order.answered_at = fields[1]

    def _set_answer(self, order: LoggedOrder, fields: list[Any]) -> None:
        decoder.array(fields, "answer", 8)
        # An answer that is opened may stand before a change that the log had while it was sealed.
        withdrawn = order.state == "withdrawn" and (order.sealed or bool(order.capturing_from))
        if order.state != "open" and not withdrawn:
            raise ProofError("answer", f"order {order.number} is {order.state}: it is answered once")
        order.state = decoder.text(fields[3], "state", 32)
        order.outcome = decoder.text(fields[4], "outcome", 32)
        order.text = decoder.text(fields[5], "text", 32_000)
        given = decoder.array(fields[6], "given", length_max=256)
        order.given = tuple(decoder.text(column, "given", 200) for column in given)
        order.evidence = decoder.binary(fields[7], "evidence", 32)
        if order.state not in STATES or order.outcome not in OUTCOMES:
            raise DecodeError("answer", "has a state or outcome that there is not")
        if beyond := sorted(set(order.given) - PERSONAL_COLUMNS):
            raise ProofError("answer", f"gave {beyond[0]!r}, which the schema does not have: more is held than is said")
        if "Not claimed: " not in order.text:
            raise ProofError("answer", "does not say what it does not claim")
        if order.kind == "preservation" and (order.state, order.outcome) == ("honoured", "given"):
            order.until = _preserved_until(order.text)
        self._check_captured(order)
        if withdrawn and not order.capturing_from:
            if order.state == "honoured" and not order.until:
                raise ProofError("answer", f"order {order.number} was honoured, and withdrawn after it")
            order.state = "withdrawn"

    def _check_captured(self, order: LoggedOrder) -> None:
        """What passed is handed over only if the log says from when it was recorded, and what was recorded is told."""
        wanted = CAPTURED.get(order.kind)
        if order.capturing_from:
            if (order.state, order.outcome) != ("honoured", wanted) or order.evidence == _NOBODY:
                raise ProofError("answer", f"order {order.number} was captured, and the answer does not say so")
        elif wanted is not None and (order.outcome == wanted or order.evidence != _NOBODY):
            raise ProofError("answer", f"order {order.number} was captured, and the log does not say from when")

    def _sealed(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "sealed", 6)
        number = decoder.integer(fields[2], "number")
        what = decoder.text(fields[3], "what", 32)
        self.sealed[index] = (what, number, decoder.binary(fields[4], "commitment", 32))
        until = decoder.integer(fields[5], "secret_until", 0, TIME_S_MAX)
        if what == "order":
            order = LoggedOrder(number, index, fields[1], sealed=True, secret_until=until)
            self.log.orders.append(order)
            self._check_number(order)
        elif what == "answer":
            order = self._of(number)
            if not order.sealed or order.answered_at is not None:
                raise ProofError("sealed answer", "is of an order that is not sealed, or was answered before")
            order.answered_at = fields[1]
        elif what == "change":
            order = self._of(number)
            if not order.sealed or order.answered_at is not None:
                raise ProofError("sealed change", "is of an order that is not sealed, or was answered before")
        else:
            raise DecodeError("sealed", "is neither an order nor an answer, and no change")

    def _opening(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "opening", 5)
        place = decoder.integer(fields[2], "index")
        nonce, text = decoder.binary(fields[3], "nonce", 32), decoder.binary(fields[4], "text", length_max=65_535)
        if place not in self.sealed:
            raise ProofError("opening", f"leaf {place} is not sealed, or was opened before")
        what, number, committed = self.sealed.pop(place)
        if sha256(nonce + text).digest() != committed:
            raise ProofError("opening", f"is not what was sealed in leaf {place}")
        inner = decoder.array(decoder.decode(text, "opened leaf", LEAF_BYTES_MAX), "opened leaf", length_max=12)
        order = self._of(number)
        if inner[:1] != [{"order": 2, "answer": 3, "change": 6}[what]] or inner[2:3] != [number]:
            raise ProofError("opening", f"is no {what} of number {number}")
        if what == "change":
            self._open_change(order, inner)
            return
        if what == "answer":
            self._set_answer(order, inner)
            return
        opened = self._new_order(order.index, inner)
        if (opened.logged_at, opened.secret_until) != (order.logged_at, order.secret_until):
            raise ProofError("opening", "has other dates than its sealed leaf")
        for name in ("kind", "issuer", "jurisdiction", "legal_basis", "received_at", "scope"):
            setattr(order, name, getattr(opened, name))
        order.deadline = order.deadline or opened.deadline
        order.opened = True

    def _open_change(self, order: LoggedOrder, fields: list[Any]) -> None:
        """Of a sealed order only the beginning of a capture is sealed; a withdrawal may have come after it."""
        decoder.array(fields, "change", 5)
        logged_at = decoder.integer(fields[1], "logged_at", 0, TIME_S_MAX)
        if decoder.text(fields[3], "change", 32) != "capturing":
            raise DecodeError("opening", "is of a change that is never sealed")
        deadline = decoder.integer(fields[4], "deadline", 0, TIME_S_MAX)
        before = [change for change, at, _ in order.changes if at < logged_at]
        if "withdrawn" in before:
            raise ProofError("change", f"order {order.number} was captured after it was withdrawn")
        self._begin_capture(order, logged_at, deadline)
        order.changes.insert(len(before), ("capturing", logged_at, deadline))
        order.deadline = max(order.deadline, deadline)

    def _begin_capture(self, order: LoggedOrder, logged_at: int, until: int) -> None:
        if order.kind not in CAPTURED or order.capturing_from:
            raise ProofError("change", f"order {order.number} is captured already, or is not about what passes")
        if until <= logged_at:
            raise ProofError("change", f"order {order.number} is captured until a day that has passed")
        order.capturing_from = logged_at

    def _change(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "change", 5)
        order = self._of(decoder.integer(fields[2], "number"))
        change = decoder.text(fields[3], "change", 32)
        deadline = decoder.integer(fields[4], "deadline", 0, TIME_S_MAX)
        if change not in {"extended", "appealed", "withdrawn", "released", "capturing"}:
            raise DecodeError("change", "is of a kind that there is not")
        if change == "released":
            self._check_release(order, fields[1])
        elif change == "capturing":
            if order.sealed or order.state != "open":
                raise ProofError("change", f"order {order.number} is {order.state} or sealed: its capture cannot begin")
            self._begin_capture(order, fields[1], deadline)
        elif change == "appealed" and order.capturing_from:
            raise ProofError("change", f"order {order.number} is captured: it cannot be contested any more")
        elif order.state in {"withdrawn", "released"} or (
            order.state == "honoured" and not (change == "withdrawn" and order.until)
        ):
            raise ProofError("change", f"order {order.number} is {order.state}: it cannot change")
        if change == "extended" and deadline <= order.deadline:
            raise ProofError("change", "an extension ends later than the deadline before it")
        order.changes.append((change, fields[1], deadline))
        order.deadline = deadline
        if change in {"withdrawn", "released"}:
            order.state = change

    def _check_release(self, order: LoggedOrder, logged_at: int) -> None:
        """A preservation ends once: after its day, or after the authority has withdrawn it."""
        if not order.until:
            raise ProofError("change", f"order {order.number} is no preservation that the log shows")
        if order.state not in {"honoured", "withdrawn"}:
            raise ProofError("change", f"order {order.number} is {order.state}: it is released once")
        if order.state == "honoured" and logged_at < order.until:
            raise ProofError("change", f"order {order.number} was released before its day, and not withdrawn")

    def _exit(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "exit", 8)
        step = Exit(
            index,
            fields[1],
            decoder.text(fields[2], "jurisdiction", 2),
            decoder.text(fields[3], "step", 32),
            decoder.integer(fields[4], "ends_at", 0, TIME_S_MAX),
            decoder.text(fields[5], "text", 32_000),
        )
        ring = self._ring(fields[6])
        verify(ring.current, "exit", _unsigned(fields, 1), decoder.binary(fields[7], "signature", 64))
        if step.step not in {"announced", "extended", "cancelled", "completed"}:
            raise DecodeError("exit", "is a step that there is not")
        before = [one for one in self.log.exits if one.jurisdiction == step.jurisdiction]
        under_way = bool(before) and before[-1].step in {"announced", "extended"}
        if (step.step == "announced") == under_way or (before and before[-1].step == "completed"):
            raise ProofError("exit", f"{step.step} does not follow from what was said before of {step.jurisdiction}")
        if step.step == "completed" and step.logged_at < before[-1].ends_at:
            raise ProofError("exit", "was completed before the day that was announced")
        self.log.exits.append(step)

    def _key_change(self, index: int, fields: list[Any]) -> None:
        decoder.array(fields, "log key change", 6)
        old, new = decoder.binary(fields[2], "old_key", 32), decoder.binary(fields[3], "new_key", 32)
        if not self.log.keys or old != self.log.keys[-1][1]:
            raise ProofError("log key change", "does not follow the key before it")
        data = _unsigned(fields, 2)
        verify(old, "log-key", data, decoder.binary(fields[4], "old_signature", 64))
        verify(new, "log-key", data, decoder.binary(fields[5], "new_signature", 64))
        self.log.keys.append((index + 1, new))


def _preserved_until(text: str) -> int:
    """The beginning of the day that the answer to a preservation names, Unix time in seconds (section 15.3)."""
    days = _UNTIL.findall(text)
    try:
        (day,) = days
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ProofError("answer", "does not name the one day until which it preserves") from None


def _unsigned(fields: list[Any], signatures: int) -> bytes:
    """The leaf with zeros in the place of its signatures, which is what was signed."""
    return decoder.encode([*fields[:-signatures], *[bytes(64)] * signatures], "leaf")
