"""The file of an order for interception or a pen register, read record by record (protocol.md section 15.6).

A reader of its own: it shares nothing with what wrote the file. Each byte belongs to a record and has a class; what is
out of place is a finding, and where a record is none, all that follows is unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from audit import decoder
from audit.checks.envelopes import CHI_SQUARE_MAX
from audit.crypto import body_kinds
from audit.errors import AuditError, DecodeError
from audit.outcome import About, Outcome
from audit.rows import Bytes
from audit.schema import ByteClass
from audit.store import chi_square

RECORDS = About(
    "capture.records",
    "every byte of the file is a record, and the records follow one another",
    "Nothing is in the file but events of the mailboxes that it names, numbered without a gap but those that it "
    "states, and the times between which something may be missing.",
    "That the relay recorded all that passed, or told the truth about links and times: nobody else sees these.",
    "15.6",
)
BODIES = About(
    "capture.bodies",
    "bodies are where the order has them, and are envelopes and nothing more",
    "A pen register has no body. In an interception each has a length of section 4.4 and the look of random bytes; no "
    "key commitment or nonce is in two envelopes, and an envelope that passes twice passes with the same bytes.",
    "That a body is encrypted under a key that the relay does not have: searches, and a disclosure, speak to that.",
    "4.4, 15.6",
)
LENGTH_BYTES: Final = 4
RECORD_BYTES_MAX: Final = 205_528
DEVICES_MAX: Final = 256
REASON_BYTES_MAX: Final = 32
TIME_MS_MAX: Final = 2**50
KINDS: Final = ("interception", "pen-register")
SCOPES: Final = ("all", "tenant", "account", "mailbox")
EVENTS: Final = {1: "stored", 2: "delivered", 3: "acknowledged", 4: "withdrawn", 5: "closed", 6: "expired"}
WITH_BODY: Final = frozenset({1, 2})
OF_NO_LINK: Final = frozenset({5, 6})
COMMITMENT: Final = slice(16, 48)
NONCE: Final = slice(48, 72)
_DEVICE_BYTES: Final = 32


@dataclass
class Recorded:
    """What a file says.

    Attributes:
        relay_id: of the header; empty: there is none.
        number: the order's.
        kind: interception or pen-register.
        parts: from when to when something was recorded, Unix milliseconds; an end of -1: it is not said.
        events: how many of each kind.
        writers: how many envelopes each link's devices stored.
        mailboxes: that are covered, each with its device.
        bodies: how many are in it.
        envelopes_with_body: of how many envelopes these are; one that passes twice has two.
        body_bytes: of all of them.
        lost: events without a record.
        classes: of all bytes.
    """

    relay_id: bytes = b""
    number: int = -1
    kind: str = ""
    parts: list[tuple[int, int]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    writers: Counter[tuple[bytes, ...]] = field(default_factory=Counter)
    mailboxes: dict[bytes, bytes] = field(default_factory=dict)
    bodies: int = 0
    envelopes_with_body: int = 0
    body_bytes: int = 0
    lost: int = 0
    classes: Counter[ByteClass] = field(default_factory=Counter)


class CaptureReader:
    """Reads one file; `read` once.

    Args:
        data: all of it.
        records: takes what is wrong with the records.
        bodies: takes what is wrong with the bodies.
        on_body: is called with each body and its envelope, (mailbox, number in it), in the order of the file.
    """

    def __init__(
        self,
        data: Bytes,
        records: Outcome,
        bodies: Outcome,
        on_body: Callable[[tuple[bytes, int], bytes], None] = lambda envelope, body: None,
    ) -> None:
        self.found = Recorded()
        self._on_body = on_body
        self._data = data
        self._records = records
        self._bodies = bodies
        self._time_ms = 0
        self._next_seq = 0
        self._is_going_on = False
        self._covered: set[bytes] = set()
        self._heads: dict[bytes, tuple[bytes, int]] = {}
        self._envelopes: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        self._unevenness = 0.0

    def read(self) -> Recorded:
        """Read it; never raises for what the file holds."""
        at = 0
        while at < len(self._data):
            start = at + LENGTH_BYTES
            end = start + int.from_bytes(self._data[at:start], "big")
            if not start < end <= min(start + RECORD_BYTES_MAX, len(self._data)):
                self._records.fail(
                    f"byte {at}", "no whole record begins here: the file was cut, or holds something else"
                )
                self.found.classes[ByteClass.UNEXPLAINED] += len(self._data) - at
                break
            try:
                fields = decoder.array(
                    decoder.decode(bytes(self._data[start:end]), "record", RECORD_BYTES_MAX), "record"
                )
                self._record(f"byte {at}", fields, end - at)
            except AuditError as error:
                self._records.fail(f"byte {at}", str(error))
                self.found.classes[ByteClass.UNEXPLAINED] += end - at
            at = end
        self._conclude()
        return self.found

    def _conclude(self) -> None:
        found = self.found
        found.envelopes_with_body = sum(bool(digest) for _size, digest in self._envelopes.values())
        if not found.kind:
            self._records.fail("byte 0", "no header says which order this is of")
        if self._is_going_on:
            self._records.miss("the end of what was recorded: the file was cut off, or is still being written")
        total = found.events.total()
        told = ", ".join(f"{count:,} {name}" for name, count in found.events.items())
        self._records.evidence = (
            f"{len(self._data):,} bytes: {total:,} events ({told or 'none'}) of {len(found.mailboxes):,} mailboxes in "
            f"{len(found.parts):,} parts, {found.lost:,} events lost and counted"
        )
        self._records.figures.update({"events": total, "parts": len(found.parts), "lost": found.lost})
        self._bodies.evidence = (
            f"{found.bodies:,} bodies, {found.body_bytes:,} bytes, of {len(self._envelopes):,} envelopes; highest "
            f"chi-square {self._unevenness:,.0f}"
            if found.kind == KINDS[0]
            else f"a pen register, with {found.bodies:,} bodies"
        )

    # ---- records

    def _record(self, where: str, fields: list[Any], size: int) -> None:
        kind = decoder.integer(fields[0] if fields else None, "record type", 1, 6)
        if (kind == 1) == bool(self.found.kind):
            raise DecodeError("record", "the header is the first record, and no other")
        body = b""
        if kind == 1:
            self._header(fields)
        else:
            time_ms = decoder.integer(fields[1] if len(fields) > 1 else None, "time_ms", 0, TIME_MS_MAX)
            if self._is_going_on and time_ms < self._time_ms:
                self._records.fail(where, "is dated before the record before it")
            if (kind == 2) == self._is_going_on:
                self._records.fail(where, "stands where nothing is recorded, or begins what has begun")
            self._time_ms = time_ms
            if kind == 2:
                self._began(fields)
            elif kind == 3:
                self._cover(fields)
            elif kind == 4:
                body = self._event(where, fields)
            elif kind == 5:
                events = decoder.integer(decoder.array(fields, "lost", 3)[2], "events", 1, 2**32 - 1)
                self._next_seq += events
                self.found.lost += events
            else:
                decoder.text(decoder.array(fields, "ended", 3)[2], "reason", REASON_BYTES_MAX)
                self._end(time_ms)
        keys = size - len(body) - LENGTH_BYTES - self._key_bytes(kind, fields)
        self.found.classes[ByteClass.CIPHERTEXT] += len(body)
        self.found.classes[ByteClass.FORMAT] += LENGTH_BYTES
        self.found.classes[ByteClass.PUBLIC_KEY] += self._key_bytes(kind, fields)
        self.found.classes[ByteClass.METADATA] += keys

    @staticmethod
    def _key_bytes(kind: int, fields: list[Any]) -> int:
        if kind == 3:
            return _DEVICE_BYTES
        return _DEVICE_BYTES * len(fields[4]) if kind == 4 else 0

    def _header(self, fields: list[Any]) -> None:
        decoder.array(fields, "header", 6)
        relay_id = decoder.binary(fields[1], "relay_id", 16)
        number = decoder.integer(fields[2], "number")
        kind, scope = decoder.text(fields[3], "kind", 32), decoder.text(fields[4], "scope", 32)
        decoder.integer(fields[5], "made_ms", 0, TIME_MS_MAX)
        if kind not in KINDS or scope not in SCOPES:
            raise DecodeError("header", "is of a kind of order or a scope that there is not")
        self.found.relay_id, self.found.number, self.found.kind = relay_id, number, kind

    def _began(self, fields: list[Any]) -> None:
        until_s = decoder.integer(decoder.array(fields, "began", 3)[2], "until_s", 0, TIME_MS_MAX // 1_000)
        if until_s * 1_000 <= self._time_ms:
            raise DecodeError("until_s", "recording began when its day had passed")
        self.found.parts.append((self._time_ms, -1))
        self._is_going_on, self._next_seq = True, 0
        self._covered = set()

    def _end(self, time_ms: int) -> None:
        if self.found.parts:
            self.found.parts[-1] = self.found.parts[-1][0], time_ms
        self._is_going_on = False

    def _cover(self, fields: list[Any]) -> None:
        decoder.array(fields, "covered", 4)
        mailbox, device = decoder.binary(fields[2], "mailbox", 16), decoder.binary(fields[3], "device_key", 32)
        if mailbox in self._covered or self.found.mailboxes.setdefault(mailbox, device) != device:
            raise DecodeError("covered", "a mailbox is covered once, and has one device")
        self._covered.add(mailbox)

    def _event(self, where: str, fields: list[Any]) -> bytes:
        decoder.array(fields, "event", 9)
        seq, event = decoder.integer(fields[2], "seq"), decoder.integer(fields[3], "event", 1, 6)
        devices = decoder.array(fields[4], "devices", length_max=DEVICES_MAX)
        keys = tuple(decoder.binary(device, "device", _DEVICE_BYTES) for device in devices)
        mailbox, number = decoder.binary(fields[5], "mailbox", 16), decoder.integer(fields[6], "number", 1)
        size = decoder.integer(fields[7], "body_bytes", 0, 196_696)
        body = decoder.binary(fields[8], "body", length_max=196_696)
        if seq != self._next_seq:
            self._records.fail(where, f"is event {seq}, {self._next_seq} is next: records were taken out or added")
        self._next_seq = seq + 1
        if mailbox not in self._covered:
            self._records.fail(where, "is of a mailbox that the order does not cover")
        if keys and event in OF_NO_LINK:
            self._records.fail(where, "names devices, and is of no link")
        self.found.events[EVENTS[event]] += 1
        if event == 1:
            self.found.writers[keys] += 1
        self._body(where, event, (mailbox, number), size, body)
        return body

    # ---- bodies

    def _body(self, where: str, event: int, envelope: tuple[bytes, int], size: int, body: bytes) -> None:
        bodies, found = self._bodies, self.found
        if not body_kinds(size):
            bodies.fail(where, f"{size} bytes are no envelope's padded size")
        wanted = size if found.kind == KINDS[0] and event in WITH_BODY else 0
        if len(body) != wanted:
            bodies.fail(where, f"has a body of {len(body)} bytes in a record of {found.kind} where {wanted} belong")
        known = self._envelopes.get(envelope)
        digest = sha256(body).digest() if body else b""
        if known is not None and (known[0] != size or (digest and known[1] and known[1] != digest)):
            bodies.fail(where, "is of an envelope that passed with other bytes before")
        if not body:
            self._envelopes.setdefault(envelope, (size, b""))
            return
        found.bodies += 1
        found.body_bytes += len(body)
        self._envelopes[envelope] = size, digest
        self._on_body(envelope, body)
        unevenness = chi_square(body)
        self._unevenness = max(self._unevenness, unevenness)
        if unevenness > CHI_SQUARE_MAX:
            bodies.fail(where, f"its body does not look like ciphertext: chi-square {unevenness:,.0f} over 255 degrees")
        for name, part in (("key commitment", body[COMMITMENT]), ("nonce", body[NONCE])):
            if self._heads.setdefault(part, envelope) != envelope:
                bodies.fail(where, f"has the {name} of another envelope: a key used again is no secret of one message")
