"""The whole game in small: an honest relay holds, leaks fail, a twin that nobody catches makes it void."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from sim.experiments.game import Plan, View, page_section, run
from sim.experiments.game.experiment import Score, conclude
from sim.experiments.game.plan import ADVERSARIES, TWINS
from sim.experiments.game.playing import Table
from sim.experiments.result import Result, Verdict
from wire.errors import FormatError

SMALL = Plan(
    episodes=64,
    training_episodes=64,
    twin_episodes=128,
    twin_training_episodes=64,
    adversaries=("timing", "order", "linear"),
    twins=("timed",),
    advantage_max=0.9,
)


def _scores(**others: float) -> list[Score]:
    """A blind relay's, but for those named."""
    return [
        Score(name, others.get(name, 0.0), others.get(name, 0.0) - 0.013, others.get(name, 0.0) + 0.013)
        for name in ADVERSARIES
    ]


CAUGHT = {name: _scores(boosting=0.98) for name in TWINS}


Told = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def small() -> tuple[Result, Told]:
    told: Told = []
    return run(SMALL, on_progress=lambda *state: told.append(state)), told


def test_an_honest_relay_is_not_called_leaky(small: tuple[Result, Told]) -> None:
    live = replace(SMALL, view=View.LIVE)
    for plan, result in ((SMALL, small[0]), (live, run(live))):
        assert result.verdict is Verdict.HOLDS
        assert not result.evidence
        assert [control.caught for control in result.controls] == [True]
        assert result.parameters["plan"] == plan.digest()


def test_a_twin_that_the_adversaries_cannot_see_makes_the_result_void() -> None:
    result = run(replace(SMALL, adversaries=("order",)))
    assert result.held
    assert result.verdict is Verdict.VOID
    assert any(line.startswith("void: no adversary reached 0.9 on the twin timed") for line in result.evidence)


def test_no_twin_at_all_is_void_too() -> None:
    assert conclude(replace(Plan(), twins=()), _scores(), {}).verdict is Verdict.VOID


def test_the_document_is_the_same_for_one_seed_and_another_for_another(small: tuple[Result, Told]) -> None:
    again, other = (json.dumps(run(replace(SMALL, seed=seed)).document()) for seed in (1, 2))
    assert json.dumps(small[0].document()) == again != other


@pytest.mark.slow
def test_the_document_is_the_same_for_any_number_of_processes() -> None:
    plan = replace(SMALL, episodes=300, adversaries=("timing", "boosting", "k-NN"))
    assert run(plan, 1).document() == run(plan, 2).document()


def test_an_advantage_on_either_side_fails_and_is_named() -> None:
    for advantage in (0.02, -0.02):
        result = conclude(Plan(), _scores(boosting=advantage), CAUGHT)
        assert result.verdict is Verdict.FAILS
        assert result.evidence[0].startswith(f"boosting: advantage {advantage:+.4f}")


def test_an_interval_that_is_too_wide_fails() -> None:
    wide = [*_scores()[:-1], Score("k-NN", 0.0, -0.05, 0.05)]
    assert conclude(Plan(), wide, CAUGHT).verdict is Verdict.FAILS


def test_a_twin_needs_the_lower_end_above_nine_tenths() -> None:
    almost = CAUGHT | {"kind flag": _scores(positions=0.91)}
    result = conclude(Plan(), _scores(), almost)
    assert result.verdict is Verdict.VOID
    assert [control.name for control in result.controls if not control.caught] == ["kind flag"]


def test_figures_say_the_bayes_risk_and_how_often_a_blind_relay_fails() -> None:
    figures = {figure.name: figure.value for figure in conclude(Plan(), _scores(), CAUGHT).figures}
    assert figures["Bayes risk, k-NN estimate with k = 9"] == 0.5
    assert figures["a blind relay would fail, any adversary, at most"] == Plan().blind_failure()
    assert figures["a blind relay would fail, one adversary, exactly"] == Plan().blind_failure_each()


def test_progress_counts_every_episode(small: tuple[Result, Told]) -> None:
    told = small[1]
    assert told[-1] == ("honest: linear guesses", 320, 320)
    assert [done for _what, done, _total in told] == sorted(done for _what, done, _total in told)


@pytest.mark.parametrize("workers", [0, 65])
def test_a_senseless_number_of_processes_is_refused(workers: int) -> None:
    with pytest.raises(FormatError, match="workers"):
        Table(workers)


def test_the_picture_shows_every_adversary_and_twin_without_scripts() -> None:
    section = page_section(conclude(Plan(), _scores(boosting=0.02), CAUGHT))
    assert "<script" not in section
    assert "href" not in section
    tree = ElementTree.fromstring(section.replace("xmlns=", "data-xmlns="))
    words = [element.text for element in tree.iter("text")]
    for name in ADVERSARIES:
        assert name in words
    for name in TWINS:
        assert f"{name}, boosting" in words
    assert "Distinguishing game: fails" in section


def test_the_picture_draws_a_point_between_the_ends_of_its_interval() -> None:
    tree = ElementTree.fromstring(page_section(conclude(Plan(), _scores(), CAUGHT)).replace("xmlns=", "data-xmlns="))
    plot = next(tree.iter("svg"))
    points = [(float(circle.attrib["cx"]), circle.attrib["cy"]) for circle in plot.iter("circle")]
    assert len(points) == len(ADVERSARIES)
    for x, y in points:
        bars = [line for line in plot.iter("line") if line.attrib["y1"] == line.attrib["y2"] == y]
        assert [float(bar.attrib["x1"]) < x < float(bar.attrib["x2"]) for bar in bars] == [True]


@pytest.mark.parametrize("limit", [0.03, 0.3])
def test_the_limit_is_drawn_inside_the_axis_where_it_belongs(limit: float) -> None:
    section = page_section(conclude(replace(Plan(), advantage_max=limit), _scores(), CAUGHT))
    plot = next(ElementTree.fromstring(section.replace("xmlns=", "data-xmlns=")).iter("svg"))
    ticks = {element.text: float(element.attrib["x"]) for element in plot.iter("text")}
    step = 0.01 if limit < 0.1 else 0.1
    a_step = ticks[f"{step:g}"] - ticks["0"]
    assert ticks[f"limit {limit:g}"] - ticks["0"] == pytest.approx(limit / step * a_step, abs=0.5)
