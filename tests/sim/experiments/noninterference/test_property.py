"""Non-interference over generated populations and faults, and the twins that break it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sim.experiments.noninterference import run
from sim.experiments.noninterference.experiment import (
    bit_control,
    client_control,
    relay_control,
    replays_of,
    twin_script,
)
from sim.experiments.noninterference.recording import Recording, UnequalLength, record, replay
from sim.experiments.noninterference.script import Script, Send
from sim.experiments.noninterference.stage import Parts
from sim.experiments.noninterference.twins import RELAY_TWINS, Proof, RelayTwin
from sim.experiments.result import Verdict
from sim.strategies import scripts


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    with tempfile.TemporaryDirectory() as folder:
        yield record(twin_script(3, 120), Path(folder))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts())
def test_relay_does_the_same_whatever_is_in_the_bodies(script: Script) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "record").mkdir()
        replays = replays_of(record(script, folder / "record"), folder)
        for compared in replays.compared.values():
            assert compared.difference is None, str(compared.difference)
            assert compared.observations == len(replays.own.observations)


def test_relay_on_sqlite_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    recorded = record(twin_script(5, 40), tmp_path / "record", sqlite=True)
    replays = replays_of(recorded, tmp_path)
    assert replays.held, [str(compared.difference) for compared in replays.compared.values()]
    assert replays.compared["random bytes"].declared > 100


def test_recipients_open_the_other_contents_too(recording: Recording) -> None:
    assert recording.opened > 100
    for variants in recording.said.values():
        for said in variants:
            assert said.bodies[0] != said.bodies[1]
            assert len(said.bodies[0]) == len(said.bodies[1])
            assert said.letter.contents[0] != said.letter.contents[1]


def test_run_meets_faults_refusals_and_restarts(recording: Recording) -> None:
    assert any(arrival.spoilt_at is not None for arrival in recording.arrivals)
    assert recording.trace.count("rows") >= 4
    refused = [seen.value[0]["refusals"] for seen in recording.trace.observations if seen.kind == "metrics"]
    assert any(refused)
    assert any(len(said.bodies[0]) > 32_768 for variants in recording.said.values() for said in variants)


@pytest.mark.parametrize("twin", RELAY_TWINS, ids=lambda twin: twin.name.replace(" ", "-"))
def test_relay_that_depends_on_content_is_found(twin: RelayTwin, recording: Recording, tmp_path: Path) -> None:
    control = relay_control(twin, recording, tmp_path)
    assert control.caught, control.how


def _honest(_proof: Proof) -> Parts:
    return Parts()


def test_twin_whose_cheat_does_not_work_is_not_counted_as_caught(recording: Recording, tmp_path: Path) -> None:
    idle = RelayTwin("idle", "cheats never", _honest, bool)
    control = relay_control(idle, recording, tmp_path)
    assert not control.caught
    assert control.how == "its cheat did not work in this run"


def test_honest_relay_in_a_twins_place_is_not_caught(recording: Recording, tmp_path: Path) -> None:
    def made(proof: Proof) -> Parts:
        proof.add("worked")
        return Parts()

    honest = RelayTwin("honest", "does nothing", made, bool)
    assert not relay_control(honest, recording, tmp_path).caught


def test_client_without_padding_is_found() -> None:
    control = client_control(twin_script(3, 40))
    assert control.caught, control.how


def test_one_bit_in_a_field_that_is_no_function_of_bodies_is_found(recording: Recording) -> None:
    control = bit_control(recording, recording.trace)
    assert control.caught, control.how
    assert control.how == "rows.tombstones[].key"


def test_replacement_of_another_length_is_refused(recording: Recording, tmp_path: Path) -> None:
    bodies = {key: tuple(body + b"\0" for body in variants) for key, variants in recording.bodies(0).items()}
    with pytest.raises(UnequalLength):
        replay(recording, bodies, tmp_path)


@pytest.mark.slow
def test_same_seed_gives_the_same_document() -> None:
    first, second = (run(2, 12, twin_messages=60) for _ in range(2))
    assert first.document() == second.document()
    assert first.verdict is Verdict.HOLDS


def test_script_is_played_from_its_seed_alone(tmp_path: Path) -> None:
    script = Script(7, 2, (Send(0, 0, 1, 20), Send(500, 1, 0, 30)))
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    one, other = (record(script, folder) for folder in folders)
    assert [arrival.at_s for arrival in one.arrivals] == [arrival.at_s for arrival in other.arrivals]
    assert set(one.said) == set(other.said)
    assert one.opened == 4
