"""Fairness: what the others wait while somebody is loud, dead or huge.

A few people write to each other at a steady rate (an open loop: latency counts from when a message was due). Beside
them runs nothing; or one device that sends as fast as it can; or recipients that are linked and never acknowledge, so
that all that they were sent is sent again and again; or one device that comes back to a full mailbox. The figures are
of the steady people alone. All of it shares the machine, so the loud one also takes processor time from them: that part
no queue can give back.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.charts import Chart, bars_of
from benchmarks.histogram import Histogram
from benchmarks.load.job import Job
from benchmarks.load.process import Loads, running
from benchmarks.machine import facts, versions
from benchmarks.progress import progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of
from benchmarks.servers import BROKERS, RelayServer, missing_broker, relay_server

__all__ = ["main"]

_PEOPLE = 8
_DEAD = 8
# A mailbox holds 10,000 by default.
_HUGE = 9_000
_LOUD_WINDOW = 4_000


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("fairness", __doc__ or "", rounds=3)
    parser.add_argument("--transport", default="nats", help=f"{', '.join(BROKERS)} (default nats)")
    parser.add_argument(
        "--rate", type=float, default=200.0, help="messages a second of the steady people (default 200)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round (default 4)")
    parser.add_argument("--loud", type=int, default=80_000, help="messages of the loud sender (default 80000)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions(("mosquitto", "nats-server"))
    report = new_report("fairness", command_line("fairness", argv), options.seed, machine, found)
    if (reason := missing_broker(options.transport)) is not None:
        report.skipped.append(Skipped(options.transport, reason))
        return finish(report, [], options.out)
    cases = [
        (report.case(name, beside=name), beside)
        for name, beside in (
            ("nobody else", None),
            ("a loud sender", lambda relay, seed: _loud(relay, seed, options.loud)),
            ("dead recipients", _dead),
            ("a huge mailbox", _huge),
        )
    ]
    with progress(options.rounds * len(cases)) as bar:
        for number in range(options.rounds):
            for case, beside in cases:
                bar.step(f"{case.name}, round {number + 1}")
                with (
                    tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder,
                    relay_server(Path(folder), options.transport) as relay,
                ):
                    _round(case, relay, options.rate, options.seconds, options.seed + number, beside)
                bar.done()
    return finish(report, charts(report), options.out)


def charts(report: Report) -> list[Chart]:
    """p99 of the steady people, by who is beside them."""
    return [
        bars_of(report.cases, f"{kind} p99", f"Submit to {kind}, p99 of eight people, by who is beside them")
        for kind in ("receipt", "delivery")
    ]


Beside = Callable[[RelayServer, int], "Iterator[threading.Thread | None]"]


def _round(case: Case, relay: RelayServer, rate_per_s: float, seconds: float, seed: int, beside: Beside | None) -> None:
    job = _job(relay, f"steady{seed}", seed, messages=int(rate_per_s * seconds), senders=_PEOPLE, recipients=_PEOPLE)
    job.rate_per_s = rate_per_s
    job.senders_a_link = job.devices_a_link = 1
    with running([job], _ignore) as steady, contextmanager(beside or _nobody)(relay, seed) as busy:
        steady.phase("submit", "submitted")
        # A neighbour that was done before the round was over was one for a part of it only: that is said.
        case.add("neighbour was there to the end", "", "", float(busy is None or busy.is_alive()))
        steady.phase("drain", "drained")
        (result,) = steady.phase("finish", "finished")
        if busy is not None:
            busy.join()
    for what, pairs in (("receipt", result.receipt_us), ("delivery", result.delivery_us)):
        histogram = Histogram.from_pairs(pairs)
        for name, percentile in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)):
            case.add(f"{what} {name}", "ms", "less", histogram.at(percentile) / 1_000)
    case.add("refused and repeated", "", "less", float(sum(result.refusals.values())))


def _job(relay: RelayServer, name: str, seed: int, *, messages: int, senders: int, recipients: int) -> Job:
    return Job(
        name=name,
        broker=relay.url,
        relay_id=relay.card.relay_id.hex(),
        relay_key=relay.card.signing_key.hex(),
        admin_seed=relay.admin.seed.hex(),
        seed=seed,
        messages=messages,
        senders=senders,
        recipients=recipients,
    )


def _ignore(_: int) -> None:
    """The bar counts rounds."""


def _nobody(relay: RelayServer, seed: int) -> Iterator[threading.Thread | None]:
    yield None


def _loud(relay: RelayServer, seed: int, messages: int) -> Iterator[threading.Thread | None]:
    """One device on one link, with so much under way that the relay must refuse it."""
    job = _job(relay, f"loud{seed}", seed, messages=messages, senders=1, recipients=20)
    job.window = _LOUD_WINDOW
    job.envelopes_a_frame = 64
    with running([job], _ignore) as loud:
        yield _meanwhile(loud, ("submit", "submitted"), ("drain", "drained"), ("finish", "finished"))


def _dead(relay: RelayServer, seed: int) -> Iterator[threading.Thread | None]:
    """Recipients that get everything and never say so."""
    job = _job(relay, f"dead{seed}", seed, messages=1_000 * _DEAD, senders=4, recipients=_DEAD)
    job.envelopes_a_frame = 64
    job.acknowledge, job.linger = False, True
    with running([job], _ignore) as dead:
        dead.phase("submit", "submitted")
        yield None
        dead.phase("drain", "drained")
        dead.phase("finish", "finished")


def _huge(relay: RelayServer, seed: int) -> Iterator[threading.Thread | None]:
    """A device that comes back to a full mailbox."""
    job = _job(relay, f"huge{seed}", seed, messages=_HUGE, senders=4, recipients=1)
    job.envelopes_a_frame = 64
    job.online = False
    with running([job], _ignore) as huge:
        huge.phase("submit", "submitted")
        yield _meanwhile(huge, ("drain", "drained"), ("finish", "finished"))


def _meanwhile(loads: Loads, *phases: tuple[str, str]) -> threading.Thread:
    def run() -> None:
        for word, reached in phases:
            loads.phase(word, reached)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
