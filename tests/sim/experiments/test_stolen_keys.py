"""Seizure and harvest: the protocol holds, each twin is caught, and the adversary's means are the whole of them."""

from pathlib import Path

import pytest

from keys.chain import chain_step
from sim.experiments import harvest, seizure
from sim.experiments.result import Verdict

pytestmark = pytest.mark.slow


def test_a_seized_device_opens_what_was_under_way_and_neither_past_nor_future(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = seizure.run(tmp_path, 1, lambda *words: told.append(words))
    assert result.verdict is Verdict.HOLDS
    figures = {figure.name: figure.value for figure in result.figures}
    assert figures["texts under way that the adversary opens"] == figures["texts under way at the seizure"] == 1
    assert figures["bodies of before that the adversary opens"] == 0
    assert figures["bodies after the next round trip that the adversary opens"] == 0
    assert [control.name for control in result.controls if control.caught] == [
        "attack-works",
        "standing-chain",
        "no-ratchet-step",
        "identity-as-ratchet-key",
    ]
    assert told[-1] == ("done", 4, 4)


def test_all_x25519_private_keys_open_nothing_and_everything_of_the_twin(tmp_path: Path) -> None:
    result = harvest.run(tmp_path, 1)
    assert result.verdict is Verdict.HOLDS
    figures = {figure.name: figure.value for figure in result.figures}
    assert figures == {
        "texts that were written": 4,
        "bodies opened": 0,
        "sealed senders opened": 0,
        "first messages whose ephemeral private key the adversary lacks": 0,
    }
    assert [(control.name, control.caught) for control in result.controls] == [
        ("x25519-only", True),
        ("ml-kem-for-the-seal-only", True),
        ("ml-kem-for-the-content-only", True),
    ]
    assert result.controls[0].how == "the same adversary reads 4 of 4 texts"
    assert result.controls[1].how == "without opening a seal it reads 4 of 4 texts"


def test_a_key_in_whatever_field_of_a_session_is_found() -> None:
    chain, message = b"\x11" * 32, b"\x22" * 32
    found = seizure._windows(b"\x01\xc4\x20" + message + b"\xc4\x20" + chain)
    assert message in found
    assert chain_step(chain_step(chain)[0])[1] in found


def test_what_the_adversary_has_is_not_shown_by_a_repr() -> None:
    from sim.experiments.recorded import Recording

    shown = repr(harvest.Harvest(Recording(), {b"\x01" * 32: b"\x02" * 32}))
    assert "redacted" in shown
    assert "02" * 16 not in shown
    assert r"\x02" not in shown


def test_an_outcome_that_opens_something_is_told() -> None:
    opened = seizure.Outcome(4, 1, 1, 1, 0, 4, 2)
    assert seizure._evidence(opened) == (
        "1 bodies of before the seizure open",
        "2 bodies of after the round trip open",
    )
