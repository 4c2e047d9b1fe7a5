"""The simulator at scale: devices and messages over simulated days, in minutes and memory of this machine.

One process plays a scenario with `crypto = "sized"` (docs/scenarios.md): one company, everybody with one device, chats
and mails of stated sizes, few absences, no faults, the network without losses; people act on a grid of 30 seconds, so
that messages of one moment are worked on together, as a busy relay does. Every message is submitted, receipted,
delivered and acknowledged by the relay's real core; every receipt's path is verified. A run that loses or doubles
anything has no figures.

CPU is of this process. The peak of memory is the process's, so one round belongs to each run.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.charts import Chart, bars_of
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.machine import facts, versions
from benchmarks.progress import progress
from benchmarks.report import Report, new_report
from benchmarks.running import command_line, finish, guarded, parser_of
from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.scenario.scenario import Scenario, from_toml

__all__ = ["charts", "main", "scenario_of"]

_REPLY_SHARE: Final = 0.3
_SPARE: Final = 1.15
"""So much more is meant to be written: whoever is away writes nothing, and weekends are quiet; `messages_max` cuts."""
_WEEK: Final = (1.0 + 1.0 + 1.0 + 1.0 + 0.9 + 0.3 + 0.25) / 7
_SCENARIO: Final = """
name = "scale"
start = 2015-11-02
days = {days}
settle_hours = 1

[relay]
redeliver_most_s = 3600

[[jurisdiction]]
name = "Here"

[[tenant]]
domain = "here.example"
jurisdiction = "Here"
people = {devices}

[people]
step_s = 30
contacts = 5
offline_share = 0.05
offline_hours = 48
abrupt_share = 0.0

[traffic]
chats_per_day = {chats}
mails_per_day = {mails}
mail_recipients = 1.0
reply_share = {reply_share}
messages_max = {messages}
mail_bytes = {{ distribution = "lognormal", median_bytes = 1500, sigma = 1.0, most_bytes = 65536 }}

[[assert]]
check = "no-receipted-envelope-lost"

[[assert]]
check = "none-delivered-twice"

[[assert]]
check = "arrived"
at_least = 1.0
"""


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("simulate", __doc__ or "", rounds=1)
    parser.add_argument("--devices", type=int, default=100_000, help="one a person (default 100000)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="written at most (default 1000000)")
    parser.add_argument("--days", type=int, default=30, help="simulated (default 30)")
    return parser


def scenario_of(devices: int, messages: int, days: int) -> Scenario:
    """The scenario that is measured: five chats for each mail, until so many are written."""
    begun = _SPARE * messages * (1 - _REPLY_SHARE) / devices / days / _WEEK
    text = _SCENARIO.format(
        days=days,
        devices=devices,
        messages=messages,
        chats=round(begun * 5 / 6, 4),
        mails=round(begun / 6, 4),
        reply_share=_REPLY_SHARE,
    )
    return from_toml(text)


def _main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    scenario = scenario_of(options.devices, options.messages, options.days)
    report = new_report("simulate", command_line("simulate", argv), options.seed, facts(), versions())
    for number in range(options.rounds):
        _round(report, scenario, options.seed + number)
    report.notes.append(
        "each message: look-up at a first contact, submit, receipt with its path verified, delivery, ack; bodies are "
        "random bytes; people act on a grid of 30 s; links are sealed with a stand-in; lists, prekeys and commits are "
        "signed, and what this process has signed it does not verify"
    )
    return finish(report, charts(report), options.out)


def _round(report: Report, scenario: Scenario, seed: int) -> None:
    begins_s = scenario.start.unix_s
    with tempfile.TemporaryDirectory(prefix="blindpost-benchmark-") as scratch, progress(int(scenario.days)) as bar:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        days = [0]

        def on_hour(now_s: int) -> None:
            day = (now_s - begins_s) // 86_400
            if day > days[0]:
                days[0] = day
                bar.step(f"day {day}")
                bar.done()

        outcome = run(scenario, Path(scratch), seed=seed, progress=on_hour)
        took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    _add(report, scenario, outcome, took_s, cpu_s)


def _add(report: Report, scenario: Scenario, outcome: Outcome, took_s: float, cpu_s: float) -> None:
    failed = [f"{one.check}: {one.found}" for one in outcome.checks if not one.held]
    if failed:
        raise LostOrDoubled("; ".join(failed))
    messages = outcome.ledger.messages
    name = f"{outcome.devices:,} devices, {scenario.days:g} days"
    case = report.case(name, devices=outcome.devices, days=scenario.days)
    case.add("messages", "messages", "", messages)
    case.add("took", "s", "less", took_s)
    case.add("CPU", "s", "less", cpu_s)
    case.add("CPU a message", "µs", "less", 1e6 * cpu_s / messages)
    case.add("peak memory", "MiB", "less", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)
    case.add("simulated time", "times real time", "more", scenario.days * 86_400 / took_s)


def charts(report: Report) -> list[Chart]:
    """The pictures of the page."""
    return [
        bars_of(report.cases, "took", "how long the whole run took", marks=[(300.0, "5 minutes")]),
        bars_of(report.cases, "peak memory", "peak memory of the process", marks=[(4_096.0, "4 GiB")]),
    ]
