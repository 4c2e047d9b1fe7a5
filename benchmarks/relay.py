"""The relay: durable receipted messages a second, latency at stated rates, and what each message costs.

The relay is a process of its own with SQLite on disk; so is its broker (amqtt excepted, which runs inside the relay),
and so is the load. Closed loop for the capacity: each sender keeps a window of envelopes unacknowledged. Open loop for
the latency: envelopes are due at independent times of a stated rate, and latency counts from when one was due (no
coordinated omission). Every receipt is verified and every body compared while the clock runs; a lost or doubled
envelope fails the run.

CPU is user and system time from /proc, from the first submit to the answer to the last ack: delivery and erasure are
in it. `load busy` says how much of one core the load itself used: near 100 % the load, not the relay, is the limit.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.charts import Bars, Chart, Curves, bars_of
from benchmarks.disk import flush_ms
from benchmarks.fsyncs import Counter, counting
from benchmarks.histogram import Histogram
from benchmarks.load.job import Job, LoadResult
from benchmarks.load.parties import body_bytes_for
from benchmarks.load.process import running
from benchmarks.machine import facts, versions
from benchmarks.processes import memory_of, usage_of
from benchmarks.progress import Bar, progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of, words_of
from benchmarks.servers import BROKERS, RelayServer, missing_broker, relay_server

__all__ = ["Setting", "main", "measure"]

Merged = dict[str, Histogram]
"""Latencies of all rounds so far, by case and kind."""

STORES = ("disk", "tmpfs")
_TMPFS = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it


@dataclass(frozen=True, slots=True)
class Setting:
    """One case."""

    transport: str = "nats"
    store: str = "disk"
    envelopes_a_frame: int = 1
    content_bytes: int = 1_024
    mailboxes: int = 1_000
    linked: int = 0
    """Devices that are linked and subscribed beside those of the load."""
    online: bool = True
    rate_per_s: float = 0.0

    @property
    def name(self) -> str:
        """The case's name, the same in every report."""
        size = f"{self.content_bytes} B" if self.content_bytes < 1_024 else f"{self.content_bytes // 1_024} KiB"
        words = [self.transport, f"{self.envelopes_a_frame} a frame", size]
        words += [] if self.store == "disk" else [self.store]
        words += [] if self.mailboxes == 1_000 else [f"{self.mailboxes} mailboxes"]
        words += [f"{self.linked} linked besides"] if self.linked else []
        words += [] if self.online else ["recipients away"]
        words += [f"open loop, {self.rate_per_s:.0f}/s"] if self.rate_per_s else []
        return ", ".join(words)

    @property
    def dimensions(self) -> dict[str, str | int | float]:
        """The case's dimensions, for the result's file."""
        return {
            "transport": self.transport,
            "store": self.store,
            "envelopes_a_frame": self.envelopes_a_frame,
            "content_bytes": self.content_bytes,
            "body_bytes": body_bytes_for(self.content_bytes),
            "mailboxes": self.mailboxes,
            "linked_besides": self.linked,
            "recipients": "online" if self.online else "away",
            "rate_per_s": self.rate_per_s,
        }


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("relay", __doc__ or "", rounds=3)
    parser.add_argument("--transports", type=words_of, default=["nats", "mosquitto", "amqtt"], help=", ".join(BROKERS))
    parser.add_argument("--frames", type=words_of, default=["1", "64"], help="envelopes a frame (default 1,64)")
    parser.add_argument("--content", type=words_of, default=["1024"], help="bytes of content (default 1024)")
    parser.add_argument("--stores", type=words_of, default=["disk"], help="disk, tmpfs: where the SQLite file is")
    parser.add_argument("--mailboxes", type=words_of, default=["1000"], help="recipients (default 1000)")
    parser.add_argument("--linked", type=words_of, default=["0"], help="devices linked besides (default 0)")
    parser.add_argument("--ways", type=words_of, default=["online"], help="online, away: the recipients meanwhile")
    parser.add_argument(
        "--rates",
        type=words_of,
        default=["half"],
        help="open loop at these messages a second, `half` of the capacity found, or `none` (default half)",
    )
    parser.add_argument("--messages", type=int, default=20_000, help="messages a round (default 20000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of an open loop's round (default 8)")
    parser.add_argument("--senders", type=int, default=20, help="senders of each load process (default 20)")
    parser.add_argument("--window", type=int, default=64, help="envelopes a sender has unacknowledged (default 64)")
    parser.add_argument("--load-processes", type=int, default=1, help="processes that make the load (default 1)")
    parser.add_argument("--count-fsyncs", action="store_true", help="one more round under a counter (needs cc)")
    return parser


def _main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    settings = _settings(options)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        report = new_report(
            "relay",
            command_line("relay", argv),
            options.seed,
            facts(Path(folder)),
            versions(("mosquitto", "nats-server")),
        )
        for broker in dict.fromkeys(setting.transport for setting in settings):
            if (reason := missing_broker(broker)) is not None:
                report.skipped.append(Skipped(broker, reason))
                settings = [setting for setting in settings if setting.transport != broker]
        _flush(report, Path(folder))
        rates = [rate for rate in options.rates if rate != "none"]
        bases = [one for one in settings if one == replace(settings[0], transport=one.transport)] if settings else []
        merged: Merged = {}
        steps = options.rounds * (len(settings) + len(rates) * len(bases)) + options.count_fsyncs * len(settings)
        with progress(steps) as bar:
            # Rounds take turns over the cases, so that a noisy neighbour meets all alike.
            for number in range(options.rounds):
                for setting in settings:
                    measure(report, setting, options, number, bar, merged)
            for base in bases:
                for rate in rates:
                    open_setting = replace(base, rate_per_s=_rate(report, base, rate))
                    for number in range(options.rounds):
                        measure(report, open_setting, options, number, bar, merged)
            if options.count_fsyncs:
                with counting(Path(folder)) as counter:
                    for setting in settings:
                        _count(report, setting, options, counter, bar)
    return finish(report, charts(report), options.out)


def _settings(options: argparse.Namespace) -> list[Setting]:
    """Transports by frames; then each further value of another dimension, with the rest as the first values are."""
    frames = [int(one) for one in options.frames]
    first = Setting(
        options.transports[0],
        options.stores[0],
        frames[0],
        int(options.content[0]),
        int(options.mailboxes[0]),
        int(options.linked[0]),
        options.ways[0] == "online",
    )
    found = [
        replace(first, transport=transport, envelopes_a_frame=frame)
        for transport in options.transports
        for frame in frames
    ]
    for frame in frames:
        base = replace(first, envelopes_a_frame=frame)
        found += [replace(base, content_bytes=int(one)) for one in options.content[1:]]
        found += [replace(base, store=one) for one in options.stores[1:]]
        found += [replace(base, mailboxes=int(one)) for one in options.mailboxes[1:]]
        found += [replace(base, linked=int(one)) for one in options.linked[1:]]
        found += [replace(base, online=one == "online") for one in options.ways[1:]]
    return found


def _rate(report: Report, base: Setting, rate: str) -> float:
    if rate != "half":
        return float(rate)
    capacity = report.case(base.name).metrics["receipted"].median
    # Rounded, so that the case keeps its name where the capacity is about the same.
    return max(100.0, round(capacity / 2, -3))


def _flush(report: Report, folder: Path) -> None:
    """What one flush to this disk costs: the floor of every latency."""
    case = report.case("one flush of 64 KiB to this disk", bytes=65_536)
    times = flush_ms(folder, 65_536, 200)
    case.metrics.clear()
    case.add("median", "ms", "less", median(times))
    case.add("p99", "ms", "less", sorted(times)[int(0.99 * len(times))])


# ---- one round


def measure(
    report: Report, setting: Setting, options: argparse.Namespace, number: int, bar: Bar, merged: Merged
) -> None:
    """Measure one round of one case into the report.

    Raises:
        LostOrDoubled: an envelope was lost or doubled.
    """
    bar.step(f"{setting.name}, round {number + 1}")
    with _served(setting, None) as relay:
        case = report.case(setting.name, **setting.dimensions)
        _round(case, relay, setting, options, options.seed + number, bar, merged)
    bar.done()


@contextmanager
def _served(setting: Setting, environment: dict[str, str] | None) -> Iterator[RelayServer]:
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        if setting.store == "disk":
            with relay_server(Path(folder), setting.transport, environment=environment) as relay:
                yield relay
            return
        with tempfile.TemporaryDirectory(prefix="blindpost-bench-", dir=_TMPFS) as memory:
            home = Path(memory) / "home"
            with relay_server(Path(folder), setting.transport, home, environment) as relay:
                yield relay


def _jobs(relay: RelayServer, setting: Setting, options: argparse.Namespace, seed: int) -> list[Job]:
    messages = int(setting.rate_per_s * options.seconds) if setting.rate_per_s else options.messages
    # Large bodies: fewer of them, the same bytes as 20,000 of 16 KiB at most.
    messages = min(messages, max(200, 20_000 * 16_384 // body_bytes_for(setting.content_bytes)))
    parts = options.load_processes
    return [
        Job(
            name=f"l{part}",
            broker=relay.url,
            relay_id=relay.card.relay_id.hex(),
            relay_key=relay.card.signing_key.hex(),
            admin_seed=relay.admin.seed.hex(),
            seed=seed * 1_000 + part,
            messages=messages // parts,
            senders=options.senders,
            recipients=max(1, setting.mailboxes // parts),
            idle_devices=setting.linked // parts,
            content_bytes=setting.content_bytes,
            envelopes_a_frame=setting.envelopes_a_frame,
            window=options.window,
            online=setting.online,
            rate_per_s=setting.rate_per_s / parts,
        )
        for part in range(parts)
    ]


def _round(
    case: Case,
    relay: RelayServer,
    setting: Setting,
    options: argparse.Namespace,
    seed: int,
    bar: Bar,
    merged: Merged,
) -> list[LoadResult]:
    jobs = _jobs(relay, setting, options, seed)
    total = sum(job.messages for job in jobs)
    with running(jobs, lambda done: bar.within(done, total)) as loads:
        before, counters = usage_of(relay.server.pid), relay.counters()
        broker_before = usage_of(relay.broker.pid) if relay.broker is not None else None
        loads.phase("submit", "submitted")
        memory = memory_of(relay.server.pid)
        loads.phase("drain", "drained")
        used = usage_of(relay.server.pid) - before
        broker_cpu_s = usage_of(relay.broker.pid).cpu_s - broker_before.cpu_s if relay.broker and broker_before else 0.0
        after = relay.counters()
        results = loads.phase("finish", "finished")
    sent = sum(result.sent for result in results)
    start_ns = min(result.submit_start_ns for result in results)
    submit_s = (max(result.submitted_ns for result in results) - start_ns) / 1e9
    drain_start_ns = min(result.first_delivery_start_ns for result in results)
    deliver_s = (max(result.delivered_ns for result in results) - drain_start_ns) / 1e9
    commits = after["commits"] - counters["commits"]
    case.add("receipted", "/s", "" if setting.rate_per_s else "more", sent / submit_s)
    case.add("delivered", "/s", "" if setting.rate_per_s else "more", sent / deliver_s)
    case.add("relay CPU", "µs/message", "less", used.cpu_s * 1e6 / sent)
    if relay.broker is not None:
        case.add("broker CPU", "µs/message", "less", broker_cpu_s * 1e6 / sent)
    load_cpu_s = sum(result.submit_cpu_s for result in results)
    case.add("load busy while submitting", "% of a core", "", 100 * load_cpu_s / submit_s / len(results))
    case.add("relay memory, RSS", "MiB", "less", memory["rss_kib"] / 1_024)
    case.add("relay memory, PSS", "MiB", "less", memory["pss_kib"] / 1_024)
    case.add("written to disk", "bytes/message", "less", used.written_bytes / sent)
    case.add("envelopes a commit", "", "", sent / commits)
    case.add("refused and repeated", "", "less", sum(sum(result.refusals.values()) for result in results))
    case.add("repeated without an answer", "", "less", sum(result.repeats for result in results))
    if setting.rate_per_s:
        _latencies(case, results, merged)
    busiest = max(result.submit_cpu_s for result in results) / submit_s
    if busiest > 0.9 and not any("load" in note for note in case.notes):
        case.notes.append("the load used more than 90 % of a core: the figures are a floor of what the relay can do")
    return results


def _latencies(case: Case, results: Sequence[LoadResult], merged: Merged) -> None:
    for kind, field in (
        ("submit to receipt", "receipt_us"),
        ("submit to delivery", "delivery_us"),
        ("late by the load's own fault", "late_us"),
    ):
        whole = Histogram()
        for result in results:
            whole.merge(Histogram.from_pairs(getattr(result, field)))
        for percentile in (50.0, 99.0):
            name = f"{kind}, p{percentile:g} of the round"
            case.add(name, "ms", "" if kind.startswith("late") else "less", whole.at(percentile) / 1_000)
        together = merged.setdefault(f"{case.name}: {kind}", Histogram())
        together.merge(whole)
        case.percentiles[kind] = [(percentile, value / 1_000) for percentile, value in together.rows()]


def _count(report: Report, setting: Setting, options: argparse.Namespace, counter: Counter, bar: Bar) -> None:
    """One more round, in which only flushes are counted: the counter slows what it counts."""
    bar.step(f"{setting.name}, counting flushes")
    scratch = Case(setting.name, {})
    with _served(setting, counter.environment) as relay:
        before = counter.count()
        results = _round(scratch, relay, setting, options, options.seed, bar, {})
        flushes = counter.count() - before
    report.case(setting.name).add(
        "fsync and fdatasync", "/1000 messages", "less", flushes * 1_000 / sum(result.sent for result in results)
    )
    bar.done()


# ---- the plot


def charts(report: Report) -> list[Chart]:
    """Throughput, CPU, and the latency curves; sizes of content stand apart, since one needs fifty times another."""
    closed = [case for case in report.cases if "rate_per_s" in case.dimensions and not case.dimensions["rate_per_s"]]
    found: list[Chart] = [
        bars_of(closed, "receipted", "Durable receipted messages a second, closed loop"),
    ]
    usual = Setting().content_bytes
    of_size = [case for case in closed if case.dimensions["content_bytes"] != usual]
    for cases, size in (([case for case in closed if case not in of_size], ""), (of_size, ", other sizes of content")):
        found.append(bars_of(cases, "relay CPU", f"Relay CPU for each message, delivery and ack included{size}"))
    curves = {
        case.name.replace(", open loop,", " at"): case.percentiles["submit to receipt"]
        for case in report.cases
        if "submit to receipt" in case.percentiles
    }
    if curves:
        found.append(Curves("Submit to receipt in an open loop, from when each message was due", "ms", curves))
    return [chart for chart in found if not isinstance(chart, Bars) or chart.rows]
