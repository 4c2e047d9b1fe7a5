"""docs/performance.md agrees with the reference results, and the results are results."""

import re

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.documented import PAGE, RESULTS, read_results, with_tables
from benchmarks.reference import COMMANDS
from benchmarks.report import Report


def test_tables_of_the_page_are_those_of_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, read_results()) == page, "make them again: python -m benchmarks.documented"


def test_changed_figure_would_be_found() -> None:
    results = read_results()
    case = next(one for one in results["relay"].cases if "receipted" in one.metrics)
    case.metrics["receipted"].rounds = [123_456.0]
    page = PAGE.read_text(encoding="utf-8")
    assert "123,456" in with_tables(page, results)
    assert with_tables(page, results) != page


def test_every_reference_result_is_there_with_its_plot_and_named_command() -> None:
    assert set(COMMANDS) <= set(NAMES)
    for name, command in COMMANDS.items():
        report = Report.read(RESULTS / f"{name}.json")
        assert report.benchmark == name
        assert report.command == f"python -m benchmarks {command}"
        assert (RESULTS / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg ")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*")), ids=lambda path: path.name)
def test_results_are_small_and_name_no_place_of_a_machine(path: object) -> None:
    assert hasattr(path, "read_text")
    text = path.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert not re.search(r"/(?:root|tmp|home|work)/", text)


def test_page_shows_every_plot() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {name for name in COMMANDS if f"results/{name}.svg" in page} == set(COMMANDS)
