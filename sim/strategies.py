"""What Hypothesis draws of whole runs: populations, what people do, and what goes wrong. For tests, here and elsewhere.

    @given(swarm_scenarios())
    def test_a_property_of_runs(scenario): ...       judge(scenario): sim/swarm/trial.py

    @given(scripts())
    def test_relay_is_the_same(script): ...      record(script, folder), replay(…): sim/experiments/noninterference

Nothing of the project imports this module but tests: Hypothesis is no dependency of the program. Every value is plain
data (sim/experiments/noninterference/script.py), so that an example that fails is made smaller act by act.
"""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sim.experiments.noninterference.script import (
    Act,
    Away,
    Devices,
    Faults,
    Hostile,
    Misdeed,
    Outage,
    Prekeys,
    Script,
    Send,
    Withdrawal,
)
from sim.scenario.scenario import Scenario, from_toml
from sim.swarm.generate import scenario_tree
from sim.swarm.toml_text import to_toml

__all__ = ["acts", "faults", "scripts", "swarm_scenarios"]

_SPAN_MS = 12_000
_OUTAGES_MAX = 2


def faults() -> SearchStrategy[Faults]:
    """Networks and disks, from faultless ones to bad ones on which something still arrives."""
    rates = st.sampled_from([0.0, 0.0, 0.02, 0.1])
    # Each read that fails is asked for again after a second; a disk that never reads shows nothing.
    return st.builds(Faults, rates, rates, rates, rates, rates, st.sampled_from([0.0, 0.02]))


def acts(people: int) -> SearchStrategy[Act]:
    """One act of one of so many people; most are messages."""
    at_ms, who = st.integers(0, _SPAN_MS), st.integers(0, people - 1)
    sends = st.builds(
        Send,
        at_ms,
        who,
        st.integers(0, people - 1),
        st.one_of(st.integers(1, 600), st.sampled_from([4_000, 70_000])),
        st.sampled_from([70, 3_600, 30 * 86_400]),
    )
    return st.one_of(
        sends,
        sends,
        sends,
        st.builds(Withdrawal, at_ms, who),
        st.builds(Away, at_ms, who, st.integers(100, 20_000)),
        st.builds(Devices, at_ms, who),
        st.builds(Prekeys, at_ms, who, st.booleans()),
        st.builds(Hostile, at_ms, who, st.sampled_from(Misdeed)),
    )


@st.composite
def scripts(draw: st.DrawFn, acts_max: int = 16) -> Script:
    """Runs of two to four people, with at most so many acts and two outages."""
    people = draw(st.integers(2, 4))
    drawn = draw(st.lists(acts(people), min_size=1, max_size=acts_max))
    outages = st.builds(Outage, st.integers(0, _SPAN_MS), st.booleans(), st.integers(100, 2_000))
    drawn += draw(st.lists(outages, max_size=_OUTAGES_MAX, unique_by=lambda outage: outage.at_ms // 5_000))
    return Script(draw(st.integers(0, 2**32)), people, tuple(drawn), draw(faults()), draw(st.booleans()))


def swarm_scenarios() -> SearchStrategy[Scenario]:
    """The random scenarios of the swarm, as records; sim/swarm/shrink.py makes them smaller, not Hypothesis."""
    return st.integers(0, 2**31).map(lambda seed: from_toml(to_toml(scenario_tree(seed))))
