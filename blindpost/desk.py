"""Serves an order at a relay, running or not: receive, find, decide, hand over, answer; each step logged.

What is handed over depends on the kind: a disclosure, the record of one person, or nothing. What is said is made by
relay/core/answers.py from the facts found here.
"""

import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from blindpost.capturing import check_running
from blindpost.errors import CommandError, UsageError
from blindpost.files import check_absent, write_new
from blindpost.preserving import settle
from relay.asking import find_held, held_content, preserve_held
from relay.core.answers import Facts, answer_to
from relay.core.docket import CAPTURED_KINDS, DocketError, Entry, Order, OrderKind
from relay.core.policy import Decision
from relay.disclosure import MANIFEST_NAME, Disclosure, sha256_of, take_wholesale
from relay.orders import Desk
from wire.codec import encode
from wire.held import column_names, read_held
from wire.leaves import AnswerLeaf

__all__ = ["DISCLOSING", "RECORDING", "Served", "check_until", "decide", "now_s", "serve"]

DISCLOSING: Final = frozenset({OrderKind.WHOLESALE, OrderKind.SEIZURE})
"""Kinds that are answered with a disclosure of all that the relay has."""
RECORDING: Final = frozenset({OrderKind.SUBSCRIBER, OrderKind.CONTENT})
"""Kinds that are answered with a file: the record of one person, or the ciphertext that waits for one."""
PRESERVED_S_MAX: Final = 180 * 86_400


@dataclass(frozen=True, slots=True)
class Served:
    """An order that was served.

    Args:
        entry: where it stands.
        order_index: its leaf in the log.
        answer_index: its answer's; None while it is contested.
        answer: what was answered.
        sealed: whether order and answer are sealed in the log.
        disclosure: what was taken, if it was.
        log_size: leaves of the log now.
        record: what is held about a person, where that was given.
    """

    entry: Entry
    order_index: int
    answer_index: int | None
    answer: AnswerLeaf | None
    sealed: bool
    disclosure: Disclosure | None
    log_size: int
    record: bytes = field(default=b"", repr=False)


def now_s() -> int:
    """Unix time in seconds."""
    return int(time.time())


def serve(home: Path, order: Order, out: Path | None = None, *, memory: bool = False, until_s: int = 0) -> Served:
    """Serve an order.

    Args:
        home: the relay's.
        order: the order.
        out: where what is handed over goes: a folder for a disclosure, a file for a record.
        memory: with a disclosure, also the memory image.
        until_s: until when a preservation holds, or what passes is recorded, Unix time in seconds.

    Returns:
        what was said. An order whose recording the log announces by that is not answered yet (capturing.py).

    Raises:
        CommandError: `out` is there already; no relay runs that could record.
        BlindpostError: the relay, its store or its log cannot do it; what was logged before stands in the log.
        OSError: something could not be written.
    """
    if out is not None and order.kind in RECORDING:
        check_absent(out)
    with Desk.at(home, now_s, os.urandom) as desk:
        settle(desk)
        decision = desk.policy.decision(order)
        records = order.kind in CAPTURED_KINDS and decision is Decision.HONOUR
        if records:
            _check_capture(home, out, until_s)
        filed = desk.receive(order)
        number = filed.entry.number
        if records:
            return _announced(desk, number, filed.index, until_s)
        if decision is Decision.APPEAL:
            contested = desk.appeal(number)
            return Served(contested.entry, filed.index, None, None, filed.sealed, None, desk.log.size)
        return _answered(desk, number, decision, out, memory=memory, until_s=until_s)


def check_until(until_s: int) -> None:
    """Refuse an end of a preservation, or of what is recorded, that has passed or is too far.

    Raises:
        UsageError: as said.
    """
    if not now_s() < until_s <= now_s() + PRESERVED_S_MAX:
        raise UsageError("--until must be a day within the next 180", "ask again before it ends")


def decide(home: Path, number: int, *, honour: bool, out: Path | None = None, until_s: int = 0) -> Served:
    """Answer an order that was contested, once that is decided.

    Args:
        home: the relay's.
        number: the order's.
        honour: whether it stands.
        out: where a record goes.
        until_s: until when a preservation holds, or what passes is recorded.

    Returns:
        as `serve`.

    Raises:
        DocketError: there is no such order, or it is settled.
        BlindpostError, OSError: as `serve`.
    """
    if out is not None:
        check_absent(out)
    with Desk.at(home, now_s, os.urandom) as desk:
        settle(desk)
        entry = desk.docket.entry(number)
        if not entry.is_open:
            raise DocketError(f"order {number} is {entry.state.value}: it is decided")
        order = entry.order
        if entry.captured:
            hint = f"blindpost order capture {number} --out FILE, with --finish to end it now"
            raise CommandError(f"order {number} is decided, and what passes is recorded", hint)
        decision = Decision.HONOUR if honour else Decision.REFUSE
        index = desk.order_index(number)
        if honour and order.kind in CAPTURED_KINDS:
            _check_capture(home, out, until_s)
            return _announced(desk, number, index, until_s)
        return _answered(desk, number, decision, out, until_s=until_s)


def _answered(
    desk: Desk, number: int, decision: Decision, out: Path | None, *, memory: bool = False, until_s: int = 0
) -> Served:
    """Find and do what an order on the docket asks for, and answer it."""
    order, index = desk.docket.entry(number).order, desk.order_index(number)
    facts, disclosure, record = _served(
        desk.home.path, order, decision, out, memory=memory, until_s=until_s, index=index
    )
    facts = replace(facts, sealed=desk.is_sealed(number))
    answered = desk.answer(number, answer_to(order, decision, facts), decision)
    text, size = desk.answer_text(number), desk.log.size
    return Served(answered.entry, index, answered.index, text, answered.sealed, disclosure, size, record)


def _check_capture(home: Path, out: Path | None, until_s: int) -> None:
    """Refuse before anything is logged what cannot be recorded."""
    if out is None or not until_s:
        raise UsageError("what passes is recorded until a day, into a file", "give --until DATE and --out FILE")
    check_until(until_s)
    check_absent(out)
    check_running(home)


def _announced(desk: Desk, number: int, index: int, until_s: int) -> Served:
    """The log says that recording begins, before it does."""
    begun = desk.capture(number, until_s)
    return Served(begun.entry, index, None, None, begun.sealed, None, desk.log.size)


def _served(
    home: Path,
    order: Order,
    decision: Decision,
    out: Path | None,
    *,
    memory: bool = False,
    until_s: int = 0,
    index: int = 0,
) -> tuple[Facts, Disclosure | None, bytes]:
    """What is found and done, and the record that is given."""
    if order.kind is OrderKind.PRESERVATION and decision is Decision.HONOUR:
        check_until(until_s)
        found = preserve_held(home, order.scope, until_s, index)
        return Facts(found=found.mailboxes, until_s=until_s), None, b""
    return _facts(home, order, decision, out, memory)


def _facts(
    home: Path, order: Order, decision: Decision, out: Path | None, memory: bool
) -> tuple[Facts, Disclosure | None, bytes]:
    """What is found, and what is handed over of it."""
    found = find_held(home, order.scope)
    record = b"".join(found.held)
    evidence, disclosure = bytes(32), None
    columns: tuple[str, ...] = ()
    if order.kind in DISCLOSING and out is not None:
        disclosure = take_wholesale(home, out, memory=memory)
        evidence = sha256_of(out / MANIFEST_NAME)
    elif order.kind is OrderKind.SUBSCRIBER and record and decision is Decision.HONOUR:
        read_held(record)
        evidence, columns = hashlib.sha256(record).digest(), column_names()
        if out is not None:
            write_new(out, record, secret=True)
    elif order.kind is OrderKind.CONTENT and out is not None and found.envelopes and decision is Decision.HONOUR:
        evidence = _write_content(home, order, out)
    facts = Facts(
        found=found.mailboxes,
        columns=columns,
        envelopes=found.envelopes,
        body_bytes=found.body_bytes,
        evidence=evidence,
    )
    return facts, disclosure, record if columns else b""


def _write_content(home: Path, order: Order, out: Path) -> bytes:
    """Write what waits for a person as it is stored, one MessagePack array an envelope; return its SHA-256."""
    rows = [encode(row) for piece in held_content(home, order.scope) for row in piece.envelopes]
    data = b"".join(rows)
    write_new(out, data, secret=True)
    return hashlib.sha256(data).digest()
