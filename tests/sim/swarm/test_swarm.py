"""The swarm: honest runs break nothing, every planted bug is found within a small budget, and a seed repeats."""

import pytest
from hypothesis import given, settings

from sim.scenario.scenario import Scenario, from_toml, load
from sim.scenarios import names, shipped
from sim.strategies import swarm_scenarios
from sim.swarm.bugs import BUGS, planted
from sim.swarm.generate import FAULT_KINDS, ORDER_KINDS, scenario_tree
from sim.swarm.shrink import candidates, shrunk, size_of
from sim.swarm.swarm import find_bug, run_swarm, try_seed
from sim.swarm.toml_text import to_toml
from sim.swarm.trial import judge, run_trial
from sim.swarm.witness import Invariant

SEEDS = 24
"""Seeds in which each bug must show: a fraction of what a minute of the command runs."""


def test_honest_runs_break_no_invariant_while_faults_really_happen() -> None:
    report = run_swarm(8, 600, seed=100, workers=1)
    assert report.trials == 8
    assert report.findings == []
    assert report.receipted > 50
    assert report.faults > 8


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUGS))
def test_a_planted_bug_is_found_where_the_honest_run_of_the_same_seed_passes(name: str) -> None:
    for seed in range(SEEDS):
        trial = try_seed(seed, name)
        if BUGS[name].breaks in trial.broken():
            assert not try_seed(seed).violations
            return
    pytest.fail(f"{name} was not found in {SEEDS} seeds")


def test_every_invariant_but_that_nothing_raises_has_a_planted_bug() -> None:
    assert {bug.breaks for bug in BUGS.values()} == set(Invariant) - {Invariant.RUNS}


def test_what_raises_in_the_relay_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.core.mailboxes import Mailboxes

    def broken(mailboxes: Mailboxes, *arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Mailboxes, "find", broken)
    assert run_trial(scenario_tree(0)).broken() == {Invariant.RUNS}


def test_a_seed_gives_the_same_trial_again_and_another_seed_another() -> None:
    first, again = (run_trial(scenario_tree(3)) for _ in range(2))
    assert first == again
    assert scenario_tree(3) != scenario_tree(4)


def test_a_planted_bug_is_gone_after_its_block() -> None:
    with planted("text-in-body"):
        assert run_trial(scenario_tree(0)).broken() == {Invariant.NO_PLAINTEXT}
    assert not run_trial(scenario_tree(0)).violations


def test_a_finding_is_shrunk_to_a_scenario_that_fails_by_itself() -> None:
    finding = find_bug("ack-lost-on-restart", 5, 60, seed=0, workers=1)
    assert finding is not None
    assert finding.command == "blindpost simulate --swarm 1 --seed 0 --bug ack-lost-on-restart"
    assert finding.shrunk_size["people"] <= 2
    assert finding.shrunk_size["messages"] <= 3
    assert finding.shrunk_size["faults"] == 1
    scenario = from_toml(finding.toml)
    assert not judge(scenario).violations
    with planted(finding.bug):
        assert Invariant.ACK_HONOURED in judge(scenario).broken()


def test_random_scenarios_reach_every_kind_of_fault() -> None:
    kinds = {fault["kind"] for seed in range(40) for fault in scenario_tree(seed)["fault"]}
    assert kinds == set(FAULT_KINDS)


def test_random_scenarios_reach_whatever_can_happen_to_an_order() -> None:
    orders = [order for seed in range(80) for order in scenario_tree(seed).get("order", ())]
    assert {"deadline", "extension", "withdrawn", "sealed", "opened"} <= {name for order in orders for name in order}
    assert set(ORDER_KINDS) < {order["kind"] for order in orders}


def test_random_scenarios_are_scenarios_and_so_is_whatever_they_are_shrunk_to() -> None:
    for seed in range(20):
        tree = scenario_tree(seed)
        assert from_toml(to_toml(tree, "a comment")).seed == seed
        for smaller in candidates(tree):
            from_toml(to_toml(smaller))


def test_shrinking_leaves_only_what_the_failure_needs() -> None:
    """Ten lines stand for a run: it fails if a company has two people and there is a crash."""

    def fails(tree: dict[str, object]) -> bool:
        scenario = from_toml(to_toml(tree))
        kinds = {type(fault).__name__ for fault in scenario.fault}
        return "Crash" in kinds and any(tenant.people >= 2 for tenant in scenario.tenant)

    tree = next(tree for tree in map(scenario_tree, range(100)) if fails(tree) and len(tree["fault"]) > 3)
    small, runs = shrunk(tree, fails, lambda: True)
    assert runs > 5
    assert size_of(small) == {"people": 2, "messages": 1, "faults": 1, "minutes": size_of(small)["minutes"]}
    assert size_of(small)["minutes"] <= 15
    assert [fault["kind"] for fault in small["fault"]] == ["crash"]


def test_shrinking_stops_when_its_time_is_over() -> None:
    tree = scenario_tree(0)
    assert shrunk(tree, lambda smaller: True, lambda: False) == (tree, 0)


def test_a_shipped_scenario_can_be_judged_by_the_same_invariants() -> None:
    assert "bad-week" in names()
    changes = ["days = 4.5", "fault.6.at = [2026-03-06T10:00:00Z]", "fault.2.at = [2026-03-04T10:00:00Z]"]
    scenario = load(shipped("bad-week"), [*changes, "tenant.0.people = 4", "tenant.1.people = 3"])
    trial = judge(scenario)
    assert trial.violations == ()
    assert trial.faults > 10


@given(swarm_scenarios())
@settings(max_examples=4)
def test_random_scenarios_hold_every_invariant(scenario: Scenario) -> None:
    assert judge(scenario).violations == ()
