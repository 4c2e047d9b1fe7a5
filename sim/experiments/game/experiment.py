"""The distinguishing game (claim C1): can anybody tell, from all that a relay has, which of two worlds it served?

    result = run(Plan(seed=1), workers=2)

A world is drawn by a fair coin for each episode; the two differ in content alone and share the declared leakage L.
Every adversary of the plan learns from training episodes and guesses held-out ones. Then the same adversaries attack
clients that leak, and must win: a game in which nobody can win shows nothing.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Final, NamedTuple

import numpy as np

from sim.experiments.game.adversaries import neighbours
from sim.experiments.game.intervals import learning
from sim.experiments.game.plan import Plan, View
from sim.experiments.game.playing import Table
from sim.experiments.game.suites import HONEST, SUITES
from sim.experiments.result import Control, Figure, Result, Value

__all__ = ["ADVANTAGE_OF", "TWIN", "Score", "interval_text", "run"]

ADVANTAGE_OF: Final = "advantage of "
"""What the figures of adversaries begin with; picture.py reads them."""
TWIN: Final = "twin "
"""The same of the best adversary against a twin."""

_SEEN: Final = {
    View.DISCLOSURE: "the relay's store and log when the episode is over",
    View.LIVE: "every frame's direction, time and size, and the commands that the relay opens",
}
_LIMITS: Final = (
    "adversaries that were not tried: a better statistic may exist; k-NN nears the best only with more episodes",
    "first messages: sessions begin with drawn secrets, not with PQXDH, which sees no content; large mail and groups",
    "a relay's memory image; statistics over many episodes of the same people, for each has a relay of its own",
    "what L gives away: padded sizes, times and who writes to whom are the same in both worlds",
)

OnProgress = Callable[[str, int, int], None]


class Score(NamedTuple):
    """One adversary's advantage in one setting, with its interval."""

    name: str
    advantage: float
    low: float
    high: float


def interval_text(score: Score) -> str:
    """An interval as the figures have it."""
    return f"[{score.low:+.4f}, {score.high:+.4f}]"


def run(plan: Plan, workers: int = 1, on_progress: OnProgress | None = None) -> Result:
    """Play the game as planned.

    Args:
        plan: everything that decides the outcome.
        workers: over how many processes the episodes are spread; changes nothing in the result.
        on_progress: is told what is done, and how many episodes of how many have been played.

    Raises:
        FormatError: the plan cannot be run, or a blind relay would not pass it.
        NotInstalled: scikit-learn is not there.
    """
    learning("sklearn")
    plan.check()
    with Table(workers) as table:
        game = _Game(plan, table, on_progress or (lambda _what, _done, _total: None))
        twins = {name: game.scores(name, plan.twin_training_episodes, plan.twin_episodes) for name in plan.twins}
        scores = game.scores(HONEST.name, plan.training_episodes, plan.episodes)
    return conclude(plan, scores, twins)


class _Game:
    def __init__(self, plan: Plan, table: Table, on_progress: OnProgress) -> None:
        self._plan = plan
        self._table = table
        self._on_progress = on_progress
        twins = len(plan.twins) * (plan.twin_training_episodes + plan.twin_episodes)
        self._total = plan.training_episodes + plan.episodes + twins
        self._done = 0

    def scores(self, suite: str, training: int, held_out: int) -> list[Score]:
        """Every adversary's score against one suite."""
        plan, table = self._plan, self._table

        def on_played(count: int) -> None:
            self._done += count
            self._on_progress(f"{suite}: playing", self._done, self._total)

        features, worlds = table.play(plan.seed, plan.view, suite, "training", training, on_played)
        others, truth = table.play(plan.seed, plan.view, suite, "held out", held_out, on_played)
        scores = []
        for name in plan.adversaries:
            self._on_progress(f"{suite}: {name} guesses", self._done, self._total)
            right = int(np.count_nonzero(table.guess(name, features, worlds, others) == truth))
            scores.append(Score(name, *plan.advantage(right, held_out)))
        return scores


def conclude(plan: Plan, scores: list[Score], twins: dict[str, list[Score]]) -> Result:
    """The result of scores: whether the relay was blind to every adversary, and whether every twin was caught.

    Args:
        plan: what was planned.
        scores: of every adversary against the honest relay.
        twins: the same for each leaky client.
    """
    leaks = [score for score in scores if not plan.is_blind(score.low, score.high)]
    controls = tuple(_control(plan, name, twins[name]) for name in plan.twins)
    evidence = [f"{score.name}: advantage {score.advantage:+.4f} {interval_text(score)}" for score in leaks]
    evidence += [
        f"void: no adversary reached {plan.twin_advantage_min} on the twin {control.name}: {control.how}"
        for control in controls
        if not control.caught
    ]
    return Result(
        experiment="game",
        claim="C1",
        statement=(
            f"Given {_SEEN[plan.view]}, none of {len(plan.adversaries)} adversaries tells apart two worlds that differ "
            f"in content alone: every advantage's interval holds 0 and ends at {plan.advantage_max} or below."
        ),
        held=not leaks,
        parameters=_parameters(plan),
        figures=_figures(plan, scores, twins),
        controls=controls,
        limits=_LIMITS,
        evidence=tuple(evidence),
    )


def best_of(scores: list[Score]) -> Score:
    """The highest lower end; the first of equals."""
    return max(scores, key=lambda score: score.low)


def _control(plan: Plan, name: str, scores: list[Score]) -> Control:
    best = best_of(scores)
    winners = sum(score.low > plan.twin_advantage_min for score in scores)
    how = (
        f"{best.name}: advantage {best.advantage:.4f} {interval_text(best)}; "
        f"{winners} of {len(scores)} adversaries above {plan.twin_advantage_min}"
    )
    return Control(name, f"a client that {SUITES[name].cheat}", best.low > plan.twin_advantage_min, how)


def _figures(plan: Plan, scores: list[Score], twins: dict[str, list[Score]]) -> tuple[Figure, ...]:
    figures = [Figure(f"{ADVANTAGE_OF}{score.name}", score.advantage, interval_text(score)) for score in scores]
    figures += [
        Figure(f"{TWIN}{name}, {best.name}", best.advantage, interval_text(best))
        for name, best in ((name, best_of(twins[name])) for name in plan.twins)
    ]
    knn = [score for score in scores if score.name == "k-NN"]
    figures += [
        Figure(f"Bayes risk, k-NN estimate with k = {neighbours(plan.training_episodes)}", (1 - score.advantage) / 2)
        for score in knn
    ]
    figures += [
        Figure("a blind relay would fail, one adversary, exactly", plan.blind_failure_each()),
        Figure("a blind relay would fail, any adversary, at most", plan.blind_failure()),
    ]
    return tuple(figures)


def _parameters(plan: Plan) -> dict[str, Value]:
    return {
        "plan": plan.digest(),
        "seed": plan.seed,
        "view": plan.view.value,
        "episodes": plan.episodes,
        "training episodes": plan.training_episodes,
        "twin episodes": plan.twin_episodes,
        "twin training episodes": plan.twin_training_episodes,
        "adversaries": len(plan.adversaries),
        "alpha, all adversaries": plan.alpha,
        "advantage at most": plan.advantage_max,
        "twin advantage above": plan.twin_advantage_min,
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
        "scipy": version("scipy"),
    }
