"""`blindpost simulate --swarm` and `--all-bugs`: random scenarios against invariants, and what is said of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import write_new
from blindpost.proving.shown import progress_bar

if TYPE_CHECKING:
    from sim.scenario.scenario import Scenario
    from sim.swarm.swarm import Finding

__all__ = ["hunt_all", "judge_one", "swarm"]

_SAID_MAX: Final = 3


def swarm(trials: int, minutes: float, seed: int, bug: str, out: Path | None) -> int:
    """Run random scenarios; with a bug, look for it. 0 if nothing fails, or if the planted bug was found."""
    from sim.swarm.swarm import run_swarm

    _check_bug(bug)
    with progress_bar("swarm") as told:
        report = run_swarm(trials, 60 * minutes, seed=seed, bug=bug, progress=told)
    print(
        f"{report.trials} of {report.wanted} scenarios from seed {seed} on, {report.messages} messages, "
        f"{report.receipted} envelopes with a receipt, {report.faults} faults, {report.seconds:.0f} s"
    )
    for finding in report.findings:
        _show(finding, out)
    if report.findings:
        _say_where(out)
    if bug:
        print(f"{bug}: {'found' if report.findings else 'NOT FOUND'}")
        return ExitStatus.OK if report.findings else ExitStatus.NOT_BLIND
    if report.findings:
        return ExitStatus.NOT_BLIND
    print("every invariant held")
    # What was not run was not tried.
    return ExitStatus.OK if report.trials == report.wanted else ExitStatus.INCOMPLETE


def hunt_all(trials: int, minutes: float, seed: int, out: Path | None) -> int:
    """Look for every planted bug, each in an equal share of the time. 0 only if all are found."""
    from sim.swarm.bugs import BUGS
    from sim.swarm.swarm import run_swarm

    missed = 0
    print(f"{'bug':32} {'seed':>5}  {'runs':>4}  {'shrunk to':42}  breaks")
    with progress_bar("bugs") as told:
        for name, bug in BUGS.items():
            report = run_swarm(trials, 60 * minutes / len(BUGS), seed=seed, bug=name, progress=told)
            if not report.findings:
                missed += 1
                print(f"{name:32} NOT FOUND in {report.trials} runs")
                continue
            finding = report.findings[0]
            size = ", ".join(f"{count} {what}" for what, count in finding.shrunk_size.items())
            print(f"{name:32} {finding.seed:5}  {report.trials:4}  {size:42}  {bug.breaks.value}")
            _write(finding, out)
    print(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs found; each seed passes without its bug")
    _say_where(out)
    return ExitStatus.NOT_BLIND if missed else ExitStatus.OK


def judge_one(scenario: "Scenario", bug: str) -> int:
    """Run one scenario under the swarm's invariants, such as one that was shrunk. 0 if all hold."""
    from sim.swarm.bugs import planted
    from sim.swarm.trial import judge

    _check_bug(bug)
    with planted(bug):
        trial = judge(scenario)
    print(f"{trial.messages} messages, {trial.receipted} envelopes with a receipt, {trial.faults} faults")
    for violation in trial.violations:
        print(f"  {violation.invariant.value}: {violation.what}")
    if not trial.violations:
        print("every invariant held")
    return ExitStatus.NOT_BLIND if trial.violations else ExitStatus.OK


def _check_bug(bug: str) -> None:
    from sim.swarm.bugs import BUGS

    if bug and bug not in BUGS:
        raise CommandError(f"--bug {bug} is not planted", f"one of {', '.join(BUGS)}", ExitStatus.USAGE)


def _show(finding: "Finding", out: Path | None) -> None:
    size = ", ".join(f"{count} {what}" for what, count in finding.size.items())
    smaller = ", ".join(f"{count} {what}" for what, count in finding.shrunk_size.items())
    print(f"\nseed {finding.seed} fails: {size}")
    for violation in finding.violations[:_SAID_MAX]:
        print(f"  {violation.invariant.value}: {violation.what}")
    print(f"  again:  {finding.command}")
    print(f"  shrunk to {smaller}, in {finding.shrink_runs} runs")
    if out is None:
        print("\n" + finding.toml)
    _write(finding, out)


def _write(finding: "Finding", out: Path | None) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / (f"{finding.bug}-{finding.seed}.toml" if finding.bug else f"swarm-{finding.seed}.toml")
    write_new(path, finding.toml.encode(), secret=False)


def _say_where(out: Path | None) -> None:
    if out is not None:
        print(f"{out}: the shrunk scenarios; run one with  blindpost simulate FILE --judge [--bug NAME]")
