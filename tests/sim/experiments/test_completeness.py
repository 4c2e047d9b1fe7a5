"""The experiment behind C5: it holds, its twins are convicted, and it would fail if the honest relay did not."""

from __future__ import annotations

import json

import pytest

from audit.evidence import Kind
from sim.experiments import completeness
from sim.experiments.result import Verdict
from sim.mutants.catalogue import CATALOGUE

pytestmark = pytest.mark.timeout(300)


def test_every_expected_cheat_is_in_the_catalogue() -> None:
    assert set(completeness.EXPECTED) <= {mutant.name for mutant in CATALOGUE}


@pytest.mark.slow
def test_the_honest_relay_is_complete_and_each_cheat_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"left-out": Kind.HIDDEN, "rewritten-history": Kind.HEADS_FORKED}
    monkeypatch.setattr(completeness, "EXPECTED", few)
    steps: list[tuple[str, int, int]] = []
    result = completeness.run(lambda *step: steps.append(step))
    assert result.verdict is Verdict.HOLDS, result.evidence
    assert [control.caught for control in result.controls] == [True, True]
    figures = {figure.name: int(figure.value) for figure in result.figures}
    honoured = figures["receipts in the store"] + figures["receipts acknowledged or withdrawn"]
    assert figures["receipts judged"] == honoured
    assert figures["false accusations tried on the honest relay"] == 1_024
    assert figures["false accusations that convict"] == figures["changed bundles that convict"] == 0
    assert steps[-1][1:] == (4, 4)
    assert json.dumps(result.document())


@pytest.mark.slow
def test_a_cheat_that_nothing_convicts_makes_the_result_void(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that adds a file hides no envelope: expecting a conviction of it shows that an experiment can be void."""
    monkeypatch.setattr(completeness, "EXPECTED", {"extra-file": Kind.HIDDEN})
    result = completeness.run()
    assert result.verdict is Verdict.VOID
    assert result.controls[0].how == "nothing convicts it"
