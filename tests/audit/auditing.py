"""One call to bend a disclosure and audit it, for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import audit
from audit import Report
from tests.audit.honest import SCHEMA, HonestRelay


def outcome_of(report: Report, check_id: str) -> audit.Outcome:
    """The outcome of one check."""
    return next(outcome for outcome in report.outcomes if outcome.about.check_id == check_id)


def findings_of(report: Report, check_id: str) -> str:
    """All findings of one check, as text."""
    return "\n".join(map(str, outcome_of(report, check_id).findings))


def missing_of(report: Report) -> str:
    """All that is missing, as text."""
    return "\n".join(text for outcome in report.outcomes for text in outcome.missing)


def audit_of(
    relay: HonestRelay,
    directory: Path,
    *,
    items: list[list[Any]] | None = None,
    bend_store: Callable[[sqlite3.Connection], None] | None = None,
    bend_files: Callable[[Path], None] | None = None,
    bend_signed: Callable[[Path], None] | None = None,
    schema: str = SCHEMA,
    memory: bool = True,
    **options: Any,
) -> Report:
    """Disclose, bend, and audit with the relay's card.

    Args:
        items: What is volunteered.
        bend_store: Changes the database before its file is closed.
        bend_files: Changes files before they are signed for.
        bend_signed: Changes files behind the relay's signature.
    """
    folder = directory / "disclosure"
    relay.disclose(folder, schema=schema, bend_store=bend_store, memory=memory)
    if bend_files:
        bend_files(folder)
        relay.sign_manifest(folder)
    if bend_signed:
        bend_signed(folder)
    if items is not None:
        options["volunteered"] = [relay.volunteer(items)]
    options.setdefault("card", relay.card)
    return audit.run(folder, **options)


def execute(*statements: str) -> Callable[[sqlite3.Connection], None]:
    """A bend that runs SQL."""

    def bend(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return bend


def execute_with(statement: str, values: tuple[object, ...]) -> Callable[[sqlite3.Connection], None]:
    """A bend that runs one statement with values."""

    def bend(connection: sqlite3.Connection) -> None:
        connection.execute(statement, values)

    return bend


def edit_store(folder: Path, *statements: str) -> None:
    """Run SQL on a disclosed store, outside of a transaction, as a relay that cheats late would."""
    with closing(sqlite3.connect(folder / "store/store.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
