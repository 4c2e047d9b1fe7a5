"""Many trials: seed after seed over all cores, within a time; what fails is run again, compared, and shrunk.

    report = run_swarm(1000, 600, seed=1)                         honest: no finding is what is wanted
    report = run_swarm(200, 60, seed=1, bug="text-in-log")        a planted bug: a finding is what is wanted

A trial of seed N is the same on any machine: seeds are handed out in order, and findings are sorted by seed. How many
fit into the time depends on the machine.
"""

import copy
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from sim.swarm.bugs import BUGS, planted
from sim.swarm.generate import Tree, scenario_tree
from sim.swarm.shrink import shrunk, size_of
from sim.swarm.toml_text import to_toml
from sim.swarm.trial import Trial, run_trial
from sim.swarm.witness import Invariant, Violation

__all__ = ["Finding", "SwarmReport", "find_bug", "run_swarm", "try_seed"]

Progress = Callable[[str, int, int], None]
_AHEAD: Final = 4
_SHRINK_S_MAX: Final = 60.0


@dataclass(frozen=True)
class Finding:
    """A seed that fails.

    Attributes:
        seed: of the scenario.
        bug: the planted bug; empty for none.
        violations: what did not hold.
        size: of the scenario.
        toml: the shrunk scenario.
        shrunk_size: its size.
        shrink_runs: how many runs that took.
    """

    seed: int
    bug: str
    violations: tuple[Violation, ...]
    size: dict[str, int]
    toml: str = ""
    shrunk_size: dict[str, int] = field(default_factory=dict)
    shrink_runs: int = 0

    @property
    def command(self) -> str:
        """What repeats it."""
        bug = f" --bug {self.bug}" if self.bug else ""
        return f"blindpost simulate --swarm 1 --seed {self.seed}{bug}"


@dataclass
class SwarmReport:
    """What came of a swarm.

    Attributes:
        trials: scenarios that were run to their end.
        wanted: how many were asked for.
        messages: written in all of them.
        receipted: envelopes that got a receipt.
        faults: that happened.
        seconds: it took.
        findings: by seed.
    """

    trials: int = 0
    wanted: int = 0
    messages: int = 0
    receipted: int = 0
    faults: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def try_seed(seed: int, bug: str = "") -> Trial:
    """Run one seed's scenario, with a bug or without."""
    with planted(bug):
        return run_trial(scenario_tree(seed))


def run_swarm(
    trials: int,
    seconds: float,
    *,
    seed: int = 1,
    bug: str = "",
    workers: int | None = None,
    progress: Progress = lambda title, done, total: None,
) -> SwarmReport:
    """Run the scenarios of `trials` seeds, from `seed` on, as far as the time reaches.

    Args:
        trials: how many.
        seconds: for all, shrinking included; a trial under way is finished.
        seed: the first.
        bug: planted in every trial; the first seed that shows it ends the swarm. A seed counts only if it passes
            without the bug.
        workers: processes; None: one a core.
        progress: told a title, trials done and wanted.
    """
    began_s = time.monotonic()
    report = SwarmReport(wanted=trials)
    found: list[int] = []
    for number, trial in _trials(range(seed, seed + trials), bug, began_s + seconds, workers or os.cpu_count() or 1):
        report.trials += 1
        report.messages += trial.messages
        report.receipted += trial.receipted
        report.faults += trial.faults
        progress(bug or "swarm", report.trials, trials)
        if _shows(trial, bug) and (not bug or not try_seed(number).violations):
            found.append(number)
            if bug:
                break
    for number in sorted(found):
        left_s = max(0.0, began_s + seconds - time.monotonic()) / max(1, len(found))
        report.findings.append(_finding(number, bug, min(_SHRINK_S_MAX, left_s)))
    report.seconds = time.monotonic() - began_s
    return report


def find_bug(name: str, trials: int, seconds: float, *, seed: int = 1, workers: int | None = None) -> Finding | None:
    """Look for a planted bug; None if the budget did not show it.

    Raises:
        KeyError: there is none of that name.
    """
    findings = run_swarm(trials, seconds, seed=seed, bug=BUGS[name].name, workers=workers).findings
    return findings[0] if findings else None


def _shows(trial: Trial, bug: str) -> bool:
    return BUGS[bug].breaks in trial.broken() if bug else bool(trial.violations)


def _trials(seeds: range, bug: str, until_s: float, workers: int) -> Iterator[tuple[int, Trial]]:
    """Run seeds in order; a process holds no more of them than it needs to be busy."""
    if workers == 1:
        for seed in seeds:
            if time.monotonic() >= until_s:
                return
            yield seed, try_seed(seed, bug)
        return
    todo = iter(seeds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        # In the order of the seeds, so that the first finding does not depend on who was faster.
        running: deque[tuple[int, Future[Trial]]] = deque()
        try:
            while True:
                while len(running) < workers * _AHEAD and time.monotonic() < until_s:
                    following = next(todo, None)
                    if following is None:
                        break
                    running.append((following, pool.submit(try_seed, following, bug)))
                if not running:
                    return
                seed, future = running.popleft()
                yield seed, future.result()
        finally:
            for _seed, future in running:
                future.cancel()


def _finding(seed: int, bug: str, seconds: float) -> Finding:
    until_s = time.monotonic() + seconds
    tree = scenario_tree(seed)
    violations = try_seed(seed, bug).violations
    wanted: set[Invariant] = {BUGS[bug].breaks} if bug else {violations[0].invariant}

    def still_fails(smaller: Tree) -> bool:
        with planted(bug):
            broken = run_trial(smaller).broken()
        return wanted <= broken and (not bug or not run_trial(smaller).violations)

    small, runs = shrunk(copy.deepcopy(tree), still_fails, lambda: time.monotonic() < until_s)
    with planted(bug):
        last = run_trial(small).violations
    comment = "\n".join(
        [f"Shrunk from seed {seed} of the swarm" + (f", with the planted bug {bug}." if bug else "."), *_said(last)]
    )
    return Finding(seed, bug, violations, size_of(tree), to_toml(small, comment), size_of(small), runs)


def _said(violations: tuple[Violation, ...]) -> list[str]:
    return [f"{violation.invariant.value}: {violation.what}" for violation in violations[:3]]
