"""The peers' work, and the account of it: the same for every peer.

So many messages of random bytes from some senders to recipients that are all away, at most a window of messages
unacknowledged by the peer for each sender; then every recipient connects and takes what is its own. The acknowledgement
is the strongest that the peer has. Every message must arrive once, whole, at its recipient, or the run fails.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.load.ledger import LostOrDoubled

__all__ = ["Account", "Outcome", "Peer", "Watch", "Work", "within"]

MARK_BYTES = 16
STEP_S_MAX = 900.0
"""A step of the slowest peer takes a minute; on a machine that does much else, ten."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much of it."""

    messages: int = 20_000
    message_bytes: int = 1_024
    senders: int = 20
    recipients: int = 1_000
    window: int = 64
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """What one round measured. CPU is the server's, all its processes together; the load's own stands beside it."""

    accept_s: float
    drain_s: float
    accept_cpu_s: float
    drain_cpu_s: float
    load_accept_cpu_s: float
    load_drain_cpu_s: float
    accept_flushes: int = 0
    """fsync and fdatasync, where the round was watched for them."""
    drain_flushes: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """What watches one round."""

    tell: Callable[[int], None]
    """Told how many are accepted."""
    prefix: tuple[str, ...] = ()
    """What runs the server's program, for a tracer."""
    flushes: Callable[[], int] = int
    """How many flushes the tracer has seen so far; 0 without one."""


class Peer(Protocol):
    """One peer in one setting."""

    name: str
    synced: str
    """Whether what it acknowledged is on the disk: `yes`, or `no` and where it is instead."""
    kind: int
    """0: ours, 1: synced before the acknowledgement, 2: not."""

    def missing(self) -> str | None:
        """Why it cannot be measured here."""

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """One round, with data in `folder`.

        Raises:
            LostOrDoubled: a message was lost, doubled or changed.
            ServerError: the server did not start or ended.
        """


class Account:
    """The messages of one round: who gets which, and what has arrived."""

    def __init__(self, work: Work) -> None:
        self.work = work
        rng = random.Random(work.seed)
        self.payloads = [os.urandom(work.message_bytes) for _ in range(work.messages)]
        order = list(range(work.recipients))
        rng.shuffle(order)
        self.recipient_of = [order[number % work.recipients] for number in range(work.messages)]
        self._place = {payload[:MARK_BYTES]: place for place, payload in enumerate(self.payloads)}
        self._arrived = bytearray(work.messages)
        self.arrived = 0
        self.complete = asyncio.Event()
        self.wanted = [0] * work.recipients
        for recipient in self.recipient_of:
            self.wanted[recipient] += 1

    def of_sender(self, sender: int) -> range:
        """The places of the messages that a sender sends."""
        return range(sender, self.work.messages, self.work.senders)

    def take(self, recipient: int, payload: bytes) -> None:
        """Write down one arrival.

        Raises:
            LostOrDoubled: it was not sent, or to another, or arrived before, or is changed.
        """
        place = self._place.get(payload[:MARK_BYTES], -1)
        if place < 0 or self.recipient_of[place] != recipient or self.payloads[place] != payload:
            raise LostOrDoubled("a message arrived that was not sent, was changed, or is another recipient's")
        if self._arrived[place]:
            raise LostOrDoubled("a message arrived twice")
        self._arrived[place] = 1
        self.arrived += 1
        if self.arrived == self.work.messages:
            self.complete.set()

    def close(self) -> None:
        """Check that everything arrived.

        Raises:
            LostOrDoubled: something did not.
        """
        if self.arrived != self.work.messages:
            raise LostOrDoubled(f"{self.arrived} of {self.work.messages} messages arrived")


async def within(
    steps: Sequence[Awaitable[object]], failure: "asyncio.Future[None]", seconds: float = STEP_S_MAX
) -> None:
    """Wait for all steps, or for the failure that a connection told of.

    Raises:
        TimeoutError: it took too long.
    """
    everything = asyncio.gather(*steps)
    done, _ = await asyncio.wait((everything, failure), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if failure in done:
        everything.cancel()
        await asyncio.gather(everything, return_exceptions=True)
        failure.result()
    if everything not in done:
        everything.cancel()
        await asyncio.gather(everything, return_exceptions=True)
        raise TimeoutError(f"the peer did not finish within {seconds:.0f} s")
    everything.result()
