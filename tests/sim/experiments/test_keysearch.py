"""The key search as an experiment: it holds, fails or is void for a reason; the same inputs give the same document."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.errors import AuditError
from audit.keysearch import QUICK, Form, KeyKind, KeySearchError
from sim.experiments import keysearch
from sim.experiments.controls import ControlsRun, Shown
from sim.experiments.result import Result, Verdict
from sim.mutants.controls import ControlResult
from sim.mutants.relay_keys import OUT_OF_REACH, PLACES
from sim.mutants.unseen import UNSEEN
from tests.audit.honest import HonestRelay
from tests.audit.keysearch.keeping import image_with

CAUGHT = tuple(ControlResult(name, "search.windows", ("search.windows",), "", "there", True) for name in PLACES)
LIMIT = Shown(next(cheat for cheat in UNSEEN if cheat.name == OUT_OF_REACH), proof="it is there")
SETTINGS = replace(
    keysearch.settings_of(workers=1),
    kinds=frozenset({KeyKind.MESSAGE, KeyKind.X25519}),
    sections=frozenset({"memory, heap", "memory, anonymous", "log"}),
)


@pytest.fixture
def relay() -> HonestRelay:
    relay = HonestRelay(people=2, one_time_prekeys=0)
    relay.commit(relay.write(b"strictly between us"))
    image_with(relay, relay.relay_id)
    return relay


def result_of(
    relay: HonestRelay, folder: Path, monkeypatch: pytest.MonkeyPatch, run: ControlsRun | None = None
) -> Result:
    asked: list[object] = []

    def controls(workers: int, names: list[str], progress: object) -> ControlsRun:
        asked.extend(names)
        return run or ControlsRun(CAUGHT, (LIMIT,))

    monkeypatch.setattr(keysearch, "run_controls", controls)
    if not (folder / "d").exists():
        relay.disclose(folder / "d")
    result = keysearch.run(folder / "d", relay.card, SETTINGS)
    assert asked == [*PLACES, OUT_OF_REACH]
    return result


def test_it_holds_where_no_key_is_kept_and_two_runs_say_the_same(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of(relay, tmp_path, monkeypatch)
    assert (result.verdict, result.claim) == (Verdict.HOLDS, "C1")
    assert result.document() == result_of(relay, tmp_path, monkeypatch).document()
    figures = {figure.name: figure.value for figure in result.figures}
    assert figures["keys found"] == 0
    assert figures["known: key commitments"] == 1
    assert figures["chain keys out of reach, shown not to be seen"] == 1
    assert any("Ed25519" in limit for limit in result.limits), "what was not tried is said"


def test_it_fails_where_a_key_is_kept_and_says_where(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = image_with(relay, relay.letters[0].message_key)
    result = result_of(relay, tmp_path, monkeypatch)
    assert result.verdict is Verdict.FAILS
    assert f"memory/image.bin, byte {place}" in result.evidence[0]
    assert relay.letters[0].message_key.hex() not in str(result.document())


def test_it_is_void_if_a_relay_that_keeps_keys_is_not_caught(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = replace(CAUGHT[0], problem="the message key at byte 8 was not named")
    result = result_of(relay, tmp_path, monkeypatch, ControlsRun((missed, *CAUGHT[1:]), (LIMIT,)))
    assert result.verdict is Verdict.VOID
    assert result.controls[0].how == "the message key at byte 8 was not named"


def test_a_limit_that_is_none_fails_it(relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(LIMIT, caught_by=("search.windows",))
    result = result_of(relay, tmp_path, monkeypatch, ControlsRun(CAUGHT, (found,)))
    assert result.verdict is Verdict.FAILS
    assert OUT_OF_REACH in result.evidence[0]


def test_a_disclosure_without_memory_shows_nothing_of_memory(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.disclose(tmp_path / "d", memory=False)
    result = result_of(relay, tmp_path, monkeypatch)
    assert result.verdict is Verdict.HOLDS
    assert "no memory image was handed over: nothing of memory is shown" in result.limits


def test_places_beyond_the_bounds_are_not_passed_over(
    relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.keysearch.search.DECODED_WINDOWS_MAX", 10)
    image_with(relay, relay.draw(100).hex().encode())
    result = result_of(relay, tmp_path, monkeypatch)
    assert result.verdict is Verdict.FAILS
    assert "beyond the bounds" in result.evidence[0]


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        keysearch.run(tmp_path / "nothing", HonestRelay().card, SETTINGS)


def test_full_is_everything_and_quick_is_not() -> None:
    quick, full = keysearch.settings_of(), keysearch.settings_of(full=True, alignment=1)
    assert quick.kinds == QUICK
    assert Form.DEFLATE not in quick.forms
    assert not quick.whole
    assert full.whole
    with pytest.raises(KeySearchError):
        keysearch.settings_of(alignment=3)
