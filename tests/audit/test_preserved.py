"""A preservation states why rows are still here that would be gone; what it does not cover is a finding."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from audit import Verdict
from tests.audit.auditing import audit_of, findings_of, outcome_of
from tests.audit.honest import NOW, HonestRelay, Letter, fill

DAY = 86_400


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


def acked_of(relay: HonestRelay) -> Letter:
    return next(letter for letter in relay.letters if letter.state == "acked")


def kept(
    relay: HonestRelay,
    name: str | None = None,
    value: bytes = (NOW + 90 * DAY).to_bytes(8, "big") + (7).to_bytes(8, "big"),
    leaf: int | None = None,
) -> Callable[[sqlite3.Connection], None]:
    """Keep the row of the letter that was acknowledged, and state why."""
    it = acked_of(relay)

    def bend(connection: sqlite3.Connection) -> None:
        row = (it.recipient.mailbox, it.number, it.envelope_id, it.expiry, it.commit_index, it.leaf, it.body)
        fill(connection, "envelopes", [row])
        if leaf is not None:
            connection.execute("UPDATE tombstones SET leaf = ? WHERE mailbox = ?", (leaf, it.recipient.mailbox))
        if name != "":
            fill(connection, "relay", [(name or it.recipient.mailbox.hex(), value)])

    return bend


def test_rows_kept_by_a_stated_preservation_are_accepted_and_told(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path, bend_store=kept(relay))
    assert report.verdict is Verdict.BLIND
    outcome = outcome_of(report, "store.envelopes")
    assert outcome.figures["kept though acknowledged"] == 1
    assert any("preserved by order" in note for note in outcome.not_checked)


def test_attack_the_same_row_without_a_statement_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path, bend_store=kept(relay, name=""))
    assert report.verdict is Verdict.NOT_BLIND
    assert "said to be erased by a tombstone" in findings_of(report, "store.envelopes")


def test_attack_a_statement_about_another_mailbox_covers_nothing(relay: HonestRelay, tmp_path: Path) -> None:
    other = next(p for p in relay.people if p is not acked_of(relay).recipient)
    report = audit_of(relay, tmp_path, bend_store=kept(relay, name=other.mailbox.hex()))
    assert "said to be erased by a tombstone" in findings_of(report, "store.envelopes")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ab" * 16, bytes(16)),
        ("note to self", bytes(16)),
        (None, bytes(15)),
        (None, (NOW + 400 * DAY).to_bytes(8, "big") + bytes(8)),
        (None, bytes(8) + b"\xff" * 8),
    ],
)
def test_attack_a_statement_with_room_for_something_else_is_found(
    relay: HonestRelay, tmp_path: Path, name: str | None, value: bytes
) -> None:
    report = audit_of(relay, tmp_path, bend_store=kept(relay, name, value))
    assert findings_of(report, "store.directory")


def test_attack_a_tombstone_with_another_place_than_the_kept_row_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    report = audit_of(relay, tmp_path, bend_store=kept(relay, leaf=1))
    assert "another place in the commits" in findings_of(report, "store.commits")
