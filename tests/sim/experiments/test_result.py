"""A result's verdict is worth what its controls are worth, and its document has nothing that differs between runs."""

import json

from sim.experiments.result import Control, Figure, Result, Verdict


def result(held: bool, *caught: bool) -> Result:
    controls = tuple(Control(f"twin {at}", "cheats", each, "seen") for at, each in enumerate(caught))
    return Result("e", "C1", "It holds.", held, {"seed": 7, "a": 1.23456789}, (Figure("n", 2 / 3),), controls, ("x",))


def test_a_verdict_without_a_caught_twin_is_void() -> None:
    assert result(True).verdict is Verdict.VOID
    assert result(True, True, False).verdict is Verdict.VOID
    assert result(False, False).verdict is Verdict.VOID
    assert result(True, True).verdict is Verdict.HOLDS
    assert result(False, True).verdict is Verdict.FAILS


def test_a_document_is_plain_sorted_and_rounded() -> None:
    document = result(True, True).document()
    assert json.loads(json.dumps(document)) == document
    assert list(document["parameters"]) == ["a", "seed"]  # type: ignore[call-overload]
    assert document["parameters"] == {"a": 1.234568, "seed": 7}
    assert document["figures"] == [{"name": "n", "value": 0.666667, "unit": ""}]
    assert document["verdict"] == "holds"
