"""`blindpost bench` finds the benchmarks by name, hands their options on, and loads none before it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"relay", "peers", "store", "scale", "audit", "soak", "ratchet", "compare"} <= set(listed)


def test_unknown_name_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed"]) == ExitStatus.UNAVAILABLE
    assert capsys.readouterr().err == (
        "blindpost: error: there is no benchmark 'speed'\nblindpost: hint: 'blindpost bench' lists them\n"
    )


def test_options_go_to_the_benchmark_and_earlier_results_are_kept(tmp_path: Path) -> None:
    words = ["bench", "store", "--rounds", "1", "--messages", "20", "--stores", "sqlite", "--out", str(tmp_path)]
    assert main(words) == 0
    first = (tmp_path / "store.json").read_bytes()
    assert main(words) == 0
    assert (tmp_path / "store.json").read_bytes() == first
    assert json.loads((tmp_path / "store-2.json").read_bytes())["benchmark"] == "store"
    assert main(["bench", "compare", str(tmp_path / "store.json"), str(tmp_path / "store-2.json")]) == 0


def test_other_commands_load_no_benchmark() -> None:
    code = "import sys, blindpost.__main__ as m; m.build_parser(); print('benchmarks' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
