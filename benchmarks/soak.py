"""Soak: a steady rate for as long as is asked, in slices; what grows, and whether latency stays.

Each slice sends at the rate in an open loop, from new devices to new mailboxes, and everything is delivered and erased
before the next begins; what stays of a message is its tombstone, until its expiry. Slices are the rounds of the result:
memory, size of the store, CPU and latency of each.
"""

import tempfile
from pathlib import Path

from benchmarks.charts import Chart, Lines
from benchmarks.histogram import Histogram
from benchmarks.load.job import Job
from benchmarks.load.process import running
from benchmarks.machine import facts, versions
from benchmarks.processes import memory_of, usage_of
from benchmarks.progress import progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of
from benchmarks.servers import BROKERS, RelayServer, missing_broker, relay_server

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("soak", __doc__ or "", rounds=1)
    parser.add_argument("--minutes", type=float, default=10.0, help="of sending (default 10)")
    parser.add_argument("--slice-seconds", type=float, default=30.0, help="length of a slice (default 30)")
    parser.add_argument("--rate", type=float, default=4_000.0, help="messages a second (default 4000)")
    parser.add_argument("--transport", default="nats", help=f"{', '.join(BROKERS)} (default nats)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
        found = versions(("mosquitto", "nats-server"))
        report = new_report("soak", command_line("soak", argv), options.seed, machine, found)
        if (reason := missing_broker(options.transport)) is not None:
            report.skipped.append(Skipped(options.transport, reason))
            return finish(report, [], options.out)
        case = report.case(f"{options.transport}, {options.rate:.0f}/s", transport=options.transport, rate=options.rate)
        slices = max(1, round(options.minutes * 60 / options.slice_seconds))
        whole = Histogram()
        with relay_server(Path(folder), options.transport) as relay, progress(slices) as bar:
            for number in range(slices):
                bar.step(f"slice {number + 1}")
                messages = max(1, int(options.rate * options.slice_seconds))
                whole.merge(_slice(case, relay, number, messages, options.rate, options.seed + number))
                bar.done()
        case.percentiles["submit to receipt"] = [(percentile, value / 1_000) for percentile, value in whole.rows()]
    _growth(case)
    return finish(report, charts(report), options.out)


def _slice(case: Case, relay: RelayServer, number: int, messages: int, rate: float, seed: int) -> Histogram:
    job = Job(
        name=f"k{number}",
        broker=relay.url,
        relay_id=relay.card.relay_id.hex(),
        relay_key=relay.card.signing_key.hex(),
        admin_seed=relay.admin.seed.hex(),
        seed=seed,
        messages=messages,
        senders=20,
        recipients=min(200, messages),
        rate_per_s=rate,
    )
    with running([job], lambda done: None) as loads:
        before = usage_of(relay.server.pid)
        loads.phase("submit", "submitted")
        loads.phase("drain", "drained")
        used = usage_of(relay.server.pid) - before
        (result,) = loads.phase("finish", "finished")
    memory = memory_of(relay.server.pid)
    latencies = Histogram.from_pairs(result.receipt_us)
    sent = case.metrics["sent so far"].rounds[-1] if "sent so far" in case.metrics else 0.0
    case.add("sent so far", "messages", "", sent + messages)
    case.add("receipted", "/s", "", messages * 1e9 / (result.submitted_ns - result.submit_start_ns))
    case.add("relay CPU", "µs/message", "less", used.cpu_s * 1e6 / messages)
    case.add("relay memory, RSS", "MiB", "less", memory["rss_kib"] / 1_024)
    case.add("relay memory, PSS", "MiB", "less", memory["pss_kib"] / 1_024)
    case.add("store's files", "MiB", "less", _store_bytes(relay.home) / 2**20)
    case.add("submit to receipt, p50 of the slice", "ms", "less", latencies.at(50) / 1_000)
    case.add("submit to receipt, p99 of the slice", "ms", "less", latencies.at(99) / 1_000)
    return latencies


def _store_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("store.sqlite*"))


def _growth(case: Case) -> None:
    """What a message leaves behind in memory, from the first slice to the last."""
    sent, rss = case.metrics["sent so far"].rounds, case.metrics["relay memory, RSS"].rounds
    if len(sent) > 1:
        left = (rss[-1] - rss[0]) * 2**20 / (sent[-1] - sent[0])
        case.add("memory that a message leaves until its expiry", "bytes", "less", left)


def charts(report: Report) -> list[Chart]:
    """What grows over the run."""
    (case,) = report.cases
    sent = case.metrics["sent so far"].rounds
    found: list[Chart] = []
    for metrics, title in (
        (("relay memory, RSS", "store's files"), "Memory of the relay and size of its store, over messages sent"),
        (
            ("submit to receipt, p50 of the slice", "submit to receipt, p99 of the slice"),
            "Latency of each slice, over messages sent",
        ),
    ):
        series = {
            name: [(x, y, (y,)) for x, y in zip(sent, case.metrics[name].rounds, strict=True)] for name in metrics
        }
        found.append(Lines(title, "messages sent", case.metrics[metrics[0]].unit, series, logarithmic=False))
    return found
