"""The experiment on the controls: void without a catch, failed where a limit is none."""

from dataclasses import replace

from sim.experiments.controls import ControlsRun, Shown, run_controls
from sim.experiments.result import Verdict
from sim.mutants.controls import ControlResult
from sim.mutants.unseen import UNSEEN

CAUGHT = ControlResult("left-out", "evidence.receipts", ("store.commits", "evidence.receipts"), "", "gone", True)
LIMIT = Shown(UNSEEN[0], "it is there")


def test_a_mutant_and_an_unseen_cheat_are_run_for_real_and_told_as_they_end() -> None:
    told: list[tuple[str, int, int]] = []
    run = run_controls(1, ["extra-file", "links-in-log"], lambda *words: told.append(words))
    assert told == [("extra-file", 1, 2), ("links-in-log", 2, 2)]
    assert run.result.verdict is Verdict.HOLDS
    assert run.checks == ("manifest.files",)
    assert run.matrix == {"extra-file": frozenset({"manifest.files"})}
    assert run.result.limits[0].startswith("links-in-log: ")


def test_the_matrix_has_its_columns_in_the_verifiers_order() -> None:
    assert ControlsRun((CAUGHT,), ()).checks == ("store.commits", "evidence.receipts")


def test_a_mutant_that_is_not_caught_makes_the_result_void_and_says_why() -> None:
    for missed, why in (
        (replace(CAUGHT, caught_by=()), "evidence.receipts passed"),
        (replace(CAUGHT, proof=""), "the cheat did not work"),
        (replace(CAUGHT, twin_passes=False), "the honest twin fails as well"),
        (replace(CAUGHT, problem="it broke"), "it broke"),
    ):
        result = ControlsRun((CAUGHT, missed), (LIMIT,)).result
        assert result.verdict is Verdict.VOID
        assert result.controls[1].how == why


def test_a_limit_that_is_caught_or_does_not_leak_fails_the_statement() -> None:
    for shown, why in (
        (replace(LIMIT, caught_by=("log.grammar",)), "caught by log.grammar"),
        (replace(LIMIT, proof=""), "the leak could not be read"),
        (replace(LIMIT, problem="it broke"), "it broke"),
    ):
        result = ControlsRun((CAUGHT,), (shown,)).result
        assert result.verdict is Verdict.FAILS
        assert why in result.evidence[0]
