"""Two disclosures of one relay: the later one must continue the earlier one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import audit
from audit import Report, Status, Verdict
from audit.__main__ import main
from tests.audit.auditing import execute, findings_of, missing_of, outcome_of
from tests.audit.honest import HonestRelay

CHECK = "history.earlier"
Bend = Callable[[sqlite3.Connection], None]


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story_of_two()


def compared(
    relay: HonestRelay, folder: Path, bend_store: Bend | None = None, bend_first: Bend | None = None
) -> Report:
    """Disclose, let more mail come, disclose again, and audit the second."""
    relay.disclose(folder / "first", memory=False, bend_store=bend_first)
    relay.time_ms += 60_000
    relay.commit(relay.write(b"later", 1, 0))
    relay.disclose(folder / "second", memory=False, bend_store=bend_store)
    return audit.run(folder / "second", card=relay.card, earlier=folder / "first")


def test_what_goes_on_is_consistent(relay: HonestRelay, tmp_path: Path) -> None:
    report = compared(relay, tmp_path)
    assert report.verdict is Verdict.BLIND
    outcome = outcome_of(report, CHECK)
    assert outcome.status is Status.PASSED
    assert outcome.figures == {"commits since": 1, "rows followed": 4, "rotations since": 0}


def test_without_an_earlier_one_there_is_nothing_to_compare(relay: HonestRelay, tmp_path: Path) -> None:
    relay.disclose(tmp_path / "d", memory=False)
    report = audit.run(tmp_path / "d", card=relay.card)
    assert CHECK not in {outcome.about.check_id for outcome in report.outcomes}
    assert report.verdict is Verdict.BLIND


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        ("DELETE FROM envelopes WHERE seq = 1", "disclosed neither it"),
        ("DELETE FROM tombstones", "the tombstone is gone or another one"),
        ("DELETE FROM lists WHERE seq = 3", "lists row 3: 1 rows of the earlier disclosure are gone"),
        ("UPDATE mailboxes SET enrolled_day = 3 WHERE seq = 2", "mailboxes row 2"),
        ("DELETE FROM tenants", "tenants row 1"),
        ("DELETE FROM rotations", "rotations row 1"),
    ],
)
def test_what_is_gone_is_found_without_any_receipt(relay: HonestRelay, tmp_path: Path, bend: str, words: str) -> None:
    assert words in findings_of(compared(relay, tmp_path, execute(bend)), CHECK)


def test_a_closed_mailbox_stays_closed(relay: HonestRelay, tmp_path: Path) -> None:
    report = compared(relay, tmp_path, bend_first=execute("UPDATE mailboxes SET closed = 1 WHERE seq = 3"))
    assert "is open again" in findings_of(report, CHECK)


def test_a_rotation_is_not_forgotten(relay: HonestRelay, tmp_path: Path) -> None:
    relay.disclose(tmp_path / "first", memory=False)
    older = HonestRelay().story_of_two()
    older.rotations.clear()
    older.signing_key = older.first_key
    older.time_ms += 60_000
    older.disclose(tmp_path / "second", memory=False)
    report = audit.run(tmp_path / "second", card=relay.card, earlier=tmp_path / "first")
    assert "knows a rotation" in findings_of(report, CHECK)


def test_a_later_one_in_the_place_of_an_earlier_is_missing_evidence(relay: HonestRelay, tmp_path: Path) -> None:
    compared(relay, tmp_path)
    report = audit.run(tmp_path / "first", card=relay.card, earlier=tmp_path / "second")
    assert report.verdict is Verdict.INCOMPLETE
    assert "was taken after" in missing_of(report)


def test_without_a_card_nothing_is_compared(relay: HonestRelay, tmp_path: Path) -> None:
    compared(relay, tmp_path)
    report = audit.run(tmp_path / "second", earlier=tmp_path / "first")
    assert report.verdict is Verdict.INCOMPLETE
    assert "cannot be judged" in missing_of(report)


def test_the_command_compares(relay: HonestRelay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(relay, tmp_path, execute("DELETE FROM lists WHERE seq = 3"))
    card = tmp_path / "card.toml"
    card.write_bytes(relay.card)
    command = [str(tmp_path / "second"), "--relay-card", str(card), "--earlier", str(tmp_path / "first")]
    assert main(command) == 1
    assert "history.earlier" in capsys.readouterr().out
