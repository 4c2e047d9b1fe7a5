"""`compare`: a planted slowdown is found, noise is not, and what cannot be known is not claimed."""

import random
from pathlib import Path

import pytest

from benchmarks.compare import changes, main, ratio_interval
from benchmarks.report import Case, Report, new_report


def report(figures: dict[str, list[float]], better: str = "more") -> Report:
    made = new_report("relay", "python -m benchmarks relay", 1, {"processor": "x"}, {"Python": "3.11"})
    for name, rounds in figures.items():
        case: Case = made.case(name)
        for one in rounds:
            case.add("receipted", "/s", better, one)  # type: ignore[arg-type]
    return made


def noisy(rng: random.Random, level: float, rounds: int = 9) -> list[float]:
    return [level * rng.gauss(1, 0.02) for _ in range(rounds)]


def test_planted_slowdown_is_worse_and_sets_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(7)
    old, new = (
        report({"a": noisy(rng, 1_000), "b": noisy(rng, 500)}),
        report({"a": noisy(rng, 880), "b": noisy(rng, 500)}),
    )
    (tmp_path / "old.json").write_bytes(old.to_json())
    (tmp_path / "new.json").write_bytes(new.to_json())
    assert main([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 1
    out = capsys.readouterr().out
    assert "worse" in out
    assert [(one.case, one.verdict) for one in changes(old, new, 0.03)] == [("a", "worse"), ("b", "same")]


@pytest.mark.parametrize(("better", "verdict"), [("more", "better"), ("less", "worse"), ("", "changed")])
def test_same_rise_is_judged_by_which_way_is_better(better: str, verdict: str) -> None:
    rng = random.Random(3)
    old, new = report({"a": noisy(rng, 100)}, better), report({"a": noisy(rng, 130)}, better)
    assert changes(old, new, 0.03)[0].verdict == verdict


def test_noise_is_not_called_a_change() -> None:
    rng = random.Random(1)
    verdicts = [
        changes(report({"a": noisy(rng, 1_000)}), report({"a": noisy(rng, 1_000)}), 0.03)[0].verdict for _ in range(40)
    ]
    assert verdicts.count("same") == len(verdicts)


def test_two_rounds_are_too_few_to_know() -> None:
    assert changes(report({"a": [100.0, 101.0]}), report({"a": [50.0, 51.0]}), 0.03)[0].verdict == "unknown"


def test_interval_holds_the_true_ratio_and_repeats() -> None:
    rng = random.Random(5)
    old, new = noisy(rng, 100, 15), noisy(rng, 110, 15)
    low, high = ratio_interval(old, new, "seed")
    assert low < 1.1 < high
    assert (low, high) == ratio_interval(old, new, "seed")
    assert high - low < 0.06


def test_other_benchmark_or_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = report({"a": [1.0]}), new_report("store", "x", 1, {}, {})
    (tmp_path / "a.json").write_bytes(one.to_json())
    (tmp_path / "b.json").write_bytes(other.to_json())
    (tmp_path / "c.json").write_text('{"schema": 1, "benchmark": "relay"}')
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 64
    assert main([str(tmp_path / "a.json"), str(tmp_path / "c.json")]) == 64
    errors = capsys.readouterr().err
    assert "one is of relay, the other of store" in errors
    assert "missing required field" in errors
