"""The cheats that nobody can see: each leaks for real, none is caught, and none is found where nobody cheated."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.mutants import relay_unseen
from sim.mutants.catalogue import Mutant, Side
from sim.mutants.controls import Laboratory
from sim.mutants.key_plants import key_search_of
from sim.mutants.outside import arrived, outside
from sim.mutants.proofs import CheatFailed, Scene
from sim.mutants.relay_keys import OUT_OF_REACH
from sim.mutants.unseen import UNSEEN, UNSEEN_CLIENT_CHEATS, Unseen

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = [cheat.name for cheat in UNSEEN]


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory() as folder:
        yield Laboratory(Path(folder))


@pytest.fixture(scope="module")
def honest_scene(laboratory: Laboratory) -> Scene:
    return laboratory.serve(Mutant("honest", Side.RELAY, "", "", "", lambda _: ""))


@pytest.mark.parametrize("cheat", UNSEEN, ids=NAMES)
def test_the_leak_is_real_and_the_verdict_stays_blind(cheat: Unseen, laboratory: Laboratory) -> None:
    scene = laboratory.serve(cheat)
    assert cheat.proof(scene)
    report = scene.served.audit(key_search_of(scene, cheat.name))
    assert (report.exit_status, report.failed) == (0, ())


@pytest.mark.parametrize("cheat", UNSEEN, ids=NAMES)
def test_a_proof_finds_nothing_where_nobody_cheated(cheat: Unseen, honest_scene: Scene) -> None:
    with pytest.raises(CheatFailed):
        cheat.proof(honest_scene)


def test_every_unseen_cheat_of_the_code_is_listed_and_in_the_docs() -> None:
    assert {*relay_unseen.UNSEEN, *UNSEEN_CLIENT_CHEATS, OUT_OF_REACH} == set(NAMES)
    text = (DOCS / "controls.md").read_text(encoding="utf-8").split("## Cheats that nobody can see")[1]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert rows == [(cheat.name, cheat.side.value, cheat.cheat, cheat.stands_for, cheat.why) for cheat in UNSEEN]


def test_the_other_machine_keeps_what_arrives_and_nothing_else(tmp_path: Path) -> None:
    with outside(tmp_path):
        pass
    assert arrived(tmp_path) == []
