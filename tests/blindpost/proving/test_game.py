"""`blindpost prove game`: the plan first, a page without scripts, and errors before anything is played."""

import sys
from pathlib import Path

import pytest

from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus
from sim.experiments import game
from sim.experiments.game.experiment import Score, conclude
from sim.experiments.game.plan import ADVERSARIES, TWINS
from sim.experiments.result import Result


def _scores(advantage: float) -> list[Score]:
    return [Score(name, advantage, advantage - 0.013, advantage + 0.013) for name in ADVERSARIES]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[game.Plan]:
    """A game that is over at once: what it measured is made up, what is planned and shown is not."""
    plans: list[game.Plan] = []

    def run(plan: game.Plan, _workers: int, _on_progress: object) -> Result:
        plans.append(plan)
        return conclude(plan, _scores(0.0), {name: _scores(0.98) for name in TWINS})

    monkeypatch.setattr(game, "run", run)
    return plans


def test_the_plan_and_its_hash_are_printed_before_the_result(
    played: list[game.Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "game.html"
    assert main(["prove", "game", "--view", "live", "--seed", "7", "--html", str(page)]) == ExitStatus.OK
    shown = capsys.readouterr()
    assert played == [game.Plan(seed=7, view=game.View.LIVE)]
    assert f"plan {played[0].digest()}" in shown.err
    assert "a blind relay fails this plan with probability 0.0098 at most" in shown.err
    assert "8 of 8 caught" in shown.out
    assert "HOLDS" in shown.out
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") == 2
    assert "<script" not in text


def test_too_few_episodes_are_refused_before_anything_is_played(
    played: list[game.Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prove", "game", "--episodes", "1000"]) != ExitStatus.OK
    assert "49,152 are enough" in capsys.readouterr().err
    assert not played


def test_a_page_that_is_there_is_not_overwritten_and_nothing_is_played_for_it(
    played: list[game.Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "game.html"
    page.write_text("mine")
    assert main(["prove", "game", "--html", str(page)]) == ExitStatus.CANNOT_CREATE
    assert page.read_text() == "mine"
    assert not played


def test_without_scikit_learn_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("scipy", "scipy.stats", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["prove", "game"]) == ExitStatus.UNAVAILABLE
    error = capsys.readouterr().err
    assert "scipy is not installed" in error
    assert "hint: pip install 'blindpost[prove]'" in error
