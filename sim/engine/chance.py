"""Chance: a generator of its own for each subject, so that one more draw here changes nothing there."""

import random
from collections.abc import Sequence
from math import exp, log

from sim.scenario.conduct import Fixed, Lognormal, Size, Uniform

__all__ = ["arrivals", "drawn_bytes", "generator", "lognormal", "trigger_times"]


def generator(seed: int, subject: str) -> random.Random:
    """The generator of one subject of one run; a run is to be repeatable, so it is not a secret source."""
    return random.Random(f"{seed}/{subject}")


def drawn_bytes(rng: random.Random, size: Size) -> int:
    """A length from a stated distribution."""
    match size:
        case Fixed(bytes=length):
            return length
        case Uniform(least_bytes=least, most_bytes=most):
            return rng.randint(least, most)
        case Lognormal(median_bytes=median, sigma=sigma, most_bytes=most):
            return max(1, min(most, round(lognormal(rng, median, sigma))))


def lognormal(rng: random.Random, median: float, sigma: float) -> float:
    """exp(N(ln median, sigma))."""
    return exp(rng.gauss(log(median), sigma))


def arrivals(rng: random.Random, rate_per_s: float, from_s: float, to_s: float) -> list[float]:
    """The moments of a Poisson process."""
    if rate_per_s <= 0:
        return []
    found = []
    moment = from_s + rng.expovariate(rate_per_s)
    while moment < to_s:
        found.append(moment)
        moment += rng.expovariate(rate_per_s)
    return found


def trigger_times(rng: random.Random, stated_s: Sequence[int], per_day: float, from_s: int, to_s: int) -> list[int]:
    """When a fault happens, in Unix seconds: at stated moments, and at drawn ones."""
    drawn = [int(moment) for moment in arrivals(rng, per_day / 86_400, from_s, to_s)]
    return sorted([*stated_s, *drawn])
