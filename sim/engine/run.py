"""One scenario, one seed, one run."""

from collections.abc import Callable
from pathlib import Path

from sim.engine.checks import judge
from sim.engine.outcome import Outcome
from sim.engine.sized import run_real, run_sized
from sim.scenario.scenario import Scenario

__all__ = ["run"]


def run(
    scenario: Scenario, folder: Path, *, seed: int | None = None, progress: Callable[[int], None] | None = None
) -> Outcome:
    """Run a scenario, and judge its assertions.

    Args:
        scenario: which.
        folder: an empty one, or not there yet: the relay's home, and what comes of orders.
        seed: by what chance; None: the scenario's.
        progress: told the simulated time, in Unix seconds.

    Raises:
        ScenarioError: the scenario asks for what this engine cannot do.
        DisclosureFailed: the relay's process did not hand over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = scenario.seed if seed is None else seed
    play = run_real if scenario.crypto == "real" else run_sized
    outcome = play(scenario, seed, folder, progress or (lambda now_s: None))
    outcome.checks = judge(outcome)
    return outcome
