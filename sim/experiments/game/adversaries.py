"""Who guesses the world: eight adversaries written by hand, two that learn, and an estimate of the best there could be.

Written by hand are the statistics (features.py); which of them matters in a setting, above or below which value, is
taken from training episodes: the one threshold on one statistic of the group that is right most often. `linear` is a
logistic regression and `boosting` gradient-boosted trees over all statistics. `k-NN` is the estimate of the Bayes risk
of F-BLEAU (Cherubin, Chatzikokolakis and Palamidessi, "F-BLEAU: Fast Black-Box Leakage Estimation", IEEE S&P 2019):
k = ln n nearest neighbours among n training episodes, values scaled to [0, 1]. Its error tends to the Bayes risk, that
of the best adversary for these statistics, as n grows; for a finite n it is an estimate from above.

Everything runs in one thread and from fixed seeds: the order of a sum could otherwise change a guess.
"""

import math
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sim.experiments.game.features import GROUPS, Matrix
from sim.experiments.game.intervals import learning

__all__ = ["Adversary", "Worlds", "adversary", "neighbours"]

Worlds: TypeAlias = NDArray[np.bool_]

_REGRESSION_STEPS: Final = 200
_TREES: Final = 60
_LEAVES: Final = 15
_SLICE: Final = 4_096


class Adversary(Protocol):
    """Learns from episodes whose world it is told, then guesses those of others."""

    def fit(self, features: Matrix, worlds: Worlds) -> None:
        """Learn."""

    def guess(self, features: Matrix) -> Worlds:
        """Say for each episode whether it is world 1."""


class Threshold:
    """One statistic of a group, on one side of one value.

    Args:
        columns: where the group stands.
    """

    def __init__(self, columns: slice) -> None:
        self._columns = columns
        self._column = columns.start
        self._value = 0.0
        self._above = True

    def fit(self, features: Matrix, worlds: Worlds) -> None:
        """Take the statistic, value and side that are right most often; the first of equals."""
        signs = np.where(worlds, 1, -1)
        best = -1
        for column in range(self._columns.start, self._columns.stop):
            values = features[:, column]
            order = np.argsort(values, kind="stable")
            ordered = values[order]
            # Up to each place: worlds 1 less worlds 0. Cutting there is right so much more often than guessing.
            below = np.cumsum(signs[order])
            scores = np.abs(below[-1] - 2 * below)
            # Only between two different values can be cut; behind the last, everything is on one side.
            scores[:-1][ordered[:-1] == ordered[1:]] = -1
            place = int(np.argmax(scores))
            if scores[place] > best:
                best = int(scores[place])
                self._column, self._above = column, bool(below[-1] - 2 * below[place] >= 0)
                self._value = _between(ordered, place)

    def guess(self, features: Matrix) -> Worlds:
        """Cut."""
        above: Worlds = features[:, self._column] > self._value
        return above if self._above else ~above


def _between(ordered: NDArray[np.float32], place: int) -> float:
    if place + 1 == len(ordered):
        return float(ordered[place])
    return (float(ordered[place]) + float(ordered[place + 1])) / 2


class Learned:
    """A classifier of scikit-learn over all statistics, behind a scaler.

    Args:
        make: gives the pipeline for a number of training episodes.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make
        self._pipeline: Any = None

    def fit(self, features: Matrix, worlds: Worlds) -> None:
        """Train."""
        self._pipeline = self._make(len(worlds))
        with _one_thread():
            self._pipeline.fit(features, worlds)

    def guess(self, features: Matrix) -> Worlds:
        """Predict, in slices: scikit-learn copies what it is given, twice as wide."""
        starts = range(0, len(features), _SLICE)
        with _one_thread():
            slices = [self._pipeline.predict(features[start : start + _SLICE]) for start in starts]
        return np.concatenate(slices).astype(np.bool_)


def _one_thread() -> Any:
    return learning("threadpoolctl").threadpool_limits(1)


def neighbours(training_episodes: int) -> int:
    """How many neighbours: ln n, rounded to an odd number so that there is no tie."""
    return 2 * round((math.log(training_episodes) - 1) / 2) + 1


def _linear(_episodes: int) -> Any:
    model = learning("sklearn.linear_model").LogisticRegression(max_iter=_REGRESSION_STEPS, C=0.01)
    return learning("sklearn.pipeline").make_pipeline(learning("sklearn.preprocessing").StandardScaler(), model)


def _boosting(_episodes: int) -> Any:
    return learning("sklearn.ensemble").HistGradientBoostingClassifier(
        max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False, random_state=0
    )


def _nearest(episodes: int) -> Any:
    model = learning("sklearn.neighbors").KNeighborsClassifier(neighbours(episodes), algorithm="brute")
    return learning("sklearn.pipeline").make_pipeline(learning("sklearn.preprocessing").MinMaxScaler(), model)


_LEARNED: Final[dict[str, Callable[[int], Any]]] = {"linear": _linear, "boosting": _boosting, "k-NN": _nearest}


def adversary(name: str) -> Adversary:
    """A new adversary, which knows nothing yet.

    Raises:
        KeyError: there is none of that name.
    """
    return Learned(_LEARNED[name]) if name in _LEARNED else Threshold(GROUPS[name])
