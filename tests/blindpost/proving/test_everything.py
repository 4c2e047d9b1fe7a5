"""`prove all` and `prove verify`, with the audit for real and one small experiment in the place of all."""

import asyncio
import json
from pathlib import Path

import pytest

from blindpost.__main__ import main
from blindpost.proving import everything, proof_page
from sim.experiments import completeness, controls, erased, game, harvest, keysearch, seizure
from sim.experiments import generations as five
from sim.experiments.noninterference import experiment as noninterference
from sim.experiments.result import Control, Figure, Result
from sim.generations.worlds import Written, serve
from sim.world import World


def result(name: str, held: bool = True) -> Result:
    caught = Control("twin", "cheats", caught=True, how="seen")
    return Result(name, "C1", f"{name} <holds>.", held, {"seed": 1}, (Figure("n", 1),), (caught,), ("all else",))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo would have written: a disclosure, and what people have and give."""
    folder = tmp_path_factory.mktemp("proof")

    async def talked() -> Written:
        async with World.start(folder / "world") as world:
            await world.talk()
        return Written(world.home.path, world.evidence)

    served = serve(asyncio.run(talked()), folder / "disclosure")
    (folder / "relay-card.toml").write_bytes(served.card)
    (folder / "commitments.msgpack").write_bytes(served.commitments)
    (folder / "volunteered").mkdir()
    for at, data in enumerate(served.volunteered):
        (folder / "volunteered" / f"{at}.msgpack").write_bytes(data)
    assert served.order is not None
    (folder / "disclosure" / "order.toml").write_bytes(served.order)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every experiment says at once that it holds; each has tests of its own."""
    for module in (completeness, erased, game, harvest, seizure, noninterference):
        name = module.__name__.split(".")[2]
        monkeypatch.setattr(module, "run", lambda *a, name=name, **k: result(name))

    class Run:
        def __init__(self, name: str) -> None:
            self.result = result(name)
            self.told = ()

    monkeypatch.setattr(five, "run_generations", lambda *a: Run("generations"))
    monkeypatch.setattr(controls, "run_controls", lambda *a: Run("controls"))
    monkeypatch.setattr(keysearch, "judge", lambda *a: result("keysearch"))
    quick = keysearch.settings_of(alignment=8, full=False, workers=1)
    monkeypatch.setattr(keysearch, "settings_of", lambda **_: quick)
    # The game's picture wants a game's figures.
    monkeypatch.setattr(proof_page, "page_section", lambda played: f"<svg>{played.experiment}</svg>")


def test_the_same_story_gives_the_same_statement_which_its_key_verifies(
    story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = set()
    for name in ("one", "two"):
        assert main(["prove", "all", str(story), "--out", str(tmp_path / name), "--quick"]) == 0
        out = capsys.readouterr().out
        digests.add(out.splitlines()[-1])
        assert "HOLDS" in out
    assert len(digests) == 1
    key, other = tmp_path / "one" / "statement.key.pub", tmp_path / "two" / "statement.key.pub"
    statement = str(tmp_path / "one" / "statement.json")
    disclosure = str(story / "disclosure")
    assert main(["prove", "verify", statement, "--key", str(key), "--disclosure", disclosure]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] in digests
    assert "is the one that was examined" in out
    assert main(["prove", "verify", statement, "--key", str(other)]) == 65
    assert main(["prove", "verify", statement, "--key", str(key), "--disclosure", str(tmp_path)]) == 65
    page = (tmp_path / "one" / "proof.html").read_text(encoding="utf-8")
    assert "game &lt;holds&gt;" in page
    assert "<script" not in page
    assert json.loads((tmp_path / "one" / "game.json").read_text())["verdict"] == "holds"


def test_one_experiment_that_fails_is_the_exit_status_and_stands_in_the_statement(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(seizure, "run", lambda *a, **k: result("seizure", held=False))
    out = tmp_path / "proof"
    assert main(["prove", "all", str(story), "--out", str(out), "--key", str(tmp_path / "mine.key")]) == 1
    assert (tmp_path / "mine.key.pub").exists()
    capsys.readouterr()
    assert main(["prove", "verify", str(out / "statement.json"), "--key", str(tmp_path / "mine.key.pub")]) == 1
    assert "seizure          fails" in capsys.readouterr().out


def test_a_folder_that_is_no_story_and_an_output_that_is_there_are_refused(
    story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prove", "all", str(tmp_path), "--out", str(tmp_path / "proof")]) == 66
    assert "blindpost demo --out" in capsys.readouterr().err
    assert main(["prove", "all", str(story), "--out", str(tmp_path / "proof")]) == 73


def test_an_extra_that_is_not_installed_is_named(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(everything._Proof, "_experiments", missing)
    assert main(["prove", "all", str(story), "--out", str(tmp_path / "proof")]) != 0
    assert "sklearn is not installed" in capsys.readouterr().err
