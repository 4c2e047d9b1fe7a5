"""Leaving a country to its end: the day must have come, the service ends for those named, and the log says so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from audit.material import read_card
from audit.order_log import verify_log
from blindpost import leaving
from blindpost.__main__ import main
from blindpost.errors import CommandError
from relay.core.docket import DocketError
from relay.home import Home
from wire.errors import FormatError

DAY_S = 86_400
KARACHI = ("karachi.example",)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "relay"
    assert main(["relay", "init", "--home", str(home)]) == 0
    key = str(tmp_path / "key")
    assert main(["tenant", "add", *KARACHI, "--home", str(home), "--out", key, "--unprotected"]) == 0
    return home


def test_the_service_ends_on_its_day_and_not_before(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = int(time.time())
    leaving.leave(home, "PK", "announce", now_s + DAY_S, KARACHI, tmp_path / "notice")
    with pytest.raises(CommandError):
        leaving.leave(home, "PK", "extend", now_s + 2 * DAY_S, (), tmp_path / "notice")
    with pytest.raises(DocketError, match="later day"):
        leaving.leave(home, "PK", "complete", 0, KARACHI, None)
    assert Home.open(home).ended_tenants() == ()
    monkeypatch.setattr(leaving, "now_s", lambda: now_s + 2 * DAY_S)
    with pytest.raises(FormatError, match="not admitted"):
        leaving.leave(home, "PK", "complete", 0, ("elsewhere.example",), None)
    index, text = leaving.leave(home, "PK", "complete", 0, KARACHI, None)
    assert "has ended for one company" in text
    assert "nothing that was receipted is lost" in text
    assert Home.open(home).ended_tenants() == KARACHI
    log = verify_log(home / "transparency", read_card((home / "relay-card.toml").read_bytes(), "card"))
    assert log.findings == []
    assert [(step.index, step.step) for step in log.exits] == [(1, "announced"), (index, "completed")]
    assert "karachi" not in "".join(step.text for step in log.exits)
    with pytest.raises(DocketError):
        leaving.leave(home, "PK", "cancel", 0, (), None)


def test_a_day_or_a_minute_is_announced_and_named_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_of = ["order", "exit", "PK", "--home", str(home), "--tenant", *KARACHI]
    assert main([*exit_of, "--announce", "2099-11-30T17:30"]) == 0
    assert "ends on 2099-11-30, 17:30 UTC, for one company" in capsys.readouterr().out
    assert main([*exit_of, "--extend", "2099-12-30"]) == 0
    assert "ends on 2099-12-30, and not before" in capsys.readouterr().out
    assert main([*exit_of, "--extend", "2099-12-30T24:30"]) == 64


def test_a_file_of_ended_companies_that_is_none_stops_the_relay(home: Path) -> None:
    (home / "ended-tenants").write_text("no domain!\n")
    with pytest.raises(FormatError):
        Home.open(home).ended_tenants()
