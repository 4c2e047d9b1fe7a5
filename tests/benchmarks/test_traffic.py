"""How the load sends: never more than the window, whole frames, and latency from when a message was due."""

import asyncio
import io
import random
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.load.job import Said
from benchmarks.load.ledger import Ledger, LostOrDoubled
from benchmarks.load.link import LoadLink
from benchmarks.load.process import LoadFailed, Loads
from benchmarks.load.traffic import Outgoing, closed_loop, open_loop, schedule
from benchmarks.load.worker import encode_line


class Relay:
    """A link and a ledger in one, that answers when it is told to."""

    def __init__(self, answer_after_s: Callable[[], float]) -> None:
        self.sent = 0
        self.receipted_count = 0
        self.receipted_ns: dict[int, int] = {}
        self.on_receipted: Callable[[int], None] | None = None
        self.frames: list[int] = []
        self.most_under_way = 0
        self.under_way: dict[int, int] = {}
        self.most_of_a_sender = 0
        self.work: dict[int, Outgoing] = {}
        self._answer_after_s = answer_after_s

    def outgoing(self, sender: int, ref: int) -> Outgoing:
        self.work[ref] = Outgoing(cast(LoadLink, self), sender, ref, b"x" * 100, (ref,))
        return self.work[ref]

    def send(self, commands: Sequence[tuple[int, bytes]]) -> None:
        self.frames.append(len(commands))
        for ref, _ in commands:
            sender = self.work[ref].sender
            self.under_way[sender] = self.under_way.get(sender, 0) + 1
        self.most_of_a_sender = max(self.most_of_a_sender, *self.under_way.values())
        asyncio.get_running_loop().call_later(self._answer_after_s(), self._answer, [ref for ref, _ in commands])

    def _answer(self, refs: list[int]) -> None:
        for ref in refs:
            self.under_way[self.work[ref].sender] -= 1
            self.receipted_count += 1
            self.receipted_ns[ref] = time.monotonic_ns()
            assert self.on_receipted is not None
            self.on_receipted(ref)


def nothing(_: int) -> None:
    """No progress is shown."""


@pytest.mark.parametrize(("window", "envelopes"), [(1, 1), (4, 1), (8, 3), (4, 64), (64, 64)])
async def test_closed_loop_sends_everything_and_keeps_to_the_window(window: int, envelopes: int) -> None:
    rng = random.Random(1)
    relay = Relay(lambda: rng.random() / 1_000)
    work = [[relay.outgoing(sender, sender * 100 + number) for number in range(37)] for sender in range(5)]
    async with asyncio.timeout(10):
        frames = await closed_loop(cast(Ledger, relay), work, window, envelopes, nothing)
    assert relay.receipted_count == relay.sent == 5 * 37
    assert relay.most_of_a_sender <= window
    assert frames == len(relay.frames)
    assert max(relay.frames) <= envelopes
    if envelopes <= 5 * window:
        # Frames are whole but for the last ones.
        assert relay.frames[0] == envelopes


async def test_stalled_relay_is_charged_for_all_that_waited() -> None:
    stalled_until = time.monotonic() + 0.3
    relay = Relay(lambda: max(0.0, stalled_until - time.monotonic()))
    work = [relay.outgoing(0, ref) for ref in range(300)]
    due_ns = [number * 1_000_000 for number in range(300)]
    async with asyncio.timeout(10):
        start_ns, late_ns = await open_loop(cast(Ledger, relay), work, due_ns, 64, nothing)
    latencies_ms = sorted((relay.receipted_ns[ref] - start_ns - due_ns[ref]) / 1e6 for ref in range(300))
    # Sending went on while nothing was answered: half of the messages waited for half of the stall, at least.
    assert latencies_ms[150] > 100
    assert latencies_ms[-1] > 250
    assert len(late_ns) == 300
    assert min(late_ns) >= 0


def test_schedule_has_the_rate_and_repeats_with_its_seed() -> None:
    times = schedule(1_000, 20_000, random.Random(3))
    assert times == sorted(times)
    assert times[-1] / 1e9 == pytest.approx(20, rel=0.05)
    assert times == schedule(1_000, 20_000, random.Random(3))


@pytest.mark.parametrize(
    ("failed", "kind"), [("LostOrDoubled: 1 of 2 envelopes arrived", LostOrDoubled), ("OSError: no", LoadFailed)]
)
def test_failure_of_a_load_process_fails_the_run(failed: str, kind: type[Exception]) -> None:
    lines = [encode_line(Said(progress=512)), encode_line(Said(failed=failed))]
    process = SimpleNamespace(stdin=io.StringIO(), stdout=iter(lines))
    seen: list[int] = []
    with pytest.raises(kind, match=failed.partition(": ")[2]):
        Loads([cast("Any", process)], seen.append).phase("submit", "submitted")
    assert seen == [512]
    assert process.stdin.getvalue() == "submit\n"


def test_load_process_that_ends_without_a_word_fails_the_run() -> None:
    process = SimpleNamespace(stdin=io.StringIO(), stdout=iter([]))
    with pytest.raises(LoadFailed, match="too early"):
        Loads([cast("Any", process)], nothing).phase("drain", "drained")
