"""The SQLite store: the file that section 9 of the protocol describes, erasure, durability, a full disk."""

from __future__ import annotations

import random
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.events import Batch, EnvelopeRow, TenantRow
from relay.store import sqlite as sqlite_module
from relay.store.protocol import CHECKPOINT_COMMITS, StoreError
from relay.store.schema import TABLES
from relay.store.sqlite import SqliteStore

RELAY_ID = bytes(range(16))
PROTOCOL = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.sqlite", RELAY_ID)
    yield made
    made.close()


def body_of(seq: int, body_bytes: int = 1_024) -> bytes:
    """A body of which any 16 bytes are found nowhere else."""
    return random.Random(seq).randbytes(body_bytes)


def envelope(seq: int, body_bytes: int = 1_024) -> EnvelopeRow:
    return EnvelopeRow(seq, b"m" * 16, seq, seq.to_bytes(16, "big"), 1_500_000_000, 1, 0, body_of(seq, body_bytes))


def raw_bytes(path: Path) -> bytes:
    """All that lies on the disk beside the store's path, its log and shared memory included."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def remains(raw: bytes, seq: int, body_bytes: int = 1_024) -> int:
    """How many runs of 16 bytes of a body are still there; several of each page that it can lie on are looked for."""
    body = body_of(seq, body_bytes)
    return sum(body[start : start + 16] in raw for start in range(0, len(body) - 16, max(8, body_bytes // 200)))


def test_schema_is_the_text_of_the_protocol(store: SqliteStore, tmp_path: Path) -> None:
    section = PROTOCOL.read_text(encoding="utf-8").split("## 9. The store")[1].split("## 10.")[0]
    written = re.findall(r"^ {4}(CREATE TABLE .*)$", section, re.MULTILINE)
    assert written == list(TABLES.values())
    store.close()
    db = sqlite3.connect(tmp_path / "store.sqlite")
    held = db.execute("SELECT type, sql FROM sqlite_schema ORDER BY rowid").fetchall()
    pages = db.execute("PRAGMA page_size").fetchone()
    vacuum = db.execute("PRAGMA auto_vacuum").fetchone()
    journal = db.execute("PRAGMA journal_mode").fetchone()
    db.close()
    assert held == [("table", sql) for sql in written]
    assert (pages, vacuum, journal) == ((4_096,), (0,), ("wal",))


def test_connection_is_durable_and_erases(store: SqliteStore) -> None:
    for connection in (store._writer, store._reader):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


def test_store_file_is_its_owners_alone(store: SqliteStore, tmp_path: Path) -> None:
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize("body_bytes", [400, 1_024, 65_536, 196_696])
def test_erased_envelope_leaves_no_run_of_bytes(store: SqliteStore, tmp_path: Path, body_bytes: int) -> None:
    path = tmp_path / "store.sqlite"
    store.commit(Batch(envelopes=[envelope(seq, body_bytes) for seq in range(1, 9)]))
    assert remains(raw_bytes(path), 3, body_bytes) > 0
    store.commit(Batch(envelopes_erased=[1, 3, 8]))
    store.checkpoint()
    raw = raw_bytes(path)
    assert [seq for seq in range(1, 9) if remains(raw, seq, body_bytes)] == [2, 4, 5, 6, 7]


def test_attack_without_secure_delete_is_found_by_the_same_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = SqliteStore._connect

    def careless(store: SqliteStore) -> sqlite3.Connection:
        connection = connect(store)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(SqliteStore, "_connect", careless)
    store = SqliteStore(tmp_path / "careless.sqlite", RELAY_ID)
    store.commit(Batch(envelopes=[envelope(seq) for seq in range(1, 9)]))
    store.commit(Batch(envelopes_erased=[1, 3, 8]))
    store.checkpoint()
    raw = raw_bytes(tmp_path / "careless.sqlite")
    store.close()
    assert any(remains(raw, seq) for seq in (1, 3, 8))


def test_attack_log_that_is_never_truncated_is_found_by_the_same_search(store: SqliteStore, tmp_path: Path) -> None:
    store.commit(Batch(envelopes=[envelope(1)]))
    store.commit(Batch(envelopes_erased=[1]))
    assert remains(raw_bytes(tmp_path / "store.sqlite"), 1) > 0


def test_log_is_truncated_after_fifty_commits_without_anybody_asking(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store.commit(Batch(envelopes=[envelope(1)]))
    store.commit(Batch(envelopes_erased=[1]))
    for seq in range(2, CHECKPOINT_COMMITS - 1):
        store.commit(Batch(envelopes=[envelope(seq)]))
        assert path.with_name("store.sqlite-wal").stat().st_size > 0
    store.commit(Batch(envelopes=[envelope(CHECKPOINT_COMMITS)]))
    assert path.with_name("store.sqlite-wal").stat().st_size == 0
    assert remains(raw_bytes(path), 1) == 0


def test_reads_of_another_thread_do_not_hold_up_the_checkpoint(store: SqliteStore, tmp_path: Path) -> None:
    store.commit(Batch(envelopes=[envelope(seq) for seq in range(1, 300)]))
    assert store.read([1, 2]) == [body_of(1), body_of(2)]
    assert store.checkpoint() > 0
    assert tmp_path.joinpath("store.sqlite-wal").stat().st_size == 0
    assert store.checkpoint() == 0


def test_checkpoint_that_a_stranger_holds_up_is_an_error_not_a_silence(store: SqliteStore, tmp_path: Path) -> None:
    store._writer.execute("PRAGMA busy_timeout = 1")
    store.commit(Batch(envelopes=[envelope(1)]))
    stranger = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    stranger.execute("BEGIN")
    stranger.execute("SELECT count(*) FROM envelopes").fetchone()
    with pytest.raises(StoreError, match="somebody reads"):
        store.checkpoint()
    stranger.execute("ROLLBACK")
    stranger.close()
    store.checkpoint()
    assert tmp_path.joinpath("store.sqlite-wal").stat().st_size == 0


def test_commit_that_is_durable_succeeds_though_the_log_could_not_be_truncated(
    store: SqliteStore, tmp_path: Path
) -> None:
    store._writer.execute("PRAGMA busy_timeout = 1")
    stranger = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    store.commit(Batch(envelopes=[envelope(1)]))
    stranger.execute("BEGIN")
    stranger.execute("SELECT count(*) FROM envelopes").fetchone()
    for seq in range(2, CHECKPOINT_COMMITS + 3):
        store.commit(Batch(envelopes=[envelope(seq)]))
    assert store.checkpoints_failed == 3
    stranger.execute("ROLLBACK")
    stranger.close()
    store.commit(Batch(envelopes=[envelope(CHECKPOINT_COMMITS + 3)]))
    assert tmp_path.joinpath("store.sqlite-wal").stat().st_size == 0
    assert len(store.load().envelopes) == CHECKPOINT_COMMITS + 3


def test_full_disk_stores_nothing_and_leaves_the_store_usable(store: SqliteStore) -> None:
    store.commit(Batch(envelopes=[envelope(1)]))
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StoreError, match="commit: database or disk is full"):
        store.commit(Batch(envelopes_erased=[1], envelopes=[envelope(seq, 65_536) for seq in range(2, 9)]))
    assert store.read([1, 2]) == [body_of(1), None]
    store.commit(Batch(envelopes=[envelope(2, 400)]))
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.commit(Batch(envelopes=[envelope(seq, 65_536) for seq in range(3, 9)]))
    assert [row.seq for row in store.load().envelopes] == list(range(1, 9))


def test_batch_that_cannot_be_begun_leaves_the_store_usable(store: SqliteStore) -> None:
    store.commit(Batch(envelopes=[envelope(1)]))
    with pytest.raises(StoreError, match="commit: UNIQUE"):
        store.begin(Batch(envelopes=[envelope(2), envelope(1)]))
    store.commit(Batch(envelopes=[envelope(2)]))
    assert store.read([1, 2]) == [body_of(1), body_of(2)]


def test_batch_that_was_begun_and_not_committed_is_not_stored(store: SqliteStore, tmp_path: Path) -> None:
    store.begin(Batch(envelopes=[envelope(1)]))
    store.close()
    again = SqliteStore(tmp_path / "store.sqlite", RELAY_ID)
    assert not again.load().envelopes
    again.close()
    assert not remains(raw_bytes(tmp_path / "store.sqlite"), 1)


def test_errors_do_not_show_what_was_to_be_stored(store: SqliteStore) -> None:
    store.commit(Batch(envelopes=[envelope(1)]))
    with pytest.raises(StoreError) as caught:
        store.commit(Batch(envelopes=[envelope(1)]))
    assert str(caught.value) == "commit: UNIQUE constraint failed: envelopes.seq"
    assert caught.value.__cause__ is None


def test_committed_batch_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    script = (
        "import os, sys, signal; from pathlib import Path\n"
        "from relay.core.events import Batch, TenantRow\n"
        "from relay.store.sqlite import SqliteStore\n"
        f"store = SqliteStore(Path({str(path)!r}), bytes(range(16)))\n"
        "for seq in range(1, 200):\n"
        "    store.commit(Batch(tenants=[TenantRow(seq, f't{seq}.example', b'a' * 32)]))\n"
        "    sys.stdout.write(f'{seq}\\n'); sys.stdout.flush()\n"
        "    if seq == 123: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(sqlite_module.__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == -9
    told = ran.stdout.split()
    assert told[-1] == "123"
    store = SqliteStore(path, RELAY_ID)
    assert [row.seq for row in store.load().tenants] == [int(seq) for seq in told]
    store.close()


def test_reopened_store_holds_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = SqliteStore(path, RELAY_ID, 3)
    store.commit(Batch(envelopes=[envelope(1)], tenants=[TenantRow(1, "acme.example", b"a" * 32)]))
    before = store.load()
    assert store.paths() == [path]
    assert store.file_bytes() > path.stat().st_size
    store.close()
    again = SqliteStore(path, RELAY_ID, 3)
    assert again.load() == before
    assert again.file_bytes() == path.stat().st_size
    again.close()


@pytest.mark.parametrize(("relay_id", "partition", "words"), [(b"x" * 16, 0, "relay_id"), (RELAY_ID, 1, "partition")])
def test_store_of_another_relay_is_refused(
    store: SqliteStore, tmp_path: Path, relay_id: bytes, partition: int, words: str
) -> None:
    store.close()
    with pytest.raises(StoreError, match=f"its {words} is another one"):
        SqliteStore(tmp_path / "store.sqlite", relay_id, partition)


def test_store_with_an_extra_column_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    store.close()
    db = sqlite3.connect(tmp_path / "store.sqlite")
    db.execute("ALTER TABLE envelopes ADD COLUMN note BLOB")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="other tables"):
        SqliteStore(tmp_path / "store.sqlite", RELAY_ID)


def test_store_with_another_page_size_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    store.close()
    db = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA page_size = 8192")
    db.execute("VACUUM")
    db.close()
    with pytest.raises(StoreError, match="its page_size is not 4096"):
        SqliteStore(tmp_path / "store.sqlite", RELAY_ID)


@pytest.mark.parametrize("content", [b"not a database, but longer than a header would be" * 100])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="open: file is not a database"):
        SqliteStore(path, RELAY_ID)
    assert path.read_bytes() == content


def test_store_in_no_folder_is_refused_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore(tmp_path / "nowhere" / "store.sqlite", RELAY_ID)
    assert str(caught.value) == "open: No such file or directory"


@pytest.mark.parametrize(
    "erased", [[1], [20], [1, 2, 3], [5, 4, 6], [2, 4, 6, 7, 8, 20], list(range(1, 21)), [19, 1], [10, 12]]
)
def test_runs_of_neighbours_are_erased_and_nothing_beside_them(store: SqliteStore, erased: list[int]) -> None:
    store.commit(Batch(envelopes=[envelope(seq) for seq in range(1, 21)]))
    store.commit(Batch(envelopes_erased=list(erased)))
    held = {seq for seq, body in zip(range(1, 21), store.read(range(1, 21)), strict=True) if body is not None}
    assert held == set(range(1, 21)) - set(erased)
