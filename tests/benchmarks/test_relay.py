"""`python -m benchmarks relay`: it measures a real relay, and a run that lost or doubled mail gives no figures."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import relay as benchmark
from benchmarks.charts import Bars, Curves
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.machine import describe
from benchmarks.report import Report, new_report
from tests.relay.running import PROJECT, environment

SMALL = ["--rounds", "1", "--messages", "64", "--senders", "2", "--mailboxes", "3", "--frames", "8"]


def run(transport: str, out: Path, *more: str) -> Report:
    argv = [*SMALL, "--transports", transport, "--out", str(out), *more]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "relay", *argv],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    report = Report.read(out / "relay.json")
    assert report.command == "python -m benchmarks relay " + " ".join(argv)
    assert done.stderr == ""
    return report


def test_small_run_writes_figures_with_machine_versions_command_and_plots(tmp_path: Path) -> None:
    report = run("nats", tmp_path, "--rates", "500", "--seconds", "0.2")
    assert str(report.machine["processor"]) in describe()
    assert "nats-server" in report.versions
    closed, opened = report.cases[1:]
    assert closed.metrics["receipted"].median > 0
    assert closed.metrics["relay CPU"].unit == "µs/message"
    assert closed.dimensions["mailboxes"] == 3
    assert opened.percentiles["submit to receipt"][0][0] == 50.0
    assert all(one > 0 for _, one in opened.percentiles["submit to delivery"])
    svg = (tmp_path / "relay.svg").read_text()
    assert svg.startswith("<svg ")
    assert closed.name in svg
    page = (tmp_path / "relay.html").read_text()
    assert "<script" not in page
    assert closed.name in page


def test_recipients_that_were_away_and_large_bodies_through_nats(tmp_path: Path) -> None:
    report = run("nats", tmp_path, "--rates", "none", "--ways", "online,away", "--content", "1024,196608")
    names = [case.name for case in report.cases[1:]]
    assert len(names) == 3
    assert [case.dimensions["body_bytes"] for case in report.cases[1:]] == [1_232, 196_696, 1_232]
    assert all(case.metrics["delivered"].median > 0 for case in report.cases[1:])


def test_transport_that_is_not_installed_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.servers.program", lambda name: None)
    assert benchmark.main(["--transports", "mosquitto", "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "relay.json")
    assert [one.name for one in report.skipped] == ["mosquitto"]
    assert "skipped: mosquitto: mosquitto is not installed" in capsys.readouterr().out


def test_failed_run_ends_with_status_1_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise LostOrDoubled("1 of 2 envelopes arrived")

    monkeypatch.setattr(benchmark, "measure", fails)
    assert benchmark.main(["--transports", "amqtt", "--out", str(tmp_path / "out")]) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors == "FAILED: LostOrDoubled: 1 of 2 envelopes arrived\n"
    assert not (tmp_path / "out").exists()


def test_amqtt_and_the_mqtt_listener_of_nats_carry_the_load_too(tmp_path: Path) -> None:
    argv = [*SMALL, "--transports", "amqtt,nats-mqtt", "--rates", "none", "--out", str(tmp_path)]
    assert benchmark.main(argv) == 0
    cases = Report.read(tmp_path / "relay.json").cases[1:]
    assert [case.dimensions["transport"] for case in cases] == ["amqtt", "nats-mqtt"]
    assert all(case.metrics["receipted"].median > 0 for case in cases)
    # amqtt runs inside the relay: its CPU cannot be told apart.
    assert ["broker CPU" in case.metrics for case in cases] == [False, True]


def test_curves_of_several_rates_are_all_drawn_under_their_rates() -> None:
    report = new_report("relay", "command", 1, {"processor": "x", "cores": 2}, {})
    for rate in (500.0, 2_000.0):
        setting = benchmark.Setting(rate_per_s=rate)
        case = report.case(setting.name, **setting.dimensions)
        case.percentiles["submit to receipt"] = [(50.0, 1.0), (99.0, 2.0)]
    (curves,) = benchmark.charts(report)
    assert isinstance(curves, Curves)
    assert list(curves.series) == ["nats, 1 a frame, 1 KiB at 500/s", "nats, 1 a frame, 1 KiB at 2000/s"]


def test_cpu_of_large_bodies_stands_in_a_chart_of_its_own() -> None:
    report = new_report("relay", "command", 1, {"processor": "x", "cores": 2}, {})
    for content_bytes, cpu in ((1_024, 40.0), (196_608, 2_000.0)):
        setting = benchmark.Setting(content_bytes=content_bytes)
        report.case(setting.name, **setting.dimensions).add("relay CPU", "µs/message", "less", cpu)
    drawn = [[row.median for row in chart.rows] for chart in benchmark.charts(report) if isinstance(chart, Bars)]
    assert drawn == [[40.0], [2_000.0]]
