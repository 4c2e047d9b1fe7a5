"""Many episodes, spread over processes: which process played one changes nothing, for its seed is its number's.

    with Table(workers=2) as table:
        features, worlds = table.play(plan, HONEST, "held out", 65_536, on_played)
        guesses = table.guess("k-NN", features, worlds, held_out)

Memory is bounded by the vectors: an episode is forgotten when it is measured. With one process everything runs in the
caller's own, in the same slices.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar

import numpy as np

from sim.experiments.game.adversaries import Worlds, adversary
from sim.experiments.game.chance import Chance
from sim.experiments.game.episode import play
from sim.experiments.game.features import FEATURES, Matrix, measure
from sim.experiments.game.plan import View
from sim.experiments.game.stage import Stage
from sim.experiments.game.suites import HONEST, SUITES
from wire.errors import FormatError

__all__ = ["WORKERS_MAX", "Table"]

WORKERS_MAX: Final = 64
_EPISODES_A_TASK: Final = 256
_GUESSES_A_TASK: Final = 8_192

T = TypeVar("T")
OnPlayed: TypeAlias = Callable[[int], None]


class Table:
    """Where the game is played.

    Args:
        workers: how many processes, 1 to 64.

    Raises:
        FormatError: another number.
    """

    def __init__(self, workers: int) -> None:
        if not 1 <= workers <= WORKERS_MAX:
            raise FormatError("workers", f"is {workers}, not 1 to {WORKERS_MAX}", WORKERS_MAX)
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._workers > 1:
            # A forked child would inherit whatever locks the threads of a progress bar hold.
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def play(
        self, seed: int, view: View, suite: str, purpose: str, episodes: int, on_played: OnPlayed
    ) -> tuple[Matrix, Worlds]:
        """Play episodes 0 to `episodes` of a purpose; their features, and the worlds they were in.

        Args:
            seed: the plan's.
            view: what is measured.
            suite: its name, "honest" or a twin's.
            purpose: "training" or "held out".
            episodes: how many.
            on_played: is told how many more have been played.
        """
        features = np.empty((episodes, FEATURES), dtype=np.float32)
        worlds = np.empty(episodes, dtype=np.bool_)
        starts = range(0, episodes, _EPISODES_A_TASK)
        tasks = [(seed, view, suite, purpose, start, min(start + _EPISODES_A_TASK, episodes)) for start in starts]
        for start, (some, which) in zip(starts, self._spread(_play_some, tasks), strict=True):
            features[start : start + len(some)] = some
            worlds[start : start + len(which)] = which
            on_played(len(which))
        return features, worlds

    def guess(self, name: str, features: Matrix, worlds: Worlds, held_out: Matrix) -> Worlds:
        """Train an adversary on episodes whose world it is told; its guesses for others."""
        # Nothing is learned beforehand by k-NN, and all its work is in guessing: it can be divided.
        step = _GUESSES_A_TASK if name == "k-NN" else len(held_out)
        tasks = [(name, features, worlds, held_out[start : start + step]) for start in range(0, len(held_out), step)]
        return np.concatenate(list(self._spread(_guess_some, tasks)))

    def _spread(self, work: Callable[..., T], tasks: Sequence[tuple[object, ...]]) -> Iterator[T]:
        if self._pool is None or len(tasks) == 1:
            yield from (work(*task) for task in tasks)
            return
        under_way: list[Future[T]] = [self._pool.submit(work, *task) for task in tasks]
        for future in under_way:
            yield future.result()


@lru_cache(maxsize=1)
def _stage() -> Stage:
    return Stage()


def _play_some(seed: int, view: View, suite: str, purpose: str, start: int, end: int) -> tuple[Matrix, Worlds]:
    stage = _stage()
    made = HONEST if suite == HONEST.name else SUITES[suite]
    chances = [Chance(seed, f"{suite} {purpose}", number) for number in range(start, end)]
    features = np.stack([measure(play(stage, made, chance, view)) for chance in chances])
    return features, np.array([chance.world == 1 for chance in chances])


def _guess_some(name: str, features: Matrix, worlds: Worlds, held_out: Matrix) -> Worlds:
    guesser = adversary(name)
    guesser.fit(features, worlds)
    return guesser.guess(held_out)
