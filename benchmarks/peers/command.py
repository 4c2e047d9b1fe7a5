"""Peers: the same work for our relay and for what a user would pick instead, side by side in one run.

20,000 messages of 1 KiB random bytes from 20 senders to 1,000 recipients that are all away, at most 64 unacknowledged a
sender, with the strongest acknowledgement that the peer has; then all recipients connect and take what is theirs. Every
message must arrive once and whole, or the run fails. Rounds take turns over the peers, so that a noisy neighbour meets
all alike: compare ratios of one run, not figures of two.

A peer that is not installed is skipped with the reason. CPU is that of all the server's processes; for ours, broker
included. `load busy` near 100 % of a core says that our client, not the server, was the limit.

Peers that take a minute for a round are measured once (`--slow-rounds`). Flushes are counted in a round of their own
with a tenth of the messages, under strace.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import fsyncs
from benchmarks.charts import Chart, bars_of
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.load.parties import body_bytes_for
from benchmarks.machine import facts, versions
from benchmarks.peers import rabbitmq
from benchmarks.peers.jetstream import JetStream
from benchmarks.peers.mosquitto import Mosquitto
from benchmarks.peers.ours import Blindpost
from benchmarks.peers.postgresql import PostgreSql
from benchmarks.peers.prosody import Prosody
from benchmarks.peers.synapse import ENVIRONMENT, Synapse, program_of, version_of
from benchmarks.peers.work import Outcome, Peer, Watch, Work
from benchmarks.processes import ServerError
from benchmarks.progress import progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of

__all__ = ["main"]

_PROGRAMS = ("mosquitto", "nats-server", "postgres", "prosodyctl")
_PACKAGES = ("msgspec", "PyNaCl", "uvloop", "nats-py", "psycopg")
_SYNAPSE_BATCH = 32
_SLOW = frozenset({"jetstream-sync", "jetstream-r3", "prosody-sqlite", "synapse"})
"""Peers that take most of a minute for a round."""
_COUNTED_SHARE = 10
"""Flushes are counted over a tenth of the messages: what counts them slows the servers."""


def peers(synapse: Path | None = None) -> dict[str, Peer]:
    """Every peer, by the name that `--only` takes.

    Args:
        synapse: the environment that Synapse is installed in; looked for when None.
    """
    return {
        "blindpost-gateways": Blindpost("nats", gateways=True),
        "blindpost-devices": Blindpost("nats", gateways=False),
        "blindpost-mosquitto": Blindpost("mosquitto", gateways=True),
        "postgresql": PostgreSql(kept=False),
        "postgresql-kept": PostgreSql(kept=True),
        "rabbitmq-quorum": rabbitmq.RabbitMq("quorum"),
        "rabbitmq-classic": rabbitmq.RabbitMq("classic"),
        "jetstream-sync": JetStream(sync_always=True),
        "prosody-sqlite": Prosody(sqlite=True),
        "synapse": Synapse(batch=1, environment=synapse),
        "synapse-batched": Synapse(batch=_SYNAPSE_BATCH, environment=synapse),
        "jetstream": JetStream(sync_always=False),
        "jetstream-r3": JetStream(sync_always=False, replicas=3),
        "prosody": Prosody(sqlite=False),
        "mosquitto": Mosquitto(),
    }


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("peers", __doc__ or "", rounds=3)
    usual = Work()
    parser.add_argument("--messages", type=int, default=usual.messages, help="default 20000")
    parser.add_argument("--bytes", type=int, default=usual.message_bytes, help="of a message (default 1024)")
    parser.add_argument("--senders", type=int, default=usual.senders, help="default 20")
    parser.add_argument("--recipients", type=int, default=usual.recipients, help="default 1000")
    parser.add_argument("--window", type=int, default=usual.window, help="unacknowledged a sender (default 64)")
    parser.add_argument(
        "--synapse",
        type=Path,
        metavar="DIR",
        help=f"environment of Python with matrix-synapse (default {ENVIRONMENT}, or synapse_homeserver on the path)",
    )
    parser.add_argument(
        "--slow-rounds", type=int, default=1, metavar="N", help=f"rounds of {', '.join(sorted(_SLOW))} (default 1)"
    )
    parser.add_argument(
        "--count-fsyncs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="one more, smaller round under strace (default: yes)",
    )
    parser.add_argument("--only", help=f"these, with commas between: {', '.join(peers())}")
    return parser


def _main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    known = peers(options.synapse)
    wanted = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in wanted if name not in known]:
        _parser().error(f"--only: unknown: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions(_PROGRAMS, _PACKAGES)
    if (rabbit := rabbitmq.version()) is not None:
        found["RabbitMQ"] = rabbit
    if (path := program_of(options.synapse)) is not None:
        found["matrix-synapse"] = version_of(path)
    report = new_report("peers", command_line("peers", argv), options.seed, machine, found)
    chosen: dict[Peer, int] = {}
    slow_rounds = max(1, min(options.slow_rounds, options.rounds))
    for name in wanted:
        peer = known[name]
        if (reason := peer.missing()) is None:
            chosen[peer] = slow_rounds if name in _SLOW else options.rounds
        else:
            report.skipped.append(Skipped(peer.name, reason))
    counted = options.count_fsyncs and fsyncs.missing_tracer() is None
    if options.count_fsyncs and not counted:
        report.skipped.append(Skipped("flushes", fsyncs.missing_tracer() or ""))
    with progress(sum(chosen.values()) + counted * len(chosen)) as bar:
        for number in range(options.rounds):
            for peer in (one for one, rounds in chosen.items() if number < rounds):
                work = _work(options, options.messages, number)
                bar.step(f"{peer.name}, round {number + 1}")
                outcome = _run(peer, work, Watch(lambda done: bar.within(done, options.messages)))
                _write_down(_case(report, peer, work), outcome, work)
                bar.done()
        for peer in chosen if counted else ():
            bar.step(f"{peer.name}, counting flushes")
            _count(report, peer, _work(options, max(options.messages // _COUNTED_SHARE, 1), 0))
            bar.done()
    return finish(report, charts(report), options.out)


def _run(peer: Peer, work: Work, watch: Watch) -> Outcome:
    """One round, with the peer's name on whatever went wrong."""
    try:
        with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as data:
            return peer.run(Path(data), work, watch)
    except LostOrDoubled as error:
        raise LostOrDoubled(f"{peer.name}: {error}") from error
    except (OSError, ServerError) as error:
        raise ServerError(f"{peer.name}: {str(error) or type(error).__name__}") from error


def _work(options: argparse.Namespace, messages: int, number: int) -> Work:
    return Work(messages, options.bytes, options.senders, options.recipients, options.window, options.seed + number)


def _count(report: Report, peer: Peer, work: Work) -> None:
    """A round in which only flushes are counted."""
    with fsyncs.tracing() as tracer:
        outcome = _run(peer, work, Watch(lambda done: None, tracer.prefix, tracer.count))
    case = report.case(peer.name)
    case.add("flushes, accepting", "/1000 messages", "less", outcome.accept_flushes * 1_000 / work.messages)
    case.add("flushes, draining", "/1000 messages", "less", outcome.drain_flushes * 1_000 / work.messages)


def _case(report: Report, peer: Peer, work: Work) -> Case:
    return report.case(
        peer.name,
        synced=peer.synced,
        kind=peer.kind,
        messages=work.messages,
        senders=work.senders,
        recipients=work.recipients,
        window=work.window,
        stored_bytes=body_bytes_for(work.message_bytes) if peer.kind == 0 else work.message_bytes,
    )


def _write_down(case: Case, outcome: Outcome, work: Work) -> None:
    count = work.messages
    case.add("accepted", "/s", "more", count / outcome.accept_s)
    case.add("drained", "/s", "more", count / outcome.drain_s)
    case.add("server CPU, accepting", "ms/message", "less", outcome.accept_cpu_s * 1_000 / count)
    case.add("server CPU, draining", "ms/message", "less", outcome.drain_cpu_s * 1_000 / count)
    case.add("load busy, accepting", "% of a core", "", 100 * outcome.load_accept_cpu_s / outcome.accept_s)
    case.add("load busy, draining", "% of a core", "", 100 * outcome.load_drain_cpu_s / outcome.drain_s)


def charts(report: Report) -> list[Chart]:
    """Accepted, drained, and CPU; colours tell ours, synced peers, and those that acknowledge from memory."""
    legend = ("ours, on disk", "on disk when acknowledged", "in memory when acknowledged")

    def kind_of(case: Case) -> int:
        return int(case.dimensions.get("kind", 1))

    titles = {
        "accepted": "Accepted messages a second",
        "drained": "Drained messages a second, all recipients connecting",
        "server CPU, accepting": "Server CPU for each message accepted",
        "server CPU, draining": "Server CPU for each message drained",
    }
    return [bars_of(report.cases, name, title, (), kind_of, legend) for name, title in titles.items()]
