"""`blindpost simulate`: a scenario in virtual time, one seed one run."""

import datetime
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command

if TYPE_CHECKING:
    from sim.engine.outcome import Outcome
    from sim.scenario.scenario import Scenario

__all__ = ["add_commands"]

_EXAMPLES = (
    "blindpost simulate --list",
    "blindpost simulate pakistan-2015 --out pakistan",
    "blindpost simulate bad-week --seed 7 --people 40",
    "blindpost simulate pakistan-2015 --set \"relay.protection = 'global-pin-key'\"",
    "blindpost simulate --swarm 1000 --minutes 10",
    "blindpost simulate --all-bugs --minutes 10",
)
_REPORT_FOLDER = "transparency-report"
_DAY_S = 86_400
_DESCRIPTION = (
    "Run a scenario (docs/scenarios.md): countries, companies, people, networks and disks that fail, orders, and what "
    "must hold. The relay is the real one, the time is not. The same seed gives the same run. Exit status 0 only if "
    "every assertion holds, 1 if one does not. With --out, DIR gets a timeline page, CSV files, a summary, every "
    "order's disclosure with its audit, the relay's public log, and the transparency report made from that. --swarm "
    "runs random scenarios with random faults against invariants instead, and prints and shrinks each seed that fails; "
    "--bug and --all-bugs show that planted bugs are found."
)


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "simulate",
        summary="run a scenario of orders, faults and people in virtual time",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
        run=_run,
    )
    parser.add_argument(
        "scenario", type=Path, nargs="?", metavar="SCENARIO", help="a TOML file, or the name of a shipped scenario"
    )
    parser.add_argument("--list", action="store_true", help="show the scenarios that are shipped")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="by what chance (default: the scenario's); of a swarm, the first (1)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new or empty directory for what comes of it")
    parser.add_argument("--people", type=int, metavar="N", help="the same companies with about so many people in all")
    parser.add_argument("--crypto", choices=("sized", "real"), help="instead of what the scenario says")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace one line of the scenario; may be repeated",
    )
    parser.add_argument("--judge", action="store_true", help="judge the scenario by the swarm's invariants")
    parser.add_argument("--swarm", type=int, metavar="N", help="run N random scenarios, of seeds one after the other")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="time for a swarm (default: 10)")
    parser.add_argument("--bug", default="", metavar="NAME", help="plant this bug: the swarm is to find it")
    parser.add_argument("--all-bugs", action="store_true", help="look for every planted bug, one after the other")


def _run(options: Options) -> int:
    from blindpost import swarm

    if options.list:
        return _list()
    if options.swarm is not None or options.all_bugs:
        return _run_swarm(options)
    if options.scenario is None:
        raise CommandError("which scenario?", "--list shows those that are shipped", ExitStatus.USAGE)
    scenario = _scenario(options)
    if options.judge:
        return swarm.judge_one(scenario, options.bug)
    if options.bug:
        raise CommandError("--bug needs --swarm or --judge", "", ExitStatus.USAGE)
    out = options.out
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"{out} is not an empty directory", "", ExitStatus.CANNOT_CREATE)
    if out is not None:
        return _simulate(scenario, options.seed, out, keep=True)
    with tempfile.TemporaryDirectory(prefix="blindpost-simulate-") as scratch:
        return _simulate(scenario, options.seed, Path(scratch), keep=False)


def _list() -> int:
    from sim.scenario.scenario import load
    from sim.scenarios import names, shipped

    for name in names():
        print(f"{name:16} {load(shipped(name)).title}")
    return ExitStatus.OK


def _run_swarm(options: Options) -> int:
    from blindpost import swarm

    trials = 200 if options.swarm is None else options.swarm
    seed = 1 if options.seed is None else options.seed
    if trials < 1 or options.minutes <= 0 or seed < 0 or options.scenario is not None:
        raise CommandError(
            "a swarm needs at least one scenario, some minutes, a seed from 0 on, and no file", "", ExitStatus.USAGE
        )
    if options.all_bugs:
        return swarm.hunt_all(trials, options.minutes, seed, options.out)
    return swarm.swarm(trials, options.minutes, seed, options.bug, options.out)


def _file_of(named: Path) -> Path:
    """A file that is there, or else a scenario that is shipped."""
    from sim.scenarios import names, shipped

    if not named.exists() and str(named) in names():
        return shipped(str(named))
    return named


def _scenario(options: Options) -> "Scenario":
    from msgspec.structs import replace

    from sim.scenario.base import ScenarioError
    from sim.scenario.scenario import load, scaled

    try:
        scenario = load(_file_of(options.scenario), options.set)
    except ScenarioError as error:
        raise CommandError(f"{options.scenario.name}: {error}", "see docs/scenarios.md", ExitStatus.DATA) from None
    except OSError as error:
        hint = "--list shows the scenarios that are shipped"
        raise CommandError(f"{options.scenario}: {error.strerror}", hint, ExitStatus.NO_INPUT) from None
    if options.people is not None:
        if options.people < 2:
            raise CommandError(f"--people {options.people} is fewer than 2", "", ExitStatus.USAGE)
        scenario = scaled(scenario, options.people)
    return scenario if options.crypto is None else replace(scenario, crypto=options.crypto)


def _simulate(scenario: "Scenario", seed: int | None, out: Path, *, keep: bool) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from sim.engine.run import run
    from sim.report.pages import write_report

    begins_s = scenario.start.unix_s
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[date]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(scenario.name, total=scenario.days * 86_400, date=str(scenario.start))

        def progress(now_s: int) -> None:
            date = datetime.datetime.fromtimestamp(now_s, datetime.UTC).strftime("%Y-%m-%d %H:%M")
            bar.update(task, completed=now_s - begins_s, date=date)

        outcome = run(scenario, out, seed=seed, progress=progress)
    if keep:
        write_report(outcome, out, _write_transparency(outcome, out))
    _show(outcome, Console(highlight=False, soft_wrap=True))
    if keep:
        print(f"\n{out}/timeline.html: what happened, on one page")
    return ExitStatus.OK if outcome.held else ExitStatus.NOT_BLIND


def _write_transparency(outcome: "Outcome", out: Path) -> str:
    """Make the transparency report of the simulated relay from its log alone; returns the page, empty if there is none.

    The period is that of the run. A log that does not hold gives no report: the timeline says what is wrong with it.
    """
    from audit.material import CARD_BYTES_MAX, read_card
    from audit.order_log import verify_log
    from blindpost.files import read_bounded, write_new
    from blindpost.transparency import files_of
    from relay.home import CARD_NAME
    from relay.logkey import LOG_FOLDER

    card = read_card(read_bounded(out / CARD_NAME, "relay card", CARD_BYTES_MAX), CARD_NAME)
    log = verify_log(out / LOG_FOLDER, card)
    if not log.holds:
        return ""
    folder = out / _REPORT_FOLDER
    folder.mkdir()
    first_s = outcome.scenario.start.unix_s // _DAY_S * _DAY_S
    last_s = outcome.log.readings[-1].at_s // _DAY_S * _DAY_S
    for name, data in files_of(log, first_s, last_s).items():
        write_new(folder / name, data, secret=False)
    return f"{_REPORT_FOLDER}/report.html"


def _show(outcome: "Outcome", console: "object") -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    scenario, ledger = outcome.scenario, outcome.ledger
    console.print(f"{scenario.name}: {scenario.title}" if scenario.title else scenario.name, style="bold", markup=False)
    console.print(
        f"{scenario.start} to {scenario.end}, seed {outcome.seed}, crypto {outcome.crypto}, "
        f"protection {scenario.relay.protection}; {outcome.people} people, {outcome.devices} devices",
        markup=False,
    )
    console.print(
        f"{ledger.messages} messages written, {ledger.total('receipted')} envelopes receipted, "
        f"{ledger.total('shown')} shown; at most {ledger.backlog_most} waited",
        markup=False,
    )
    faults = ", ".join(f"{kind} {count}" for kind, count in outcome.faults.items() if count)
    console.print(f"faults: {faults or 'none'}", markup=False)
    for happening in outcome.happenings:
        date = datetime.datetime.fromtimestamp(happening.at_s, datetime.UTC).strftime("%Y-%m-%d")
        console.print(f"  {date}  {happening.jurisdiction:12} {happening.what:12} {happening.text}", markup=False)
    for served in outcome.served:
        if served.disclosed is not None:
            found = f"{served.disclosed.verdict}, {served.disclosed.messages_read} contents read"
            console.print(f"  {served.order.id}: disclosure {found}", markup=False)
        if served.captured is not None:
            had = served.captured
            found = f"{had.envelopes} envelopes that came in; of {had.bodies} bodies {had.read} read"
            console.print(f"  {served.order.id}: captured {found}", markup=False)
    log = outcome.log
    state = "holds" if log.holds else "DOES NOT HOLD"
    console.print(
        f"  public log: {log.readings[-1].size} leaves, root {log.readings[-1].root[:16]}…; read {len(log.readings)} "
        f"times, {state}",
        markup=False,
    )
    console.print()
    for one in outcome.checks:
        style = "green" if one.held else "bold red"
        word = "holds" if one.held else "FAILS"
        console.print(f"  {word}  {one.check}: {one.about}: {one.found}", style=style, markup=False)
