"""Two ways to send: a closed loop, which finds the capacity, and an open one, which finds the latency at a stated rate.

Closed: each sender keeps at most a window of envelopes unacknowledged; what is free goes out in frames of the wanted
number of envelopes. Open: envelopes are due at the times of a schedule that does not wait for anything, and latency
counts from when an envelope was *due*, so that a relay that stalls is charged for all that it kept waiting (no
coordinated omission). How late the load itself handed envelopes to the broker is recorded beside it.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.load.ledger import Ledger
from benchmarks.load.link import LoadLink
from benchmarks.load.parties import Mail, Party
from wire.codec import encode
from wire.commands import Submit

__all__ = ["Outgoing", "closed_loop", "make_outgoing", "open_loop", "schedule"]

# Below the frame limit of 256 KiB with room for the seal and the commands' own bytes.
_FRAME_BYTES_MAX = 250_000
# How long the pacer sleeps at least: shorter naps would cost more CPU than they gain in precision.
_NAP_S = 0.0002


@dataclass(slots=True)
class Outgoing:
    """One submit, encoded and written down."""

    link: LoadLink
    sender: int
    ref: int
    encoded: bytes
    places: tuple[int, ...]


def make_outgoing(ledger: Ledger, link: LoadLink, sender: int, recipient: Party, mails: Sequence[Mail]) -> Outgoing:
    """Encode one submit of one sender to one recipient."""
    ref = link.take_ref()
    places = tuple(ledger.add(mail) for mail in mails)
    ledger.submitting(link, ref, places)
    encoded = encode(Submit(ref, recipient.account, recipient.list_hash, tuple(mail.envelope for mail in mails)))
    return Outgoing(link, sender, ref, encoded, places)


class _Frames:
    """Gathers submits of one link into frames."""

    def __init__(self, link: LoadLink, envelopes: int) -> None:
        self.link = link
        self.envelopes = envelopes
        self.frames = 0
        self._commands: list[tuple[int, bytes]] = []
        self._held = 0
        self._bytes = 0

    def put(self, outgoing: Outgoing) -> None:
        """Add one; a full frame leaves."""
        if self._commands and self._bytes + len(outgoing.encoded) > _FRAME_BYTES_MAX:
            self.leave()
        self._commands.append((outgoing.ref, outgoing.encoded))
        self._held += len(outgoing.places)
        self._bytes += len(outgoing.encoded)
        if self._held >= self.envelopes:
            self.leave()

    def leave(self) -> None:
        """Send what there is."""
        if self._commands:
            self.link.send(self._commands)
            self.frames += 1
            self._commands, self._held, self._bytes = [], 0, 0


async def closed_loop(
    ledger: Ledger, work: Sequence[Sequence[Outgoing]], window: int, envelopes: int, progress: Callable[[int], None]
) -> int:
    """Send everything and wait for the receipts; returns how many frames that took.

    Args:
        ledger: keeps the account.
        work: what each sender sends, in order; a sender uses one link.
        window: envelopes that a sender may have unacknowledged.
        envelopes: envelopes a frame.
        progress: told of the receipts so far, now and then.
    """
    queues = [deque(one) for one in work]
    senders: dict[LoadLink, list[int]] = {}
    for sender, queue in enumerate(queues):
        if queue:
            senders.setdefault(queue[0].link, []).append(sender)
    lanes = [_Lane(link, members, queues, window, envelopes, ledger) for link, members in senders.items()]
    lane_of = {sender: lane for lane in lanes for sender in lane.members}
    sender_of = {place: one.sender for sender in work for one in sender for place in one.places}
    total = len(sender_of)
    finished = asyncio.Event()
    woken: dict[_Lane, None] = {}
    loop = asyncio.get_running_loop()

    def run() -> None:
        for lane in list(woken):
            lane.send()
        woken.clear()

    def on_receipted(place: int) -> None:
        sender = sender_of[place]
        lane = lane_of[sender]
        lane.free[sender] += 1
        lane.under_way -= 1
        # Once for all receipts of this packet, after the last of them.
        if not woken:
            loop.call_soon(run)
        woken[lane] = None
        if ledger.receipted_count >= base + total:
            finished.set()
        if not ledger.receipted_count & 511:
            progress(ledger.receipted_count)

    base = ledger.receipted_count
    ledger.on_receipted = on_receipted
    try:
        for lane in lanes:
            lane.send()
        if total:
            await finished.wait()
    finally:
        ledger.on_receipted = None
    return sum(lane.frames.frames for lane in lanes)


class _Lane:
    """The senders of one link, in turn."""

    def __init__(
        self,
        link: LoadLink,
        members: list[int],
        queues: list[deque[Outgoing]],
        window: int,
        envelopes: int,
        ledger: Ledger,
    ) -> None:
        self.members = members
        self.frames = _Frames(link, envelopes)
        self.free = dict.fromkeys(members, window)
        self.under_way = 0
        self._queues = queues
        self._turn = deque(members)
        self._ledger = ledger

    def send(self) -> None:
        """Fill frames from the senders that may send, one envelope each in turn."""
        while True:
            chosen = self._choose()
            if chosen is None:
                return
            for outgoing in chosen:
                self._ledger.sent += len(outgoing.places)
                self.under_way += len(outgoing.places)
                self.frames.put(outgoing)
            self.frames.leave()

    def _choose(self) -> list[Outgoing] | None:
        """The submits of the next whole frame; None while too few senders may send."""
        chosen: list[Outgoing] = []
        held = idle = 0
        while held < self.frames.envelopes and idle < len(self._turn):
            sender = self._turn[0]
            self._turn.rotate(-1)
            queue = self._queues[sender]
            if queue and self.free[sender] >= len(queue[0].places):
                outgoing = queue.popleft()
                self.free[sender] -= len(outgoing.places)
                held += len(outgoing.places)
                chosen.append(outgoing)
                idle = 0
            else:
                idle += 1
        if not chosen:
            return None
        if held < self.frames.envelopes and self.under_way and any(self._queues[sender] for sender in self.members):
            # Wait for receipts rather than send a half-empty frame.
            for outgoing in reversed(chosen):
                self._queues[outgoing.sender].appendleft(outgoing)
                self.free[outgoing.sender] += len(outgoing.places)
            return None
        return chosen


def schedule(rate_per_s: float, count: int, rng: random.Random) -> list[int]:
    """When each of `count` envelopes is due, in ns from the start: independent arrivals at that rate (Poisson)."""
    due_s = 0.0
    times = []
    for _ in range(count):
        due_s += rng.expovariate(rate_per_s)
        times.append(int(due_s * 1e9))
    return times


class _Pacer(threading.Thread):
    """Wakes the loop when something is due: the loop's own timers are whole milliseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._loop = loop
        self._wake = wake
        self._due_ns: int | None = None
        self._set = threading.Event()
        self._ended = False

    def wake_at(self, due_ns: int) -> None:
        """Wake the loop at that time of the monotonic clock."""
        self._due_ns = due_ns
        self._set.set()

    def end(self) -> None:
        """End the thread."""
        self._ended = True
        self._set.set()
        self.join()

    def run(self) -> None:
        """The thread."""
        while True:
            self._set.wait()
            self._set.clear()
            if self._ended:
                return
            assert self._due_ns is not None
            time.sleep(max(_NAP_S, (self._due_ns - time.monotonic_ns()) / 1e9))
            self._loop.call_soon_threadsafe(self._wake)


async def open_loop(
    ledger: Ledger, work: Sequence[Outgoing], due_ns: Sequence[int], envelopes: int, progress: Callable[[int], None]
) -> tuple[int, list[int]]:
    """Send each submit when it is due, whatever has been answered; returns the start and how late each was sent, in ns.

    Args:
        ledger: keeps the account.
        work: the submits, in the order of the schedule.
        due_ns: when each is due, from the start.
        envelopes: envelopes a frame at most: what is due at once and of one link shares frames.
        progress: told of the receipts so far, now and then.
    """
    frames = {id(one.link): _Frames(one.link, envelopes) for one in work}
    finished = asyncio.Event()
    late_ns: list[int] = []
    position = 0
    expected = ledger.receipted_count + sum(len(one.places) for one in work)

    def on_receipted(_: int) -> None:
        if ledger.receipted_count >= expected:
            finished.set()
        if not ledger.receipted_count & 511:
            progress(ledger.receipted_count)

    def send() -> None:
        nonlocal position
        now_ns = time.monotonic_ns()
        while position < len(work) and start_ns + due_ns[position] <= now_ns:
            outgoing = work[position]
            late_ns.append(now_ns - start_ns - due_ns[position])
            ledger.sent += len(outgoing.places)
            frames[id(outgoing.link)].put(outgoing)
            position += 1
        for one in frames.values():
            one.leave()
        if position < len(work):
            pacer.wake_at(start_ns + due_ns[position])

    ledger.on_receipted = on_receipted
    pacer = _Pacer(asyncio.get_running_loop(), send)
    pacer.start()
    try:
        start_ns = time.monotonic_ns()
        send()
        if work:
            await finished.wait()
    finally:
        ledger.on_receipted = None
        pacer.end()
    return start_ns, late_ns
