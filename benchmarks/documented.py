"""docs/performance.md and the reference results agree, because the tables are made from the results.

    python -m benchmarks.documented          writes the tables anew, from benchmarks/results/

A table stands between `<!-- table NAME -->` and `<!-- end -->`; the text around it is written by people. A test
compares the page with the results, so that neither can change alone.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.mqtt import AIOMQTT, RELAY_ALONE
from benchmarks.report import Case, Report
from benchmarks.tables import figure

__all__ = ["PAGE", "RESULTS", "main", "with_tables"]

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_PLACE = re.compile(r"(<!-- table (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NONE = "–"

Results = dict[str, Report]


def main(argv: list[str]) -> int:
    """Write the tables; returns the exit status."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), read_results()), encoding="utf-8")
    return 0


def read_results() -> Results:
    """The reference results, by benchmark."""
    return {path.stem: Report.read(path) for path in sorted(RESULTS.glob("*.json"))}


def with_tables(page: str, results: Results) -> str:
    """The page with its tables made from the results."""

    def made(place: re.Match[str]) -> str:
        name = place["name"]
        # `latency` is of the relay's result; `machine`, `commands` and `targets` are of all that there are.
        needed = {"latency": "relay", "machine": "relay", "commands": "", "targets": ""}.get(name, name)
        table = _TABLES[name](results) if not needed or needed in results else "not measured yet"
        return f"{place[1]}{table}\n{place[3]}"

    return _PLACE.sub(made, page)


# ---- the tables


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(' --- ' for _ in heads)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cell(case: Case, metric: str) -> str:
    return figure(case.metrics[metric].median) if metric in case.metrics else _NONE


def _metrics(cases: Sequence[Case], heads: dict[str, str], first: str) -> str:
    rows = [[case.name, *(_cell(case, metric) for metric in heads.values())] for case in cases]
    return _table([first, *heads], rows)


def _machine(results: Results) -> str:
    report = results["relay"]
    wanted = ("processor", "cores", "memory_mib", "system", "file_system")
    rows = [[name.replace("_", " "), str(report.machine[name])] for name in wanted]
    # Which versions took part: the union over all results, since each names what it used.
    found = {name: version for one in results.values() for name, version in one.versions.items()}
    rows += [["versions", ", ".join(f"{name} {version}" for name, version in sorted(found.items()))]]
    return _table(["", ""], rows)


def _commands(results: Results) -> str:
    rows = [
        [
            f"`{name}.json`",
            f"`{report.command}`",
            report.started[:10],
            figure(report.took_s / 60) if report.took_s else _NONE,
            str(report.machine.get("load_before", _NONE)),
        ]
        for name, report in results.items()
    ]
    return _table(["result", "command", "day", "minutes", "load average before"], rows)


_RELAY = {
    "receipted/s": "receipted",
    "delivered/s": "delivered",
    "relay CPU, µs": "relay CPU",
    "broker CPU, µs": "broker CPU",
    "load busy, %": "load busy while submitting",
    "written, bytes": "written to disk",
    "envelopes a commit": "envelopes a commit",
    "flushes/1000": "fsync and fdatasync",
    "RSS, MiB": "relay memory, RSS",
}


def _relay(results: Results) -> str:
    cases = [case for case in results["relay"].cases if case.dimensions.get("rate_per_s", 1) == 0]
    return _metrics(cases, _RELAY, "case")


def _latency(results: Results) -> str:
    rows = []
    percentiles = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
    for case in results["relay"].cases:
        for kind, found in case.percentiles.items():
            at = dict(found)
            rows.append([case.name, kind, *(figure(at[one]) if one in at else _NONE for one in percentiles)])
    return _table(["case", "ms from when it was due", "p50", "p90", "p99", "p99.9", "p99.99", "most"], rows)


_PEERS = {
    "accepted/s": "accepted",
    "drained/s": "drained",
    "CPU accepting, ms": "server CPU, accepting",
    "CPU draining, ms": "server CPU, draining",
    "load busy accepting, %": "load busy, accepting",
    "flushes/1000 accepted": "flushes, accepting",
    "flushes/1000 drained": "flushes, draining",
}


def _peers(results: Results) -> str:
    report = results["peers"]
    rows = [
        [case.name, str(case.dimensions["synced"]), *(_cell(case, metric) for metric in _PEERS.values())]
        for case in report.cases
    ]
    rows += [[one.name, f"not measured: {one.reason}", *(_NONE for _ in _PEERS)] for one in report.skipped]
    return _table(["peer", "on disk when acknowledged", *_PEERS], rows)


_MQTT = {"messages/s": "moved", "CPU, µs": "CPU", "broker CPU, µs": "broker CPU", "load busy, %": "load busy"}


def _mqtt(results: Results) -> str:
    return _metrics(results["mqtt"].cases, _MQTT, "through Mosquitto")


_GATEWAY = {
    "receipted/s": "receipted",
    "gateway CPU, µs": "gateway CPU",
    "ratchet, µs": "ratchet, encrypt",
    "ratchet's share, %": "ratchet's share of the CPU",
    "drained/s": "drained",
    "CPU draining, µs": "gateway CPU, drain",
}


def _gateway(results: Results) -> str:
    return _metrics(results["gateway"].cases, _GATEWAY, "broker, text, submit")


def _store(results: Results) -> str:
    heads = {
        "envelopes/s": "committed",
        "a commit, ms": "a commit takes",
        "CPU, µs": "CPU",
        "written, bytes": "written to disk",
        "read, µs": "read",
    }
    return _metrics(results["store"].cases, heads, "store")


def _scale(results: Results) -> str:
    heads = {
        "messages/s": "receipted and delivered",
        "relay CPU, µs": "relay CPU",
        "RSS, MiB": "relay memory, RSS",
        "start to ready, s": "start to ready",
    }
    return _metrics(results["scale"].cases, heads, "stored")


def _audit(results: Results) -> str:
    heads = {"time, s": "time", "CPU, µs an envelope": "CPU", "MB/s": "disclosure read", "RSS, MiB": "most memory, RSS"}
    return _metrics(results["audit"].cases, heads, "disclosed")


def _fairness(results: Results) -> str:
    names = ("receipt p50", "receipt p99", "delivery p50", "delivery p99", "delivery p99.9")
    return _metrics(results["fairness"].cases, {f"{name}, ms": name for name in names}, "beside the others")


def _soak(results: Results) -> str:
    (case,) = results["soak"].cases
    rows = []
    for name, metric in case.metrics.items():
        first, last = figure(metric.rounds[0]), figure(metric.rounds[-1])
        rows.append([f"{name}, {metric.unit}", first, last, figure(max(metric.rounds))])
    return _table([case.name, "first slice", "last slice", "most"], rows)


def _ratchet(results: Results) -> str:
    cases = [case for case in results["ratchet"].cases if "ping-pong" in case.metrics]
    return _metrics(
        cases, {"encrypt, µs": "encrypt", "decrypt, µs": "decrypt", "ping-pong, µs": "ping-pong"}, "ratchet"
    )


def _simulate(results: Results) -> str:
    heads = {
        "messages": "messages",
        "took, s": "took",
        "CPU, s": "CPU",
        "CPU, µs a message": "CPU a message",
        "memory, MiB": "peak memory",
        "times real time": "simulated time",
    }
    return _metrics(results["simulate"].cases, heads, "simulated")


# ---- the targets


def _targets(results: Results) -> str:
    rows = []
    for words, goal, more, found in _TARGETS:
        try:
            value = found(results)
        except (KeyError, StopIteration):
            rows.append([words, figure(goal), _NONE, "not measured"])
            continue
        met = value >= goal if more else value <= goal
        rows.append([words, figure(goal), figure(value), "met" if met else "**missed**"])
    return _table(["target", "wanted", "measured", ""], rows)


def _of(results: Results, benchmark: str, case: str, metric: str) -> float:
    return next(one for one in results[benchmark].cases if one.name == case).metrics[metric].median


def _relay_of(frame: int, metric: str) -> Callable[[Results], float]:
    return lambda results: _of(results, "relay", f"nats, {frame} a frame, 1 KiB", metric)


def _at_half(percentile: float) -> Callable[[Results], float]:
    """Latency at half the capacity; for p99 what one flush costs is taken off, as the target says."""

    def found(results: Results) -> float:
        cases = results["relay"].cases
        case = next(one for one in cases if one.name.startswith("nats, 1 a frame, 1 KiB, open loop"))
        value = dict(case.percentiles["submit to receipt"])[percentile]
        flush = next(one for one in cases if one.name.startswith("one flush"))
        return value - (flush.metrics["p99"].median if percentile > 50 else 0.0)

    return found


def _times_aiomqtt(results: Results) -> float:
    relay, alone = (_of(results, "mqtt", name, "moved") for name in (RELAY_ALONE, AIOMQTT))
    return relay / alone


def _against(name: str, metric: str, ours: str = "Blindpost, nats, behind gateways") -> Callable[[Results], float]:
    return lambda results: _of(results, "peers", ours, metric) / _of(results, "peers", name, metric)


_SYNCED = (
    "RabbitMQ, quorum queues, one node",
    "RabbitMQ, durable classic queues",
    "NATS JetStream R1, sync always",
    "Prosody, SQLite",
    "Synapse (to-device), SQLite",
    "Synapse (to-device), SQLite, up to 32 a request",
)
_POSTGRES = "PostgreSQL as a queue, 64 rows a commit"

_SIMULATED = "100,000 devices, 30 days"

_TARGETS: list[tuple[str, float, bool, Callable[[Results], float]]] = [
    ("receipted/s, NATS, one envelope a frame", 25_000, True, _relay_of(1, "receipted")),
    ("receipted/s, NATS, 64 a frame", 40_000, True, _relay_of(64, "receipted")),
    ("receipted/s, NATS, 64 a frame, stretch", 60_000, True, _relay_of(64, "receipted")),
    ("relay CPU µs a message, one a frame", 36, False, _relay_of(1, "relay CPU")),
    ("relay CPU µs a message, 64 a frame", 20, False, _relay_of(64, "relay CPU")),
    ("relay CPU µs a message, one a frame, stretch", 30, False, _relay_of(1, "relay CPU")),
    ("relay CPU µs a message, 64 a frame, stretch", 12, False, _relay_of(64, "relay CPU")),
    ("over plain MQTT, a frame for each step, times what aiomqtt alone moves", 0.75, True, _times_aiomqtt),
    (
        "chats/s encrypted, padded, sealed by one gateway process",
        5_000,
        True,
        lambda results: _of(results, "gateway", "mosquitto, 200 bytes, 1 a submit", "receipted"),
    ),
    ("submit to receipt at half the capacity, p50, ms", 3, False, _at_half(50.0)),
    ("the same, p99 beyond one flush, ms", 15, False, _at_half(99.0)),
    *((f"accepted, times {name}", 1, True, _against(name, "accepted")) for name in _SYNCED),
    *((f"drained, times {name}", 1, True, _against(name, "drained")) for name in _SYNCED),
    *((f"CPU accepting, times {name}", 1, False, _against(name, "server CPU, accepting")) for name in _SYNCED),
    *((f"CPU draining, times {name}", 1, False, _against(name, "server CPU, draining")) for name in _SYNCED),
    (
        "simulating 100,000 devices, 1,000,000 messages and 30 days, s",
        300,
        False,
        lambda results: _of(results, "simulate", _SIMULATED, "took"),
    ),
    ("the same, memory, MiB", 4_096, False, lambda results: _of(results, "simulate", _SIMULATED, "peak memory")),
    ("accepted, times PostgreSQL, stretch", 1, True, _against(_POSTGRES, "accepted")),
    (
        "drained, times PostgreSQL with connections kept, stretch",
        1,
        True,
        _against(f"{_POSTGRES}, connections kept", "drained"),
    ),
    (
        "accepted on disk, times Mosquitto from memory, stretch",
        1,
        True,
        _against("Mosquitto, QoS 1, persistent sessions", "accepted"),
    ),
]

_TABLES: dict[str, Callable[[Results], str]] = {
    "machine": _machine,
    "commands": _commands,
    "targets": _targets,
    "relay": _relay,
    "latency": _latency,
    "peers": _peers,
    "mqtt": _mqtt,
    "gateway": _gateway,
    "store": _store,
    "scale": _scale,
    "audit": _audit,
    "fairness": _fairness,
    "soak": _soak,
    "simulate": _simulate,
    "ratchet": _ratchet,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
