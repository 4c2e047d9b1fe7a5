"""The arithmetic of the game's error bars: Clopper-Pearson intervals and tails of the fair coin.

Exact in the sense of the method: an interval covers the true probability with at least its stated confidence, for any
number of trials (Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26, 1934). scipy has the beta and binomial distributions; it comes with scikit-learn.
"""

import importlib
from typing import Any

from wire.errors import BlindpostError

__all__ = ["NotInstalled", "binomial_at_most", "clopper_pearson", "learning"]


class NotInstalled(BlindpostError):
    """The optional extra `prove` (scikit-learn, and scipy with it) is not installed.

    Attributes:
        hint: what to do.
    """

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed, and the game's adversaries need it")
        self.hint = "pip install 'blindpost[prove]'"


def learning(module: str) -> Any:
    """A module of scikit-learn or scipy, loaded now: the extra is optional, and takes a second to load.

    Raises:
        NotInstalled: with a hint.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotInstalled((error.name or module).partition(".")[0]) from None


def clopper_pearson(right: int, trials: int, alpha: float) -> tuple[float, float]:
    """Both ends of the two-sided interval for a probability, at confidence 1 − alpha, alpha / 2 on each side."""
    beta = learning("scipy.stats").beta
    low = float(beta.ppf(alpha / 2, right, trials - right + 1)) if right else 0.0
    high = float(beta.ppf(1 - alpha / 2, right + 1, trials - right)) if right < trials else 1.0
    return low, high


def binomial_at_most(count: int, trials: int) -> float:
    """P(X ≤ count) for the number of heads of a fair coin."""
    return float(learning("scipy.stats").binom.cdf(count, trials, 0.5)) if count >= 0 else 0.0
