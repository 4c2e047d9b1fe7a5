"""The statements of preservations in SQLite: numbered without a gap, whatever ends first."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from relay.core.events import Batch
from relay.store.sqlite import SqliteStore


def test_statements_are_numbered_without_a_gap_and_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = SqliteStore(path, bytes(16), 0)
    for name in ("aa" * 16, "bb" * 16, "cc" * 16):
        store.commit(Batch(statements=[(name, bytes(16))], statements_erased=[name]))
    store.commit(Batch(statements=[("bb" * 16, b"\1" * 16)], statements_erased=["aa" * 16, "bb" * 16]))
    store.close()
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT seq, name, value FROM relay WHERE seq > 3 ORDER BY seq").fetchall()
    assert rows == [(4, "cc" * 16, bytes(16)), (5, "bb" * 16, b"\1" * 16)]
    reopened = SqliteStore(path, bytes(16), 0)
    assert set(reopened.load().relay) == {"relay_id", "partition", "format", "bb" * 16, "cc" * 16}
    reopened.close()
