from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindpost.disclosed import rows_of
from wire.envelope import Envelope
from wire.errors import FormatError

MAILBOX = b"\xaa" * 16
BODY = bytes(400)


def disclosure(folder: Path, rows: list[tuple[object, object, object, object]], columns: str = "") -> Path:
    (folder / "store").mkdir()
    database = sqlite3.connect(folder / "store" / "store.sqlite")
    database.execute(
        f"CREATE TABLE envelopes (seq INTEGER PRIMARY KEY, {columns or 'mailbox, envelope_id, expiry, body'})"
    )
    if not columns:
        database.executemany("INSERT INTO envelopes (mailbox, envelope_id, expiry, body) VALUES (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    return folder


def test_the_rows_of_a_mailbox_come_in_their_order_and_those_of_others_do_not(tmp_path: Path) -> None:
    ids = [bytes([number]) * 16 for number in range(3)]
    folder = disclosure(
        tmp_path, [(MAILBOX, ids[2], 7, BODY), (b"\xbb" * 16, ids[1], 8, BODY), (MAILBOX, ids[0], 9, BODY)]
    )
    assert list(rows_of(folder, MAILBOX)) == [Envelope(MAILBOX, ids[2], 7, BODY), Envelope(MAILBOX, ids[0], 9, BODY)]
    assert [entry.name for entry in (folder / "store").iterdir()] == ["store.sqlite"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ((MAILBOX, "x" * 16, 1, BODY), "envelope_id"),
        ((MAILBOX, bytes(15), 1, BODY), "envelope_id"),
        ((MAILBOX, bytes(16), "soon", BODY), "expiry"),
        ((MAILBOX, bytes(16), -1, BODY), "expiry"),
        ((MAILBOX, bytes(16), 1, bytes(399)), "body"),
        ((MAILBOX, bytes(16), 1, bytes(196_697)), "body"),
        ((MAILBOX, bytes(16), 1, None), "body"),
    ],
)
def test_a_row_that_is_no_envelope_is_refused(
    tmp_path: Path, row: tuple[object, object, object, object], field: str
) -> None:
    with pytest.raises(FormatError, match=f"disclosure store {field}"):
        list(rows_of(disclosure(tmp_path, [row]), MAILBOX))


def test_a_value_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    folder = disclosure(tmp_path, [(MAILBOX, bytes(16), 1, bytes(1_000_000))])
    with pytest.raises(FormatError, match="is no store of this protocol"):
        list(rows_of(folder, MAILBOX))


def test_a_store_without_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is no store of this protocol: no such column"):
        list(rows_of(disclosure(tmp_path, [], columns="other"), MAILBOX))


def test_a_disclosure_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(rows_of(tmp_path, MAILBOX))


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"SQLite format 3\0" + tail))
def test_any_bytes_are_a_store_or_a_format_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("disclosure")
    (folder / "store").mkdir()
    (folder / "store" / "store.sqlite").write_bytes(data)
    with pytest.raises(FormatError):
        list(rows_of(folder, MAILBOX))


def test_a_name_with_signs_of_an_address_is_only_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=rwc&b#c%20d"
    folder.mkdir()
    disclosure(folder, [(MAILBOX, bytes(16), 1, BODY)])
    assert len(list(rows_of(folder, MAILBOX))) == 1
