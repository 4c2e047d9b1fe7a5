"""Keys in a relay's memory: each of the 24 that one process keeps is named at its place, and without them none is."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit import Report
from sim.mutants.catalogue import CATALOGUE
from sim.mutants.controls import Laboratory
from sim.mutants.key_plants import KINDS, Plants, key_search_of, masked_keys, plants_of
from sim.mutants.proofs import CheatFailed, Scene
from sim.mutants.relay_keys import MASK, PLACES, planted

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as folder:
        yield Laboratory(Path(folder)).serve(next(mutant for mutant in CATALOGUE if mutant.name in PLACES))


@pytest.fixture(scope="module")
def reports(scene: Scene) -> dict[str, Report]:
    return {name: scene.served.audit(key_search_of(scene, name)) for name in PLACES}


@pytest.mark.parametrize("name", PLACES)
def test_each_kind_is_named_at_its_place(name: str, scene: Scene, reports: dict[str, Report]) -> None:
    plants = plants_of(scene, name)
    assert tuple(plants.offsets) == KINDS
    assert plants.missed(reports[name]) == ""
    assert "search.windows" in reports[name].failed


def test_a_key_that_the_search_does_not_name_is_a_missed_one(scene: Scene, reports: dict[str, Report]) -> None:
    """The comparison can fail: another place, and a report without the search."""
    plants = plants_of(scene, "keys-mid-heap")
    elsewhere = {kind: tuple(at + 8 for at in offsets) for kind, offsets in plants.offsets.items()}
    moved = Plants(plants.name, plants.form, elsewhere)
    assert "was not named" in moved.missed(reports["keys-mid-heap"])
    assert "was not named" in plants.missed(replace(reports["keys-mid-heap"], key_coverage=None))


def test_keys_that_are_not_there_are_no_plants(scene: Scene) -> None:
    other = replace(scene.evidence, private_keys=[(bytes(32), bytes(range(32)))] * 4)
    with pytest.raises(CheatFailed, match="holds no X25519 private key"):
        plants_of(Scene(scene.served, other), "keys-in-zlib")


def test_keys_travel_masked(scene: Scene) -> None:
    told = masked_keys(scene.evidence, "keys-mid-heap")
    seed = scene.evidence.private_keys[0][0]
    assert seed.hex() not in str(told)
    assert bytes(a ^ b for a, b in zip(seed, MASK, strict=True)).hex() in str(told)
    spoils: dict[str, Any] = {"planted": {}}
    planted(Path(), spoils)
    assert spoils == {}
