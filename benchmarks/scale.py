"""Scale: what a message costs while a thousand to a million envelopes and mailboxes are stored.

The store is filled before the relay starts (benchmarks/filling.py: real rows, commits and signatures, 400-byte bodies);
then the usual load of `benchmarks relay` runs beside what lies there. Flat means that cost and throughput do not depend
on what is stored. Memory is measured, and so is how long the relay takes to start.
"""

import tempfile
from pathlib import Path

from benchmarks.charts import Chart, Lines
from benchmarks.filling import fill
from benchmarks.load.job import Job
from benchmarks.load.process import running
from benchmarks.machine import facts, versions
from benchmarks.processes import memory_of, usage_of
from benchmarks.progress import Bar, progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of, words_of
from benchmarks.servers import BROKERS, RelayServer, missing_broker, relay_server

__all__ = ["main"]

_ENVELOPES_A_MAILBOX = 10


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("scale", __doc__ or "", rounds=3)
    levels = ["1000", "10000", "100000", "1000000"]
    parser.add_argument("--envelopes", type=words_of, default=levels, help=f"stored (default {','.join(levels)})")
    parser.add_argument("--mailboxes", type=words_of, default=levels, help="registered, with 1,000 envelopes stored")
    parser.add_argument("--transport", default="nats", help=f"{', '.join(BROKERS)} (default nats)")
    parser.add_argument("--frame", type=int, default=64, help="envelopes a frame (default 64)")
    parser.add_argument("--messages", type=int, default=20_000, help="of the load, in each round (default 20000)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions(("mosquitto", "nats-server"))
    report = new_report("scale", command_line("scale", argv), options.seed, machine, found)
    if (reason := missing_broker(options.transport)) is not None:
        report.skipped.append(Skipped(options.transport, reason))
        return finish(report, [], options.out)
    points = [("envelopes", int(one), max(1, int(one) // _ENVELOPES_A_MAILBOX)) for one in options.envelopes]
    points += [("mailboxes", min(1_000, int(one)), int(one)) for one in options.mailboxes]
    with progress(len(points) * options.rounds) as bar:
        for what, envelopes, mailboxes in points:
            stored = envelopes if what == "envelopes" else mailboxes
            case = report.case(f"{stored:,} {what}", stored=what, envelopes=envelopes, mailboxes=mailboxes)
            with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
                bar.step(f"{case.name}: filling the store")

                def filled(home: Path, mailboxes: int = mailboxes, envelopes: int = envelopes) -> None:
                    fill(home, mailboxes, envelopes, signed=False)

                with relay_server(Path(folder), options.transport, fill=filled) as relay:
                    case.add("start to ready", "s", "less", relay.ready_s)
                    for number in range(options.rounds):
                        bar.step(f"{case.name}, round {number + 1}")
                        _round(case, relay, options.messages, options.frame, options.seed + number, bar)
                        bar.done()
    return finish(report, charts(report), options.out)


def _round(case: Case, relay: RelayServer, messages: int, frame: int, seed: int, bar: Bar) -> None:
    job = Job(
        name=f"l{seed}",
        broker=relay.url,
        relay_id=relay.card.relay_id.hex(),
        relay_key=relay.card.signing_key.hex(),
        admin_seed=relay.admin.seed.hex(),
        seed=seed,
        messages=messages,
        senders=20,
        recipients=min(1_000, messages),
        envelopes_a_frame=frame,
    )
    with running([job], lambda done: bar.within(done, messages)) as loads:
        before = usage_of(relay.server.pid)
        loads.phase("submit", "submitted")
        loads.phase("drain", "drained")
        used = usage_of(relay.server.pid) - before
        memory = memory_of(relay.server.pid)
        (result,) = loads.phase("finish", "finished")
    seconds = (max(result.delivered_ns, result.submitted_ns) - result.submit_start_ns) / 1e9
    case.add("receipted and delivered", "/s", "more", messages / seconds)
    case.add("relay CPU", "µs/message", "less", used.cpu_s * 1e6 / messages)
    case.add("written to disk", "bytes/message", "less", used.written_bytes / messages)
    case.add("relay memory, RSS", "MiB", "less", memory["rss_kib"] / 1_024)
    case.add("relay memory, PSS", "MiB", "less", memory["pss_kib"] / 1_024)


def charts(report: Report) -> list[Chart]:
    """Cost and memory over what is stored."""
    found: list[Chart] = []
    for metric, title in (
        ("relay CPU", "Relay CPU for each message, over what is stored"),
        ("receipted and delivered", "Messages a second, over what is stored"),
        ("relay memory, RSS", "Memory of the relay (RSS), over what is stored"),
    ):
        series = {
            f"stored {what}": [
                (float(case.dimensions[what]), case.metrics[metric].median, case.metrics[metric].rounds)
                for case in report.cases
                if case.dimensions["stored"] == what
            ]
            for what in ("envelopes", "mailboxes")
        }
        drawn = {name: points for name, points in series.items() if points}
        if drawn:
            unit = next(case.metrics[metric].unit for case in report.cases)
            found.append(Lines(title, "envelopes or mailboxes stored", unit, drawn))
    return found
