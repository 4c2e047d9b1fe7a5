"""What Hypothesis draws for the tests of the relay: sizes, moments, faults of a network."""

from __future__ import annotations

from enum import Enum

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from wire.limits import BODY_BYTES_MIN

__all__ = ["Fate", "body_bytes", "envelope_counts", "expiries_s", "fates", "pauses_ms", "picks"]


class Fate(Enum):
    """What the broker does with a packet."""

    CARRIED = "carried"
    LOST = "lost"
    DOUBLED = "doubled"
    SPOILT = "spoilt"


def fates() -> SearchStrategy[Fate]:
    """Mostly carried, since a network that carries nothing shows nothing."""
    return st.sampled_from([Fate.CARRIED, Fate.CARRIED, Fate.CARRIED, Fate.LOST, Fate.DOUBLED, Fate.SPOILT])


def body_bytes() -> SearchStrategy[int]:
    """Lengths of bodies: small ones, so that runs are quick, with a large one now and then."""
    return st.one_of(st.integers(BODY_BYTES_MIN, 1_000), st.just(20_000))


def envelope_counts() -> SearchStrategy[int]:
    """How many envelopes a submit has."""
    return st.integers(1, 4)


def expiries_s() -> SearchStrategy[int]:
    """How far ahead an envelope expires."""
    return st.sampled_from([90, 3_600, 86_400])


def pauses_ms() -> SearchStrategy[int]:
    """How long nothing happens."""
    return st.sampled_from([1, 1_000, 5_000, 60_000, 200_000, 3_700_000])


def picks() -> SearchStrategy[int]:
    """A number to choose one of a list with, modulo its length."""
    return st.integers(0, 2**16)
