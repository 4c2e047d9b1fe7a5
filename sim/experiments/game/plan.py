"""What a run of the game will do, fixed and hashed before the first episode is played.

    plan = Plan(seed=1)
    plan.digest()           printed before the run, and part of the result: nobody chose the adversaries afterwards
    plan.blind_failure()    how often a relay that is truly blind would fail this very plan, exactly

Who wins is counted in *advantage*: 2 × (share of right guesses) − 1, 0 for guessing and 1 for knowing. Each adversary
gets a Clopper-Pearson interval at 1 − alpha / (number of adversaries) (Bonferroni), so that all of them together miss
a true advantage with probability alpha at most. Blind means for every adversary: the interval holds 0, and ends at
`advantage_max` or below. For a blind relay each guess is right with probability 1/2, whatever the adversary does, as
the world is drawn by a fair coin of its own: so the probability to fail is a binomial tail and no estimate.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum, unique
from hashlib import sha256
from typing import Final

from sim.experiments.game.intervals import binomial_at_most, clopper_pearson
from wire.errors import FormatError

__all__ = ["ADVERSARIES", "EPISODES_MAX", "TWINS", "Plan", "View"]

EPISODES_MAX: Final = 1 << 20
_TWIN_ADVANTAGE: Final = 0.9

HANDWRITTEN: Final = ("lengths", "timing", "order", "bytes", "positions", "repeats", "nonces", "known keys")
ADVERSARIES: Final = (*HANDWRITTEN, "linear", "boosting", "k-NN")
"""In the order in which they are reported; adversaries.py has them."""

TWINS: Final = (
    "no padding",
    "nonce reuse",
    "deterministic",
    "historical key",
    "kind flag",
    "cleartext",
    "timed",
    "ordered",
)
"""The clients that leak; suites.py has them."""


@unique
class View(Enum):
    """What the adversary is given of an episode."""

    DISCLOSURE = "disclosure"
    """The relay's store and log when the episode is over."""
    LIVE = "live"
    """Every frame as it passes: direction, time, size, and the device's commands, which the relay opens."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run.

    Attributes:
        seed: of every episode, together with its number and purpose.
        view: what adversaries see.
        episodes: held-out episodes that are guessed, each by every adversary.
        training_episodes: other episodes, whose world the adversaries are told first.
        twin_episodes: held-out episodes with each leaky client.
        twin_training_episodes: the same for training; the adversaries know the twin that they attack.
        adversaries: their names.
        twins: the leaky clients' names.
        alpha: probability that a blind relay is called leaky by its intervals, all adversaries together, at most.
        advantage_max: what the upper end of every interval may be at most.
        twin_advantage_min: what the lower end of the best adversary's interval must exceed on every twin.
    """

    seed: int = 1
    view: View = View.DISCLOSURE
    episodes: int = 65_536
    training_episodes: int = 16_384
    twin_episodes: int = 1_024
    twin_training_episodes: int = 1_024
    adversaries: tuple[str, ...] = ADVERSARIES
    twins: tuple[str, ...] = TWINS
    alpha: float = 0.01
    advantage_max: float = 0.03
    twin_advantage_min: float = _TWIN_ADVANTAGE

    def digest(self) -> str:
        """SHA-256 over the plan's values, in hex."""
        values = asdict(self) | {"format": "blindpost/v1/game-plan", "view": self.view.value}
        return sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def alpha_each(self) -> float:
        """What is left of alpha for one adversary."""
        return self.alpha / len(self.adversaries)

    def advantage(self, right: int, episodes: int) -> tuple[float, float, float]:
        """The advantage of so many right guesses, and both ends of its interval."""
        low, high = clopper_pearson(right, episodes, self.alpha_each)
        return 2 * right / episodes - 1, 2 * low - 1, 2 * high - 1

    def is_blind(self, low: float, high: float) -> bool:
        """Whether an interval of the advantage shows no more than a blind relay."""
        return low <= 0 <= high <= self.advantage_max

    def blind_failure_each(self) -> float:
        """The probability that guesses by a fair coin are called an advantage, or are too few to exclude one: exact."""
        first, last = self._blind_counts()
        if last < first:
            return 1.0
        # By symmetry P(more than `last`) = P(at most episodes − last − 1).
        return binomial_at_most(first - 1, self.episodes) + binomial_at_most(self.episodes - last - 1, self.episodes)

    def blind_failure(self) -> float:
        """The same for all adversaries together, at most: they look at the same episodes, so the sum is a bound."""
        return min(1.0, len(self.adversaries) * self.blind_failure_each())

    def _blind_counts(self) -> tuple[int, int]:
        """The fewest and the most right guesses that still count as blind."""
        half = self.episodes // 2
        first = _first_true(0, half, lambda right: self.advantage(right, self.episodes)[2] >= 0)
        last = _first_true(
            first, self.episodes + 1, lambda right: not self.is_blind(*self.advantage(right, self.episodes)[1:])
        )
        return first, last - 1

    def check(self) -> None:
        """Check that the plan can be run, and that a blind relay would pass it.

        Raises:
            FormatError: a count out of bounds, or so few episodes that a blind relay fails more often than alpha.
        """
        if self.seed < 0:
            raise FormatError("seed", f"is {self.seed}, below 0")
        for name in ("episodes", "training_episodes", "twin_episodes", "twin_training_episodes"):
            count = getattr(self, name)
            if not 64 <= count <= EPISODES_MAX:
                raise FormatError(name, f"is {count:,}, not 64 to {EPISODES_MAX:,}", EPISODES_MAX)
        if self.blind_failure() > self.alpha:
            least = self.episodes_min()
            raise FormatError(
                "episodes",
                f"{self.episodes:,} are too few to exclude an advantage above {self.advantage_max}: "
                f"a blind relay would fail; {least:,} are enough",
                least,
            )

    def episodes_min(self) -> int:
        """The fewest episodes, in steps of 1,024, with which a blind relay fails no more often than alpha."""

        def enough(thousands: int) -> bool:
            values = {name: getattr(self, name) for name in self.__dataclass_fields__}
            return Plan(**values | {"episodes": 1_024 * thousands}).blind_failure() <= self.alpha

        return 1_024 * _first_true(1, EPISODES_MAX // 1_024, enough)


def _first_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number in [low, high) for which a monotone condition holds; `high` if for none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
