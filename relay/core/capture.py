"""What an order has recorded as it passes: interception, or a pen register (docs/orders.md; protocol.md section 15.6).

The records are made here, from what has been committed or handed to a link, and wait in a bounded buffer until the
operator's process takes them: nothing of it goes to the relay's store, log or disk. Nobody who takes them: the caller
ends the capture, and what waits is forgotten.

    begin ─▶ covered, event, event, … ─take─▶ records          until its day, `end`, or another `begin` of its number

Rules: an event is recorded only after it was durable, and once; of mailboxes that the order covers, and of no others;
what does not fit the buffer is counted and said, in its place. A pen register never holds a body. `on` is false while
nothing is captured, and then nothing else here is asked.

Source: 18 USC 3121 ff. and the Wiretap Act ask for these two; what is recorded is what this relay knows, and no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from relay.core.docket import CAPTURED_KINDS, OrderKind, Scope
from relay.core.events import REASON_ACKED, REASON_CLOSED, EnvelopeRow, MailboxRow
from wire.capture import (
    BODY_EVENTS,
    CaptureBegan,
    CaptureCovered,
    CapturedEvent,
    CaptureEnded,
    CaptureEvent,
    CaptureLost,
    framed,
)
from wire.errors import FormatError

if TYPE_CHECKING:
    from relay.core.batch import Staged
    from relay.core.links import Link
    from relay.core.mailboxes import Held, Mailbox

__all__ = ["CAPTURED_BYTES_MAX", "CAPTURES_MAX", "Captures", "Taken"]

CAPTURES_MAX: Final = 8
CAPTURED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of records that wait to be taken, for each order."""
TAKEN_BYTES: Final = 8 * 1024 * 1024
"""As much is taken at once, and one record more."""


class Taken(NamedTuple):
    """What was captured since the last time.

    Args:
        data: records, each behind its length (wire/capture.py).
        through_ms: nothing before this is missing but what the records say.
        more: whether more waits.
        ended: why the capture has ended, and with this all of it was taken; empty: it goes on.
    """

    data: bytes
    through_ms: int
    more: bool
    ended: str


class _Capture:
    """One order's capture."""

    def __init__(self, number: int, kind: OrderKind, scope: Scope, until_s: int, now_ms: int) -> None:
        self.number = number
        self.bodies = kind is OrderKind.INTERCEPTION
        self.scope = scope
        self.until_ms = until_s * 1_000
        self.ended = ""
        self._records: deque[bytes] = deque()
        self._bytes = 0
        self._seq = 0
        self._lost = 0
        self._time_ms = now_ms
        self._put(framed(CaptureBegan(now_ms, until_s)))

    def pass_time(self, now_ms: int) -> int:
        """The time of what is recorded now: a clock that was put back dates nothing before what is there."""
        self._time_ms = max(self._time_ms, now_ms)
        return self._time_ms

    def cover(self, mailbox_id: bytes, device_key: bytes, now_ms: int) -> None:
        # A mailbox is never left unsaid, whatever the buffer holds: its events would be of nobody knows whom.
        self._put(framed(CaptureCovered(self.pass_time(now_ms), mailbox_id, device_key)))

    def event(self, event: CaptureEvent, devices: tuple[bytes, ...], held: Held, body: bytes, now_ms: int) -> None:
        time_ms = self.pass_time(now_ms)
        kept = body if self.bodies and event in BODY_EVENTS else b""
        seq = self._seq
        self._seq += 1
        if self._bytes + len(kept) > CAPTURED_BYTES_MAX:
            self._lost += 1
            return
        self._say_lost()
        self._put(
            framed(CapturedEvent(time_ms, seq, event, devices, held.mailbox.id, held.number, held.body_bytes, kept))
        )

    def _say_lost(self) -> None:
        if self._lost:
            self._put(framed(CaptureLost(self._time_ms, self._lost)))
            self._lost = 0

    def _put(self, data: bytes) -> None:
        self._records.append(data)
        self._bytes += len(data)

    def end(self, reason: str, now_ms: int) -> None:
        if not self.ended:
            self._say_lost()
            self._put(framed(CaptureEnded(self.pass_time(now_ms), reason)))
            self.ended = reason

    def take(self, bytes_max: int, now_ms: int) -> Taken:
        time_ms = self.pass_time(now_ms)
        taken = []
        size = 0
        while self._records and size < bytes_max:
            taken.append(self._records.popleft())
            size += len(taken[-1])
        self._bytes -= size
        more = bool(self._records)
        if not more and self._lost:
            self._say_lost()
            taken.append(self._records.pop())
            self._bytes -= len(taken[-1])
        return Taken(b"".join(taken), time_ms, more, "" if more else self.ended)


class Captures:
    """All captures at this relay, by the number of their order."""

    def __init__(self) -> None:
        self.on = False
        self._all: dict[int, _Capture] = {}
        self._by_mailbox: dict[bytes, list[_Capture]] = {}

    # ---- the operator

    def begin(
        self, number: int, kind: OrderKind, scope: Scope, until_s: int, mailboxes: Iterable[Mailbox], now_ms: int
    ) -> None:
        """Record what happens to these mailboxes from now on, and to those of the scope that are enrolled later.

        Another one under the same number ends, and what of it was not taken is forgotten.

        Raises:
            FormatError: the kind is none of this, its day has passed, or there are too many captures.
        """
        if kind not in CAPTURED_KINDS:
            raise FormatError("capture", f"{kind.value} is not about what passes")
        if until_s * 1_000 <= now_ms:
            raise FormatError("capture", "its day has passed", until_s)
        self.forget(number)
        if len(self._all) >= CAPTURES_MAX:
            raise FormatError("capture", f"{len(self._all)} go on already", CAPTURES_MAX)
        capture = self._all[number] = _Capture(number, kind, scope, until_s, now_ms)
        for mailbox in mailboxes:
            self._cover(capture, mailbox.id, mailbox.device_key, now_ms)
        self.on = True

    def take(self, number: int, bytes_max: int, now_ms: int) -> Taken:
        """Return what was recorded, at most so many bytes and one record; it is kept here no longer.

        A capture that has ended is forgotten when all of it was taken.

        Raises:
            FormatError: there is none of this number.
        """
        self.pass_time(now_ms)
        capture = self._all.get(number)
        if capture is None:
            raise FormatError("capture", f"nothing is captured for order {number}")
        taken = capture.take(bytes_max, now_ms)
        if taken.ended:
            self.forget(number)
        return taken

    def end(self, number: int, reason: str, now_ms: int) -> None:
        """End a capture; what waits can still be taken. None of this number: nothing happens."""
        capture = self._all.get(number)
        if capture is not None:
            capture.end(reason, now_ms)
            self._uncover(capture)

    def forget(self, number: int) -> None:
        """End a capture, and throw away what was not taken."""
        capture = self._all.pop(number, None)
        if capture is not None:
            self._uncover(capture)
        self.on = bool(self._all)

    def pass_time(self, now_ms: int) -> None:
        """End the captures whose day has passed."""
        for capture in self._all.values():
            if not capture.ended and capture.until_ms <= now_ms:
                capture.end("until", capture.until_ms)
                self._uncover(capture)

    def _cover(self, capture: _Capture, mailbox_id: bytes, device_key: bytes, now_ms: int) -> None:
        capture.cover(mailbox_id, device_key, now_ms)
        self._by_mailbox.setdefault(mailbox_id, []).append(capture)

    def _uncover(self, capture: _Capture) -> None:
        for mailbox_id in [one for one, captures in self._by_mailbox.items() if capture in captures]:
            self._by_mailbox[mailbox_id].remove(capture)
            if not self._by_mailbox[mailbox_id]:
                del self._by_mailbox[mailbox_id]

    # ---- what passes; asked only while `on`

    def committed(self, staged: Staged, now_ms: int) -> None:
        """A batch is durable. To be called before the mailboxes have moved what leaves."""
        self.pass_time(now_ms)
        self._enrolled(staged.batch.mailboxes, now_ms)
        self._stored(staged, now_ms)
        for held, reason, _seq, _key in staged.leaving:
            if held.mailbox.id in self._by_mailbox:
                link = staged.erasers.get(held)
                devices = link.device_keys if link is not None else ()
                event = CaptureEvent.ACKNOWLEDGED if reason == REASON_ACKED else CaptureEvent.WITHDRAWN
                self._event(CaptureEvent.CLOSED if reason == REASON_CLOSED else event, devices, held, b"", now_ms)
        for held in staged.expiring:
            if held.mailbox.id in self._by_mailbox and held.mailbox.tombstones.get(held.id) is not held:
                self._event(CaptureEvent.EXPIRED, (), held, b"", now_ms)

    def _enrolled(self, rows: Sequence[MailboxRow], now_ms: int) -> None:
        for row in rows:
            for capture in self._all.values():
                if not capture.ended and capture.scope.covers(row.mailbox, row.account):
                    self._cover(capture, row.mailbox, row.device_key, now_ms)

    def _stored(self, staged: Staged, now_ms: int) -> None:
        if not staged.fresh:
            return
        rows = staged.batch.envelopes
        fresh = set(staged.fresh)
        for link, _ref, kept in staged.submits:
            for held in kept:
                # One that is submitted twice before its commit is stored once.
                if held in fresh:
                    fresh.remove(held)
                    if held.mailbox.id in self._by_mailbox:
                        self._event(CaptureEvent.STORED, link.device_keys, held, rows[held.leaf].body, now_ms)

    def delivered_fresh(self, envelopes: Sequence[Held], rows: Sequence[EnvelopeRow], now_ms: int) -> None:
        """Envelopes were committed, and those for which there was room have been handed to their links."""
        for held, row in zip(envelopes, rows, strict=True):
            sub = held.mailbox.subscription
            if held.mailbox.id in self._by_mailbox and sub is not None and held.number in sub.under_way:
                self._event(CaptureEvent.DELIVERED, sub.link.device_keys, held, row.body, now_ms)

    def delivered(self, link: Link, held: Held, body: bytes, now_ms: int) -> None:
        """An envelope that was read from the store has been handed to a link."""
        self.pass_time(now_ms)
        if held.mailbox.id in self._by_mailbox:
            self._event(CaptureEvent.DELIVERED, link.device_keys, held, body, now_ms)

    def _event(self, event: CaptureEvent, devices: tuple[bytes, ...], held: Held, body: bytes, now_ms: int) -> None:
        for capture in self._by_mailbox[held.mailbox.id]:
            capture.event(event, devices, held, body, now_ms)
