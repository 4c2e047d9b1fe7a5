"""Clopper-Pearson intervals against published values, scipy's own, and the definition in whole numbers."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.experiments.game.intervals import NotInstalled, binomial_at_most, clopper_pearson, learning


@pytest.mark.parametrize(
    ("right", "trials", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_intervals_are_those_that_newcombe_published(right: int, trials: int, low: float, high: float) -> None:
    """R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998."""
    assert clopper_pearson(right, trials, 0.05) == pytest.approx((low, high), abs=5e-5)


def test_no_and_only_right_guesses_have_the_ends_that_one_computes_by_hand() -> None:
    # P(no head in 10) = (1 - p)^10 = 0.025.
    assert clopper_pearson(0, 10, 0.05) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert clopper_pearson(10, 10, 0.05) == pytest.approx((0.025 ** (1 / 10), 1.0))


def test_intervals_agree_with_scipy_for_the_sizes_of_the_game() -> None:
    for right in (32_768, 33_300, 65_536):
        theirs = learning("scipy.stats").binomtest(right, 65_536).proportion_ci(1 - 0.01 / 11, method="exact")
        assert clopper_pearson(right, 65_536, 0.01 / 11) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def _at_least(count: int, trials: int, probability: float) -> float:
    p = Fraction(probability)
    return float(sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(count, trials + 1)))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.data(), st.sampled_from([0.05, 0.01, 0.001]))
def test_each_end_leaves_half_of_alpha_in_its_tail(trials: int, data: st.DataObject, alpha: float) -> None:
    right = data.draw(st.integers(1, trials - 1))
    low, high = clopper_pearson(right, trials, alpha)
    assert _at_least(right, trials, low) == pytest.approx(alpha / 2, rel=1e-6)
    assert 1 - _at_least(right + 1, trials, high) == pytest.approx(alpha / 2, rel=1e-6)


def test_tails_of_the_fair_coin_are_sums_of_binomial_coefficients() -> None:
    assert binomial_at_most(3, 10) == pytest.approx((1 + 10 + 45 + 120) / 2**10)
    assert binomial_at_most(-1, 10) == 0.0
    assert binomial_at_most(10, 10) == 1.0


def test_a_missing_library_is_a_typed_error_that_names_the_extra() -> None:
    with pytest.raises(NotInstalled, match="sklearn_that_is_not_there is not installed") as caught:
        learning("sklearn_that_is_not_there.linear_model")
    assert caught.value.hint == "pip install 'blindpost[prove]'"
