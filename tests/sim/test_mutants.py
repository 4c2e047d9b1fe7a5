"""The controls: every cheat works, is caught by the check meant for it, and the honest twin passes."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import Verdict
from audit.checks import CHECKS, EARLIER
from sim.mutants import relay_side
from sim.mutants.catalogue import CATALOGUE, Mutant, Side
from sim.mutants.client_side import CLIENT_CHEATS
from sim.mutants.controls import ControlResult, Laboratory, run_controls
from sim.mutants.proofs import CheatFailed, Scene
from sim.mutants.relay_keys import PLACES
from wire.errors import BlindpostError

NAMES = [mutant.name for mutant in CATALOGUE]
DOCS = Path(__file__).resolve().parents[2] / "docs"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def results() -> dict[str, ControlResult]:
    return {result.name: result for result in run_controls(workers=1)}


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory() as folder:
        yield Laboratory(Path(folder))


@pytest.fixture(scope="module")
def honest_scene(laboratory: Laboratory) -> Scene:
    # A mutant's name that relay_side.py knows as doing nothing.
    return laboratory.serve(Mutant("honest", Side.RELAY, "", "", "", lambda _: ""))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_cheat_works_and_the_check_meant_for_it_catches_it(name: str, results: dict[str, ControlResult]) -> None:
    result = results[name]
    assert not result.problem
    assert result.proof, "the leak is really there"
    assert result.expected in result.caught_by
    assert result.finding, "the check says where"
    assert result.twin_passes, "the honest twin passes the same check"
    assert result.caught
    assert result.control.caught


@pytest.mark.slow
def test_the_honest_relay_is_blind_even_with_its_memory_image_and_the_pin_key(laboratory: Laboratory) -> None:
    report = laboratory.twin(memory=True)
    assert report.verdict is Verdict.BLIND, [outcome.findings + outcome.missing for outcome in report.outcomes]


def test_the_honest_world_at_rest_is_blind(laboratory: Laboratory) -> None:
    report = laboratory.twin(memory=False)
    assert report.verdict is Verdict.BLIND, [outcome.findings + outcome.missing for outcome in report.outcomes]
    openings = next(outcome for outcome in report.outcomes if outcome.about.check_id == "evidence.openings")
    assert openings.figures["rows opened"] == openings.figures["keys"] == 4
    assert openings.figures["canaries in opened rows"] == 4


@pytest.mark.parametrize("mutant", CATALOGUE, ids=NAMES)
def test_a_proof_finds_nothing_where_nobody_cheated(mutant: Mutant, honest_scene: Scene) -> None:
    """A proof that cannot fail proves nothing."""
    with pytest.raises((CheatFailed, BlindpostError, OSError, Exception)) as caught:
        mutant.proof(honest_scene)
    assert type(caught.value).__name__ in {
        "CheatFailed",
        "FormatError",
        "FileNotFoundError",
        "OperationalError",
        "Error",
    }, caught.value


def test_a_result_counts_only_with_cheat_check_and_twin() -> None:
    whole = ControlResult("a", "log.grammar", ("log.grammar",), "line 3", "there", twin_passes=True)
    assert whole.caught
    assert not ControlResult("a", "log.grammar", ("store.schema",), "", "there", twin_passes=True).caught
    assert not ControlResult("a", "log.grammar", ("log.grammar",), "", "", twin_passes=True).caught
    assert not ControlResult("a", "log.grammar", ("log.grammar",), "", "there", twin_passes=False).caught
    assert not ControlResult("a", "log.grammar", problem="it broke", proof="there", twin_passes=True).caught
    assert not ControlResult("a", "log.grammar", ("store.schema",), "", "there", twin_passes=True).control.caught


def test_a_relay_that_cannot_start_is_a_problem_and_no_catch(laboratory: Laboratory) -> None:
    with pytest.raises(CheatFailed, match="ended with 1"):
        laboratory.serve(Mutant("no-such-cheat", Side.RELAY, "", "", "", lambda _: ""))


def test_every_cheat_of_the_code_is_in_the_catalogue_and_the_other_way_round() -> None:
    cheats = {*relay_side.CHEATS, *PLACES, *CLIENT_CHEATS, "global-pin-key"} - {"honest"}
    assert cheats == set(NAMES)
    assert len(set(NAMES)) == len(NAMES) >= 12


def test_every_expected_check_is_one_of_the_verifiers() -> None:
    known = {about.check_id for about, _ in (*CHECKS, EARLIER)}
    assert {mutant.check for mutant in CATALOGUE} <= known


def test_a_cheating_relay_loads_nothing_that_would_give_it_away() -> None:
    command = [sys.executable, "-P", "-c", "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.modules)"]
    done = subprocess.run([*command, relay_side.__file__], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"sim", "keys", "client", "audit", "blindpost"}


def test_the_catalogue_in_the_docs_is_the_codes() -> None:
    text = (DOCS / "controls.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \| (.+?) \| `([a-z.]+)` \|$", text, re.MULTILINE)
    assert rows == [
        (mutant.name, mutant.side.value, mutant.cheat, mutant.stands_for, mutant.check) for mutant in CATALOGUE
    ]


def test_a_disclosure_without_the_card_is_incomplete(honest_scene: Scene) -> None:
    served = honest_scene.served
    from audit import run

    report = run(served.folder, volunteered=served.volunteered, commitments=served.commitments)
    assert report.verdict is Verdict.INCOMPLETE


def test_two_workers_give_the_results_of_one() -> None:
    names = ["extra-file", "left-out"]
    seen: list[str] = []
    both = run_controls(workers=2, names=names, on_result=lambda result: seen.append(result.name))
    assert [result.name for result in both] == ["left-out", "extra-file"]
    assert sorted(seen) == sorted(names)
    assert all(result.caught for result in both)
    assert isinstance(both[0], ControlResult)


def test_what_people_know_is_not_shown_by_a_repr(honest_scene: Scene) -> None:
    shown = repr(honest_scene)
    assert honest_scene.text not in shown
    assert honest_scene.device_seed.hex() not in shown
    assert repr(honest_scene.device_seed)[2:-1] not in shown
    assert "secrets=<redacted>" in shown
