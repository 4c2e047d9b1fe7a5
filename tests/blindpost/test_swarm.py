"""`blindpost simulate`: shipped names, `--list`, `--swarm`, `--bug`, `--judge`; what it says, and how it ends."""

from pathlib import Path

import pytest

from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus
from sim.scenarios import names


def test_list_names_every_shipped_scenario_with_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--list"]) == ExitStatus.OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names()


def test_shipped_scenario_runs_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "traffic.chats_per_day = 0.3", "--set", "traffic.mails_per_day = 0.2"]
    assert main(["simulate", "gulf-2010", "--people", "8", *few]) == ExitStatus.OK
    assert "Saudi Arabia on 2010-08-06 06:00:00 is blocked" in capsys.readouterr().out


def test_the_log_of_a_run_is_verified_by_hand_with_the_report_made_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    few = ["--people", "10", "--set", "traffic.chats_per_day = 3"]
    assert main(["simulate", "clemenza-2010", *few, "--out", str(out)]) == ExitStatus.OK
    assert "public log: 4 leaves" in capsys.readouterr().out
    check = ["log", "verify", str(out / "transparency"), "--relay-card", str(out / "relay-card.toml")]
    assert main([*check, "--report", str(out / "transparency-report")]) == ExitStatus.OK
    said = capsys.readouterr().out
    assert "follows from the log, byte for byte" in said
    assert "4 leaves, 1 orders, 0 sealed, 0 open" in said
    report = (out / "transparency-report" / "requests.csv").read_text(encoding="utf-8")
    assert ",CA,interception,account,1,1,1,1,Royal Canadian Mounted Police," in report
    assert 'href="transparency-report/report.html"' in (out / "timeline.html").read_text(encoding="utf-8")
    # The twin: one letter of a leaf is another, and the command says so.
    (bundle,) = (out / "transparency" / "tile" / "entries").rglob("4")
    bundle.write_bytes(bundle.read_bytes().replace(b"Mounted", b"mounted"))
    assert main(check) == ExitStatus.NOT_BLIND
    assert "its root is not that of the entries" in capsys.readouterr().out


def test_name_that_is_neither_a_file_nor_shipped_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "nowhere-2010"]) == ExitStatus.NO_INPUT
    assert "--list" in capsys.readouterr().err


def test_honest_swarm_says_how_much_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--swarm", "2", "--seed", "3", "--minutes", "5"]) == ExitStatus.OK
    said = capsys.readouterr().out
    assert said.startswith("2 of 2 scenarios from seed 3 on")
    assert said.endswith("every invariant held\n")


def test_swarm_whose_time_is_over_before_all_ran_does_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--swarm", "5", "--minutes", "0.0000001"]) == ExitStatus.INCOMPLETE
    assert "0 of 5 scenarios" in capsys.readouterr().out


def test_planted_bug_is_found_written_and_repeated_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["simulate", "--swarm", "2", "--seed", "2", "--bug", "ack-not-erased", "--out", str(tmp_path / "out")]
    assert main(words) == ExitStatus.OK
    said = capsys.readouterr().out
    assert "blindpost simulate --swarm 1 --seed 2 --bug ack-not-erased" in said
    assert said.endswith("ack-not-erased: found\n")
    shrunk = tmp_path / "out" / "ack-not-erased-2.toml"
    assert main(["simulate", str(shrunk), "--judge", "--bug", "ack-not-erased"]) == ExitStatus.NOT_BLIND
    assert "every ack is honoured" in capsys.readouterr().out
    assert main(["simulate", str(shrunk), "--judge"]) == ExitStatus.OK


def test_planted_bug_that_the_budget_does_not_show_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--swarm", "5", "--minutes", "0.0000001", "--bug", "text-in-body"]
    assert main(words) == ExitStatus.NOT_BLIND
    assert "text-in-body: NOT FOUND" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--swarm", "2", "--bug", "no-such-bug"],
        ["--swarm", "0"],
        ["--swarm", "2", "--minutes", "0"],
        ["bad-week", "--swarm", "2"],
        ["bad-week", "--bug", "text-in-log"],
        [],
    ],
)
def test_wrong_usage_is_refused(words: list[str]) -> None:
    assert main(["simulate", *words]) == ExitStatus.USAGE
