"""Delivery: which envelope goes to its device when, again when not acked (protocol.md sections 6.3 and 6.4).

A mailbox has at most one subscription, of the link that asked last. It holds a queue of envelopes not sent yet and
those under way, in the order in which they were sent. One timer for each subscription: the oldest one under way plus
the pause, which doubles at each firing and starts anew at each ack.

Rules: never more under way than the credit, nor than `delivery_bytes_max` (but for one envelope); what is LEAVING,
GONE or expired is not sent; bodies come from the batch just committed, or through `take_reads` and `loaded`, and are
not kept. After `redeliver_whole_times` repeats without an ack only the lowest number is repeated: the device is
probably away.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import cast

from relay.core.capture import Captures
from relay.core.events import CoreConfig, CoreCounters, EnvelopeRow, Read
from relay.core.links import Link, Links
from relay.core.mailboxes import LIVE, Held, Mailbox
from wire.commands import Delivered

__all__ = ["Deliveries", "Subscription"]

# Smaller steps delay a repeat by no more than that.
_STEP_BACK_MS = 1_000


class Subscription:
    """Delivery of one mailbox to one link."""

    __slots__ = (
        "after",
        "again",
        "bytes_under_way",
        "credit",
        "deadline_ms",
        "ended",
        "link",
        "mailbox",
        "pause_ms",
        "queue",
        "repeats",
        "under_way",
    )

    def __init__(self, mailbox: Mailbox, link: Link, after: int, credit: int, pause_ms: int) -> None:
        self.mailbox = mailbox
        self.link = link
        self.after = after
        self.credit = credit
        self.queue: deque[Held] = deque()
        self.again: deque[Held] = deque()
        self.under_way: dict[int, tuple[Held, int, int]] = {}
        self.bytes_under_way = 0
        self.pause_ms = pause_ms
        self.repeats = 0
        self.deadline_ms = 0
        self.ended = False


class Deliveries:
    """All subscriptions of the relay."""

    def __init__(self, config: CoreConfig, counters: CoreCounters, links: Links, captures: Captures) -> None:
        self._config = config
        self._captures = captures
        self._counters = counters
        self._links = links
        self._ready: OrderedDict[Subscription, None] = OrderedDict()
        self._timers: list[tuple[int, int, Subscription]] = []
        self._timers_made = 0

    def subscribe(self, mailbox: Mailbox, link: Link, after: int, credit: int) -> None:
        """Deliver numbers above `after`; the same link may ask again, to move on or to change its credit."""
        old = mailbox.subscription
        sub = Subscription(mailbox, link, after, min(credit, self._config.credit_max), self._config.redeliver_first_ms)
        if old is not None:
            if old.link is link:
                # What is under way on this link stays so, or it would be sent twice at once.
                sub.under_way = {number: sent for number, sent in old.under_way.items() if number > after}
                sub.bytes_under_way = sum(size for _held, _sent_ms, size in sub.under_way.values())
            self.end(mailbox)
        mailbox.subscription = sub
        link.subscribed[mailbox.id] = None
        sub.queue.extend(
            held for held in mailbox.entries.values() if held.number > after and held.number not in sub.under_way
        )
        if sub.under_way:
            self._arm(sub, next(iter(sub.under_way.values()))[1] + sub.pause_ms)
        if sub.queue:
            self._ready[sub] = None

    def end(self, mailbox: Mailbox) -> None:
        """Stop delivering a mailbox."""
        sub = mailbox.subscription
        if sub is not None:
            # A timer may keep the object for a minute; not what it was to send.
            sub.ended = True
            sub.queue.clear()
            sub.again.clear()
            sub.under_way = {}
            sub.link.subscribed.pop(mailbox.id, None)
            self._ready.pop(sub, None)
            mailbox.subscription = None

    def _has_room(self, sub: Subscription, body_bytes: int) -> bool:
        under_way = len(sub.under_way)
        return under_way < sub.credit and (
            not under_way or sub.bytes_under_way + body_bytes <= self._config.delivery_bytes_max
        )

    def fresh(self, envelopes: Sequence[Held], rows: Sequence[EnvelopeRow], now_ms: int) -> None:
        """Envelopes were committed: send each at once if nothing is before it, and there is credit."""
        links, delivery_bytes_max = self._links, self._config.delivery_bytes_max
        outgoing_bytes_max = self._config.outgoing_bytes_max
        # Every message comes by here, so that `_has_room`, `_start` and `_send` are written out.
        for held, row in zip(envelopes, rows, strict=True):
            mailbox = held.mailbox
            sub = mailbox.subscription
            if sub is None or held.expiry * 1_000 <= now_ms:
                continue
            under_way, number, body_bytes = sub.under_way, held.number, held.body_bytes
            if (
                sub.queue
                or len(under_way) >= sub.credit
                or (under_way and sub.bytes_under_way + body_bytes > delivery_bytes_max)
                or links.outgoing_bytes >= outgoing_bytes_max
            ):
                sub.queue.append(held)
                self._ready[sub] = None
                continue
            under_way[number] = (held, now_ms, body_bytes)
            sub.bytes_under_way += body_bytes
            if not sub.deadline_ms:
                self._arm(sub, now_ms + sub.pause_ms)
            links.talk(sub.link).delivery(mailbox.id, Delivered(number, held.id, held.expiry, row.body))
            links.outgoing_bytes += body_bytes
            self._counters.deliveries += 1

    def _start(self, sub: Subscription, held: Held, now_ms: int) -> None:
        sub.under_way[held.number] = (held, now_ms, held.body_bytes)
        sub.bytes_under_way += held.body_bytes
        if not sub.deadline_ms:
            self._arm(sub, now_ms + sub.pause_ms)

    def _send(self, sub: Subscription, held: Held, body: bytes) -> None:
        self._links.talk(sub.link).delivery(held.mailbox.id, Delivered(held.number, held.id, held.expiry, body))
        self._links.outgoing_bytes += held.body_bytes
        self._counters.deliveries += 1

    def gone(self, envelopes: Iterable[Held]) -> None:
        """Envelopes are durably gone: acked, withdrawn, expired, closed. Their credit is free."""
        for held in envelopes:
            sub = held.mailbox.subscription
            if sub is None:
                continue
            sent = sub.under_way.pop(held.number, None)
            if sent is None:
                continue
            sub.bytes_under_way -= sent[2]
            sub.repeats = 0
            if sub.pause_ms != self._config.redeliver_first_ms:
                sub.pause_ms = self._config.redeliver_first_ms
                if sub.under_way:
                    self._arm(sub, next(iter(sub.under_way.values()))[1] + sub.pause_ms)
            if sub.queue:
                self._ready[sub] = None

    def restored(self, envelopes: Iterable[Held]) -> None:
        """A commit failed that would have erased these: they are to be delivered again, if they still were to be."""
        for held in envelopes:
            sub = held.mailbox.subscription
            if sub is None or held.state != LIVE or held.number <= sub.after:
                continue
            if held.number not in sub.under_way and held not in sub.queue:
                sub.queue.appendleft(held)
                self._ready[sub] = None

    # ---- reading bodies

    def has_reads(self) -> bool:
        """Tell whether a subscription waits for its turn, and what is read may be sent."""
        return bool(self._ready) and self._may_send()

    def _may_send(self) -> bool:
        return self._links.outgoing_bytes < self._config.outgoing_bytes_max

    def take_reads(self, now_ms: int, bytes_max: int) -> list[Read]:
        """Choose what to send next, up to so many bytes: mailboxes take turns of `read_turn_bytes`."""
        reads: list[Read] = []
        if not self._may_send():
            return reads
        budget = bytes_max
        ready = self._ready
        while ready and budget > 0:
            sub = ready.popitem(last=False)[0]
            turn = min(budget, self._config.read_turn_bytes)
            chosen, left = self._choose(sub, turn, now_ms)
            budget -= turn - left
            if chosen:
                reads.append(Read(tuple(held.seq for held in chosen), sub.mailbox.id, (sub, chosen)))
        return reads

    def _choose(self, sub: Subscription, budget: int, now_ms: int) -> tuple[list[Held], int]:
        chosen: list[Held] = []
        while sub.again and budget > 0:
            held = sub.again.popleft()
            if held.state == LIVE and held.number in sub.under_way and held.expiry * 1_000 > now_ms:
                budget -= held.body_bytes
                chosen.append(held)
        while sub.queue and budget > 0:
            held = sub.queue[0]
            if held.state != LIVE or held.expiry * 1_000 <= now_ms:
                # What is on its way out comes back only if that commit fails, and then through `restored`.
                sub.queue.popleft()
                continue
            if not self._has_room(sub, held.body_bytes):
                return chosen, budget
            sub.queue.popleft()
            budget -= held.body_bytes
            self._start(sub, held, now_ms)
            chosen.append(held)
        if sub.again or sub.queue:
            self._ready[sub] = None
        return chosen, budget

    def loaded(self, reads: list[tuple[Read, list[bytes | None]]], now_ms: int) -> None:
        """Send what was read, unless its envelope or its subscription went away meanwhile."""
        for read, bodies in reads:
            sub, chosen = cast("tuple[Subscription, list[Held]]", read.handle)
            for held, body in zip(chosen, bodies, strict=True):
                if sub.ended or held.state != LIVE or held.number not in sub.under_way:
                    continue
                if held.expiry * 1_000 <= now_ms:
                    continue
                if body is None:
                    self._counters.reads_missing += 1
                    continue
                # Move it to the end: `under_way` is in the order of sending.
                del sub.under_way[held.number]
                sub.under_way[held.number] = (held, now_ms, held.body_bytes)
                self._send(sub, held, body)
                if self._captures.on:
                    self._captures.delivered(sub.link, held, body, now_ms)

    # ---- time

    def _arm(self, sub: Subscription, deadline_ms: int) -> None:
        sub.deadline_ms = deadline_ms
        self._timers_made += 1
        heappush(self._timers, (deadline_ms, self._timers_made, sub))

    def set_back(self, by_ms: int) -> None:
        """The clock went back: what was timed by the old one is due as soon as it would have been.

        Without this, what was sent while the clock was an hour ahead is not repeated for an hour.
        """
        if by_ms < _STEP_BACK_MS:
            return
        self._timers = [(deadline_ms - by_ms, order, sub) for deadline_ms, order, sub in self._timers]
        for sub in {sub for _deadline_ms, _order, sub in self._timers if not sub.ended}:
            sub.deadline_ms -= by_ms
            sub.under_way = {
                number: (held, sent_ms - by_ms, size) for number, (held, sent_ms, size) in sub.under_way.items()
            }

    def tick(self, now_ms: int) -> None:
        """Repeat what was not acked in time."""
        while self._timers and self._timers[0][0] <= now_ms:
            deadline_ms, _order, sub = heappop(self._timers)
            if not sub.ended and deadline_ms == sub.deadline_ms:
                self._fire(sub, now_ms)

    def _fire(self, sub: Subscription, now_ms: int) -> None:
        sub.deadline_ms = 0
        if not sub.under_way:
            return
        oldest_ms = next(iter(sub.under_way.values()))[1]
        if oldest_ms + sub.pause_ms > now_ms:
            self._arm(sub, oldest_ms + sub.pause_ms)
            return
        if sub.repeats >= self._config.redeliver_whole_times:
            due = [sub.under_way[min(sub.under_way)][0]]
        else:
            due = [held for held, sent_ms, _size in sub.under_way.values() if sent_ms + sub.pause_ms <= now_ms]
        sub.again = deque(due)
        sub.repeats += 1
        sub.pause_ms = min(2 * sub.pause_ms, self._config.redeliver_most_ms)
        self._ready[sub] = None
        self._arm(sub, now_ms + sub.pause_ms)

    def next_deadline(self) -> int | None:
        """Return when the next timer fires; it may turn out to have nothing to do."""
        while self._timers and (self._timers[0][2].ended or self._timers[0][0] != self._timers[0][2].deadline_ms):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None
