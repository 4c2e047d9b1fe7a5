"""The plan: pinned by its hash, corrected for the number of adversaries, and fair to a relay that is truly blind."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from sim.experiments.game.plan import ADVERSARIES, Plan, View
from wire.errors import FormatError

SMALL = Plan(episodes=200, advantage_max=0.5, adversaries=("lengths", "timing"))


def test_the_default_plan_is_the_one_that_was_announced() -> None:
    plan = Plan()
    assert plan.digest() == "8aad651470c754932e70df7b0a6f68a53c2da7207fcec95aac6acfa01276e24d"
    assert (plan.episodes, plan.alpha, plan.advantage_max, len(plan.adversaries)) == (65_536, 0.01, 0.03, 11)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"view": View.LIVE},
        {"episodes": 65_537},
        {"training_episodes": 1_024},
        {"twin_episodes": 2_048},
        {"adversaries": ADVERSARIES[:-1]},
        {"twins": ("timed",)},
        {"alpha": 0.05},
        {"advantage_max": 0.04},
        {"twin_advantage_min": 0.5},
    ],
)
def test_whatever_is_changed_after_the_announcement_changes_the_hash(change: dict[str, object]) -> None:
    assert Plan(**change).digest() != Plan().digest()  # type: ignore[arg-type]


def test_more_adversaries_make_each_interval_wider() -> None:
    one, eleven = replace(SMALL, adversaries=("lengths",)), replace(SMALL, adversaries=ADVERSARIES)
    assert one.alpha_each == 0.01
    assert eleven.alpha_each == pytest.approx(0.01 / 11)
    advantage, low, high = one.advantage(110, 200)
    assert advantage == pytest.approx(0.1)
    assert eleven.advantage(110, 200)[1] < low < advantage < high < eleven.advantage(110, 200)[2]


@pytest.mark.parametrize("plan", [SMALL, replace(SMALL, advantage_max=0.2), replace(SMALL, advantage_max=0.15)])
def test_the_failure_of_a_blind_relay_is_exact(plan: Plan) -> None:
    """Against the sum over every count of right guesses, one by one."""
    failing = [
        right for right in range(plan.episodes + 1) if not plan.is_blind(*plan.advantage(right, plan.episodes)[1:])
    ]
    by_hand = sum(comb(plan.episodes, right) for right in failing) / 2**plan.episodes
    assert plan.blind_failure_each() == pytest.approx(by_hand, rel=1e-9)
    assert plan.blind_failure() == pytest.approx(min(1.0, 2 * by_hand), rel=1e-9)


def test_coins_in_place_of_adversaries_fail_no_more_often_than_stated() -> None:
    games, adversaries = 20_000, len(SMALL.adversaries)
    right = np.random.default_rng(7).binomial(SMALL.episodes, 0.5, size=(games, adversaries))
    blind = np.array(
        [SMALL.is_blind(*SMALL.advantage(count, SMALL.episodes)[1:]) for count in range(SMALL.episodes + 1)]
    )
    failed = np.count_nonzero(~blind[right].all(axis=1)) / games
    assert 0 < failed <= SMALL.blind_failure() + 3 * (SMALL.blind_failure() / games) ** 0.5
    assert SMALL.blind_failure() <= SMALL.alpha


def test_a_blind_relay_passes_the_default_plan_with_the_promised_probability() -> None:
    assert 0.005 < Plan().blind_failure() <= 0.01
    Plan().check()


def test_too_few_episodes_are_refused_and_the_least_number_is_named() -> None:
    with pytest.raises(FormatError, match=r"too few to exclude an advantage above 0\.03") as caught:
        Plan(episodes=4_096).check()
    assert caught.value.limit == Plan().episodes_min()
    Plan(episodes=caught.value.limit).check()
    with pytest.raises(FormatError, match="too few"):
        Plan(episodes=caught.value.limit - 1_024).check()


@pytest.mark.parametrize("change", [{"seed": -1}, {"episodes": 0}, {"episodes": 1 << 21}, {"twin_episodes": 63}])
def test_a_count_out_of_bounds_is_refused(change: dict[str, int]) -> None:
    (name,) = change
    with pytest.raises(FormatError) as caught:
        replace(Plan(), **change).check()  # type: ignore[arg-type]
    assert caught.value.field == name


def test_a_true_advantage_is_seen_and_a_negative_one_as_well() -> None:
    """An adversary that is wrong more often than a coin knows something."""
    plan = Plan()
    for right in (33_500, 32_036):
        assert not plan.is_blind(*plan.advantage(right, plan.episodes)[1:])
    assert plan.is_blind(*plan.advantage(32_800, plan.episodes)[1:])
