"""Adversaries find what is there, find nothing where nothing is, and each catches the twin that it was written for."""

from itertools import pairwise

import numpy as np
import pytest

from sim.experiments.game.adversaries import Threshold, Worlds, adversary, neighbours
from sim.experiments.game.features import FEATURES, GROUPS, Matrix
from sim.experiments.game.plan import ADVERSARIES, HANDWRITTEN, View
from sim.experiments.game.playing import Table

RNG = np.random.default_rng(3)


def _noise(episodes: int) -> tuple[Matrix, Worlds]:
    return RNG.normal(size=(episodes, FEATURES)).astype(np.float32), RNG.random(episodes) < 0.5


@pytest.mark.parametrize("name", [name for name in ADVERSARIES if name not in HANDWRITTEN])
def test_a_learned_adversary_finds_a_leak_among_noise_and_guesses_where_there_is_none(name: str) -> None:
    (features, worlds), (others, truth) = _noise(600), _noise(600)
    guesser = adversary(name)
    guesser.fit(features, worlds)
    # 600 fair guesses: 12.2 is one standard deviation.
    assert abs(np.count_nonzero(guesser.guess(others) == truth) - 300) < 4 * 12.3
    for matrix, which in ((features, worlds), (others, truth)):
        matrix[:, 100:112] += 4 * which[:, None]
    guesser = adversary(name)
    guesser.fit(features, worlds)
    assert np.count_nonzero(guesser.guess(others) == truth) > 540


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_finds_the_one_statistic_and_its_side(sign: int) -> None:
    (features, worlds), (others, truth) = _noise(400), _noise(400)
    column = GROUPS["timing"].start + 2
    for matrix, which in ((features, worlds), (others, truth)):
        matrix[:, column] = sign * np.where(which, 5, 3)
    guesser = Threshold(GROUPS["timing"])
    guesser.fit(features, worlds)
    assert (guesser.guess(others) == truth).all()


def test_a_threshold_does_not_look_outside_of_its_group() -> None:
    features, worlds = _noise(400)
    features[:, GROUPS["order"]] = 0
    features[:, GROUPS["bytes"]] = worlds[:, None]
    guesser = Threshold(GROUPS["order"])
    guesser.fit(features, worlds)
    assert len(set(guesser.guess(features).tolist())) == 1


def test_k_grows_like_the_logarithm_and_is_odd() -> None:
    assert [neighbours(count) for count in (64, 1_024, 16_384, 65_536)] == [5, 7, 9, 11]


def test_groups_cover_the_vector_once() -> None:
    ends = [(group.start, group.stop) for group in GROUPS.values()]
    assert ends[0][0] == 0
    assert ends[-1][1] == FEATURES
    assert all(before[1] == after[0] for before, after in pairwise(ends))


TWIN_OF = {
    "lengths": "no padding",
    "timing": "timed",
    "order": "ordered",
    "bytes": "cleartext",
    "positions": "kind flag",
    "repeats": "deterministic",
    "nonces": "nonce reuse",
    "known keys": "historical key",
}


@pytest.mark.parametrize("name", HANDWRITTEN)
@pytest.mark.parametrize("view", list(View))
def test_each_adversary_written_by_hand_catches_its_twin(name: str, view: View) -> None:
    with Table(1) as table:
        features, worlds = table.play(1, view, TWIN_OF[name], "training", 64, lambda _count: None)
        others, truth = table.play(1, view, TWIN_OF[name], "held out", 64, lambda _count: None)
        assert np.count_nonzero(table.guess(name, features, worlds, others) == truth) >= 61
