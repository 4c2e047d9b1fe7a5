"""The form of results: what is written is read back, and what is not a result is refused with the field's name."""

from pathlib import Path

import pytest

from benchmarks.charts import Bars, Chart, Curves, Lines, Row, svg_of
from benchmarks.page import page_of
from benchmarks.report import Report, ReportError, Skipped, new_report


def a_report() -> Report:
    report = new_report("relay", "python -m benchmarks relay", 3, {"processor": "x", "cores": 2}, {"Python": "3.11"})
    case = report.case("nats <1 & 2>", transport="nats", envelopes_a_frame=1)
    for one in (1.5, 2.0, 9.0):
        case.add("receipted", "/s", "more", one)
    case.percentiles["receipt"] = [(50.0, 1.25), (100.0, 9.0)]
    report.skipped.append(Skipped("Synapse", "its load is not built yet"))
    return report


def test_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "relay.json"
    report = a_report()
    path.write_bytes(report.to_json())
    assert Report.read(path) == report
    assert report.case("nats <1 & 2>").metrics["receipted"].median == 2.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"schema": 1', b'"schema": 2', "schema"),
        (b'"unit"', b'"units"', "units"),
        (b'"more"', b'"most"', "better"),
        (b'"seed": 3,', b"", "seed"),
        (b"[\n      1.5,\n      2.0,\n      9.0\n     ]", b"[]", "has no rounds"),
        (b"}", b"", "Expected"),
    ],
)
def test_file_that_is_no_result_is_refused_with_the_field(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    data = a_report().to_json()
    assert old in data
    path = tmp_path / "relay.json"
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ReportError, match=words):
        Report.read(path)


def test_page_has_everything_and_runs_nothing() -> None:
    report = a_report()
    charts: list[Chart] = [
        Bars("Accepted", "/s", "more", [Row("nats <1 & 2>", (1.5, 2.0, 9.0), 2.0)], [(5.0, "target")]),
        Lines("Cost", "envelopes", "µs", {"nats": [(1_000, 5.0, (4.0, 6.0)), (1_000_000, 5.5, (5.5,))]}),
        Curves("Latency", "ms", {"nats": [(50.0, 1.25), (99.9, 4.0), (100.0, 9.0)]}),
    ]
    page = page_of(report, charts)
    assert "nats &lt;1 &amp; 2&gt;" in page
    assert "nats <1" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "its load is not built yet" in page
    svg = svg_of(charts)
    assert svg.count("<circle") >= 3 + 3 + 3
    assert "p99.9" in svg
    assert "1,000,000" in svg


def test_page_begins_with_where_it_was_measured_and_sets_several_cases_side_by_side() -> None:
    report = new_report("relay", "command", 7, {"processor": "A Processor", "cores": 2, "load_before": "0.50"}, {})
    for name, figure in (("one", 11.0), ("other", 22.0)):
        report.case(name).add("receipted", "/s", "more", figure)
    report.case("one").add("only here", "ms", "less", 33.0)
    head, _, rest = page_of(report, []).partition("<h2>Medians</h2>")
    assert "A Processor, 2 cores; load average before: 0.50; seed 7" in head
    table = rest.partition("</table>")[0]
    assert table.count("<tr>") == 3
    assert "receipted<br>/s" in table
    assert "only here" not in table
    alone = new_report("relay", "command", 7, {"processor": "A Processor", "cores": 2}, {})
    alone.case("one").add("receipted", "/s", "more", 1.0)
    assert "<h2>Medians</h2>" not in page_of(alone, [])


def test_legend_names_only_what_is_drawn_and_stays_inside_the_picture() -> None:
    words = ["short", "never drawn", "words that are far too long for one line " * 2]
    rows = [Row("a", (1.0,), 1.0, 0), Row("b", (2.0,), 2.0, 2)]
    svg = svg_of([Bars("Accepted", "/s", "more", rows, legend=words)])
    assert "never drawn" not in svg
    assert "far too long" in svg
    assert "a second; longer is better<" in svg
    # Too long to stand beside the unit, so it begins at the left, below it.
    assert '<circle cx="21"' in svg
    beside = svg_of([Bars("Accepted", "/s", "more", rows, legend=["short", "", "small"])])
    assert '<circle cx="415"' in beside
