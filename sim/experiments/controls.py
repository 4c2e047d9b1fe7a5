"""Every mutant of the catalogue, and the cheats that nobody can catch: what the verdicts of the verifier are worth.

    run = run_controls(workers=2, progress=...)
    run.result        the experiment: all that can be caught is caught, and what cannot be is a real leak as well
    run.matrix        mutant by check: which checks failed on which mutant

A mutant counts as caught under the four conditions of docs/controls.md. An unseen cheat counts as shown if its leak can
be read and the verifier still says BLIND: were it caught, the list of limits would be wrong.
"""

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit import Verdict
from audit.checks import CHECKS, EARLIER
from sim.experiments.result import Control, Figure, Result
from sim.mutants import controls
from sim.mutants.catalogue import CATALOGUE
from sim.mutants.controls import ControlResult, Laboratory
from sim.mutants.key_plants import key_search_of
from sim.mutants.unseen import UNSEEN, Unseen
from wire.errors import BlindpostError

__all__ = ["ControlsRun", "Shown", "run_controls"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Shown:
    """What came of a cheat that cannot be caught.

    Attributes:
        unseen: the cheat.
        proof: where its leak was read; empty if it did not work.
        caught_by: checks that failed on it all the same.
        problem: what went wrong with the run; empty if nothing did.
    """

    unseen: Unseen
    proof: str = ""
    caught_by: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_a_limit(self) -> bool:
        """Whether the leak is real and the verifier did not see it."""
        return bool(self.proof) and not self.caught_by and not self.problem


@dataclass(frozen=True)
class ControlsRun:
    """All that was run."""

    caught: tuple[ControlResult, ...]
    shown: tuple[Shown, ...]

    @property
    def checks(self) -> tuple[str, ...]:
        """The verifier's checks that failed on some mutant, in the verifier's order: the columns of the matrix."""
        used = {check for result in self.caught for check in result.caught_by}
        return tuple(about.check_id for about, _ in (*CHECKS, EARLIER) if about.check_id in used)

    @property
    def matrix(self) -> Mapping[str, frozenset[str]]:
        """By mutant, the checks that failed on it."""
        return {result.name: frozenset(result.caught_by) for result in self.caught}

    @property
    def result(self) -> Result:
        """The experiment's result."""
        cheats = {mutant.name: mutant.cheat for mutant in CATALOGUE}
        limits = [
            f"{shown.unseen.name}: {shown.unseen.cheat}; not seen, since {shown.unseen.why}" for shown in self.shown
        ]
        return Result(
            experiment="controls",
            claim="C1, C5",
            statement=(
                "Each mutant's leak or lie is really there, the check meant for it fails, and the honest twin passes "
                "that check; each cheat that is listed as a limit leaks for real and is not seen."
            ),
            held=all(shown.is_a_limit for shown in self.shown),
            parameters={},
            figures=(
                Figure("mutants that can be caught", len(self.caught)),
                Figure("mutants caught", sum(result.caught for result in self.caught)),
                Figure("cheats that cannot be caught, shown to leak", sum(shown.is_a_limit for shown in self.shown)),
            ),
            controls=tuple(
                Control(result.name, cheats[result.name], result.caught, _how(result)) for result in self.caught
            ),
            limits=(*limits, "cheats that nobody thought of"),
            evidence=tuple(f"{shown.unseen.name}: {_why_not(shown)}" for shown in self.shown if not shown.is_a_limit),
        )


def _how(result: ControlResult) -> str:
    if result.caught:
        return result.expected
    if result.problem:
        return result.problem
    if not result.proof:
        return "the cheat did not work"
    return "the honest twin fails as well" if not result.twin_passes else f"{result.expected} passed"


def _why_not(shown: Shown) -> str:
    if shown.caught_by:
        return f"caught by {', '.join(shown.caught_by)}: it belongs into the catalogue"
    return shown.problem or "the leak could not be read"


def run_controls(workers: int = 2, names: Sequence[str] | None = None, progress: Progress | None = None) -> ControlsRun:
    """Run the mutants and the unseen cheats.

    Args:
        workers: processes for the mutants.
        names: those to run, of either list; all if None.
        progress: called with the name of each as it ends, how many have ended, and how many there are.
    """
    mutants = [mutant.name for mutant in CATALOGUE if names is None or mutant.name in names]
    unseen = [cheat for cheat in UNSEEN if names is None or cheat.name in names]
    total, done = len(mutants) + len(unseen), 0

    def ended(name: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(name, done, total)

    caught = controls.run_controls(workers, mutants, lambda result: ended(result.name)) if mutants else []
    shown = []
    with tempfile.TemporaryDirectory(prefix="blindpost-unseen-") as folder:
        laboratory = Laboratory(Path(folder))
        for cheat in unseen:
            shown.append(_show(laboratory, cheat))
            ended(cheat.name)
    return ControlsRun(tuple(caught), tuple(shown))


def _show(laboratory: Laboratory, unseen: Unseen) -> Shown:
    try:
        scene = laboratory.serve(unseen)
        proof = unseen.proof(scene)
        report = scene.served.audit(key_search_of(scene, unseen.name))
    except (BlindpostError, OSError, subprocess.SubprocessError) as error:
        return Shown(unseen, problem=f"{type(error).__name__}: {error}")
    problem = "" if report.failed or report.verdict is Verdict.BLIND else f"the verdict is {report.verdict.value}"
    return Shown(unseen, proof, report.failed, problem)
