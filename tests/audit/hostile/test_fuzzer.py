"""The fuzzer reaches behind the signature, and says what it finds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audit
from audit import Verdict
from tests.audit.honest import HonestRelay
from tests.audit.hostile.fuzzer import main, one_round


@pytest.fixture(scope="module")
def relay() -> HonestRelay:
    return HonestRelay(people=2, one_time_prekeys=1).story_of_two()


@pytest.fixture(scope="module")
def honest(relay: HonestRelay, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return relay.disclose(tmp_path_factory.mktemp("fuzzed") / "honest")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_bent_gets_a_verdict(
    seed: int, relay: HonestRelay, honest: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round") / "bent"
    assert one_round(honest, folder, relay, random.Random(seed)) in Verdict


def test_a_verifier_that_breaks_is_told_and_its_disclosure_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: object, **_options: object) -> audit.Report:
        raise RecursionError

    monkeypatch.setattr(audit, "run", broken)
    assert main(["--seconds", "0.2", "--seed", "5", "--keep", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "seed 5000000" in told.err
    assert "; 0 broke" not in told.out
    assert (tmp_path / "5000000/manifest.msgpack").exists()
