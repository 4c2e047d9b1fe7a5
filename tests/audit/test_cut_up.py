"""A text that is cut into the rows of a column, so that no file holds more than 16 bytes of it in one place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.auditing import audit_of, findings_of
from tests.audit.honest import NOW, HonestRelay

TEXT = b"Meet me at the harbour at nine, and bring the second ledger with you; nobody else must know."


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay().story()


def nonces(size: int) -> Callable[[sqlite3.Connection], None]:
    """Used tokens that nobody ever signed: their nonces are the text, `size` bytes at a time."""

    def bend(connection: sqlite3.Connection) -> None:
        pieces = [TEXT[start : start + size].ljust(16, b" ") for start in range(0, len(TEXT), size)]
        connection.executemany(
            "INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)", [(piece, NOW + 86_400) for piece in pieces]
        )

    return bend


def numbers(connection: sqlite3.Connection) -> None:
    """The same in the dates of tokens, seven bytes at a time."""
    pieces = [int.from_bytes(TEXT[start : start + 7], "big") for start in range(0, len(TEXT), 7)]
    connection.executemany(
        "INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)",
        [(bytes((position,)) * 16, piece) for position, piece in enumerate(pieces)],
    )


def domains(connection: sqlite3.Connection) -> None:
    """Companies that never were."""
    text = b"meetmeattheharbouratnineandbringthesecondledgerwithyounobodyelsemustknow"
    connection.executemany(
        "INSERT INTO tenants (domain, admin_key) VALUES (?, ?)",
        [(text[start : start + 12].decode(), bytes(range(32))) for start in range(0, len(text), 12)],
    )


@pytest.mark.parametrize(
    ("bend", "text", "column"),
    [
        (nonces(16), TEXT, "used_tokens.nonce"),
        (numbers, TEXT, "used_tokens.not_after"),
        (domains, b"meetmeattheharbouratnineandbringthesecondledgerwithyounobodyelsemustknow", "tenants.domain"),
    ],
)
def test_a_text_cut_into_the_rows_of_a_column_is_found(
    relay: HonestRelay, tmp_path: Path, bend: Callable[[sqlite3.Connection], None], text: bytes, column: str
) -> None:
    report = audit_of(relay, tmp_path, bend_store=bend, canaries=[text + b"\n"])
    assert "search.canaries" in report.failed
    assert column in findings_of(report, "search.canaries")


def test_a_secret_cut_at_another_place_than_its_halves_is_found(relay: HonestRelay, tmp_path: Path) -> None:
    secret = relay.people[0].dh_secret
    padded = relay.draw(8) + secret + relay.draw(8)

    def bend(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO used_tokens (nonce, not_after) VALUES (?, ?)",
            [(padded[start : start + 16], NOW + 86_400) for start in range(0, len(padded), 16)],
        )

    report = audit_of(relay, tmp_path, bend_store=bend, items=[[1, "identity key", secret]])
    assert "used_tokens.nonce" in findings_of(report, "search.secrets")


def test_an_honest_store_has_nothing_cut_up(relay: HonestRelay, tmp_path: Path) -> None:
    assert audit_of(relay, tmp_path, canaries=[TEXT + b"\n"], items=relay.secret_items()).failed == ()
