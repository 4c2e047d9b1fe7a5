"""The embedded store: SQLite in WAL mode, durable on every commit, erased for good (protocol.md section 9).

Rows are only ever appended by `seq` or deleted; there is no index, so a commit writes at the end of each table and
zeroes what it deletes (`secure_delete`). The write-ahead log is truncated after `CHECKPOINT_COMMITS` commits by the
store itself, and earlier by whoever calls `checkpoint()`.

Rules: `synchronous = FULL`, so that a commit that returned is on the disk; a batch is one transaction; a full disk
gives a StoreError and leaves the store usable. Bodies are read on a connection of their own, so that reading never
waits for a commit in another thread. Nothing of a row is ever in an error's text.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from relay.core.events import (
    Batch,
    CommitRow,
    EnvelopeIndexRow,
    ListRow,
    MailboxRow,
    PrekeyRow,
    RotationRow,
    RowNumbers,
    Snapshot,
    TenantRow,
    TombstoneRow,
    UsedTokenRow,
)
from relay.store.protocol import CHECKPOINT_COMMITS, StoreError
from relay.store.schema import FORMAT, PAGE_BYTES, TABLES

__all__ = ["SqliteStore"]

Row = TypeVar("Row")

# SQLite allows 32,766 variables; fewer keep statements small enough to be prepared once.
_READ_AT_ONCE = 256
_CACHE_KIB = 16_384
_ENVELOPES_INDEX = "SELECT seq, mailbox, number, envelope_id, expiry, commit_index, leaf, length(body) FROM envelopes"


class SqliteStore:
    """Rows in one SQLite file.

    Args:
        path: the file; made, with mode 0600, if it is not there.
        relay_id: 16 bytes; a file of another relay is refused.
        partition: 0 to 65535; likewise.

    Raises:
        StoreError: the file cannot be opened, or is not a store of this relay, partition and format.
    """

    def __init__(self, path: Path, relay_id: bytes, partition: int = 0) -> None:
        self._path = path
        self._commits_since_checkpoint = 0
        self._begun: Batch | None = None
        self.checkpoints_failed = 0
        self._closed = False
        new = not path.exists() or path.stat().st_size == 0
        with _as_store_error("open"):
            # The file is made here, so that it never exists with another mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._writer = self._connect()
            try:
                if new:
                    self._create(relay_id, partition)
                self._check(relay_id, partition)
                # What was erased before a kill lies in the log that it left, and an idle relay would not touch it.
                self._checkpoint_after_commit()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=64, timeout=10.0
        )
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "auto_vacuum = NONE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
            f"cache_size = -{_CACHE_KIB}",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _create(self, relay_id: bytes, partition: int) -> None:
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        for statement in TABLES.values():
            db.execute(statement)
        db.executemany(
            "INSERT INTO relay VALUES (?, ?, ?)",
            [(1, "relay_id", relay_id), (2, "partition", partition.to_bytes(2, "big")), (3, "format", FORMAT)],
        )
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _check(self, relay_id: bytes, partition: int) -> None:
        db = self._writer
        schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema ORDER BY rowid")]
        if schema != list(TABLES.values()):
            raise StoreError("store: has other tables than this format's")
        held = dict(db.execute("SELECT name, value FROM relay ORDER BY seq"))
        expected = {"relay_id": relay_id, "partition": partition.to_bytes(2, "big"), "format": FORMAT}
        for name, value in expected.items():
            if held.get(name) != value:
                raise StoreError(f"store: its {name} is another one")
        for pragma, setting in (("page_size", PAGE_BYTES), ("auto_vacuum", 0)):
            if db.execute(f"PRAGMA {pragma}").fetchone()[0] != setting:
                raise StoreError(f"store: its {pragma} is not {setting}")

    # ---- rows

    def load(self) -> Snapshot:
        """Return all that is held but the bodies."""
        with self._using("load"):
            db = self._writer
            return Snapshot(
                dict(db.execute("SELECT name, value FROM relay ORDER BY seq")),
                _rows(db, _ENVELOPES_INDEX, EnvelopeIndexRow._make),
                _rows(db, "SELECT * FROM tombstones", TombstoneRow._make),
                _rows(db, "SELECT * FROM commits", CommitRow._make),
                _rows(db, "SELECT * FROM mailboxes", MailboxRow._make),
                _rows(db, "SELECT * FROM lists", ListRow._make),
                _rows(db, "SELECT * FROM prekeys", PrekeyRow._make),
                _rows(db, "SELECT * FROM tenants", TenantRow._make),
                _rows(db, "SELECT * FROM used_tokens", UsedTokenRow._make),
                _rows(db, "SELECT * FROM rotations", RotationRow._make),
            )

    def rows(self, numbers: RowNumbers) -> Snapshot:
        """Return these rows alone, as of one moment, with no bodies; on the connection that reads."""
        with self._using("rows"), self._one_moment() as db:
            return Snapshot(
                envelopes=_numbered(db, _ENVELOPES_INDEX, numbers.envelopes, EnvelopeIndexRow._make),
                tombstones=_numbered(db, "SELECT * FROM tombstones", numbers.tombstones, TombstoneRow._make),
                mailboxes=_numbered(db, "SELECT * FROM mailboxes", numbers.mailboxes, MailboxRow._make),
                lists=_numbered(db, "SELECT * FROM lists", numbers.lists, ListRow._make),
                prekeys=_numbered(db, "SELECT * FROM prekeys", numbers.prekeys, PrekeyRow._make),
            )

    @contextmanager
    def _one_moment(self) -> Iterator[sqlite3.Connection]:
        db = self._reader
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    def begin(self, batch: Batch) -> None:
        """Apply a batch in a transaction that `commit` ends.

        Raises:
            StoreError: nothing was applied.
        """
        with self._using("commit"), self._undoing() as db:
            db.execute("BEGIN IMMEDIATE")
            self._apply(db, batch)
        self._begun = batch

    def commit(self, batch: Batch) -> None:
        """Apply a batch in one transaction, unless it was begun; on return it is on the disk.

        Raises:
            StoreError: nothing was applied.
        """
        begun, self._begun = self._begun, None
        if begun is not batch:
            self.begin(batch)
            self._begun = None
        with self._using("commit"), self._undoing() as db:
            db.execute("COMMIT")
        self._commits_since_checkpoint += 1
        if self._commits_since_checkpoint >= CHECKPOINT_COMMITS:
            self._checkpoint_after_commit()

    @contextmanager
    def _undoing(self) -> Iterator[sqlite3.Connection]:
        db = self._writer
        try:
            yield db
        except BaseException:
            # After a full disk SQLite may have rolled back by itself.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _checkpoint_after_commit(self) -> None:
        try:
            self.checkpoint()
        except StoreError:
            # The batch is durable: to raise here would tell its senders that it was not stored. The next commit tries
            # again, and whoever calls `checkpoint()`, which is at most a second away, gets the error.
            self.checkpoints_failed += 1

    @staticmethod
    def _apply(db: sqlite3.Connection, batch: Batch) -> None:
        # Erasures first: a page that they empty may be used again by the insertions of the same commit.
        _delete(db, "envelopes", batch.envelopes_erased)
        _delete(db, "tombstones", batch.tombstones_erased)
        _delete(db, "prekeys", batch.prekeys_erased)
        _delete(db, "used_tokens", batch.used_tokens_erased)
        if batch.commits_below:
            db.execute("DELETE FROM commits WHERE idx < ?", (batch.commits_below,))
        if batch.envelopes:
            db.executemany("INSERT INTO envelopes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", batch.envelopes)
        if batch.tombstones:
            db.executemany("INSERT INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", batch.tombstones)
        if batch.commit is not None:
            db.execute("INSERT INTO commits VALUES (?, ?, ?, ?)", batch.commit)
        for statement, rows in (
            ("INSERT INTO mailboxes VALUES (?, ?, ?, ?, ?, ?, ?)", batch.mailboxes),
            ("INSERT INTO lists VALUES (?, ?, ?, ?)", batch.lists),
            ("INSERT INTO prekeys VALUES (?, ?, ?, ?, ?)", batch.prekeys),
            ("INSERT INTO tenants VALUES (?, ?, ?)", batch.tenants),
            ("INSERT INTO used_tokens VALUES (?, ?, ?)", batch.used_tokens),
            ("INSERT INTO rotations VALUES (?, ?)", batch.rotations),
            ("UPDATE mailboxes SET newest = ? WHERE seq = ?", batch.mailboxes_newest),
            ("UPDATE mailboxes SET closed = 1 WHERE seq = ?", [(seq,) for seq in batch.mailboxes_closed]),
        ):
            if rows:
                db.executemany(statement, rows)
        if batch.statements or batch.statements_erased:
            _restate(db, batch)

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Return the bodies of envelopes, None for each that is not there."""
        bodies: dict[int, bytes] = {}
        with self._using("read"):
            for start in range(0, len(seqs), _READ_AT_ONCE):
                some = seqs[start : start + _READ_AT_ONCE]
                marks = ",".join("?" * len(some))
                bodies.update(self._reader.execute(f"SELECT seq, body FROM envelopes WHERE seq IN ({marks})", some))  # noqa: S608  # marks only
        return [bodies.get(seq) for seq in seqs]

    # ---- files

    def checkpoint(self) -> int:
        """Move the write-ahead log into the main file and truncate it; return how many pages were moved.

        Raises:
            StoreError: the log could not be truncated: the disk is full, or somebody else reads the file.
        """
        with self._using("checkpoint"):
            pages: int = self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            busy: int = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise StoreError("checkpoint: somebody reads the file")
            self._commits_since_checkpoint = 0
            return max(pages, 0)

    def paths(self) -> list[Path]:
        """Return the database file: after `checkpoint` it is all there is (the log is empty, -shm holds no content)."""
        return [self._path]

    def file_bytes(self) -> int:
        """Return how many bytes the database file and its write-ahead log have."""
        wal = self._path.with_name(self._path.name + "-wal")
        return self._path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)

    def close(self) -> None:
        """Checkpoint and let go of the files. Calling it twice is harmless."""
        if self._closed:
            return
        try:
            if self._writer.in_transaction:
                # A batch that was begun and never committed: nobody was told that it is stored.
                self._writer.execute("ROLLBACK")
            self.checkpoint()
        finally:
            self._closed = True
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _using(self, what: str) -> Iterator[None]:
        if self._closed:
            raise StoreError("store: is closed")
        with _as_store_error(what):
            yield


@contextmanager
def _as_store_error(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError) as error:
        # SQLite's words name tables and conditions, never values; the system's name the file, which is left out.
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(f"{what}: {words}") from None


def _rows(db: sqlite3.Connection, query: str, make: Callable[[Sequence[object]], Row]) -> list[Row]:
    # Tables are in the order of their integer primary key, so that no ORDER BY need be paid for.
    return [make(row) for row in db.execute(query)]


def _numbered(
    db: sqlite3.Connection, query: str, seqs: Sequence[int], make: Callable[[Sequence[object]], Row]
) -> list[Row]:
    found: list[Row] = []
    for start in range(0, len(seqs), _READ_AT_ONCE):
        some = seqs[start : start + _READ_AT_ONCE]
        marks = ",".join("?" * len(some))
        found.extend(make(row) for row in db.execute(f"{query} WHERE seq IN ({marks}) ORDER BY seq", some))
    return found


def _restate(db: sqlite3.Connection, batch: Batch) -> None:
    # Rows of `relay` are numbered without a gap (section 9): those behind the three fixed ones are written anew.
    gone = set(batch.statements_erased)
    stated = [
        row for row in db.execute("SELECT name, value FROM relay WHERE seq > 3 ORDER BY seq") if row[0] not in gone
    ]
    db.execute("DELETE FROM relay WHERE seq > 3")
    db.executemany("INSERT INTO relay (name, value) VALUES (?, ?)", [*stated, *batch.statements])


def _delete(db: sqlite3.Connection, table: str, seqs: list[int]) -> None:
    # What was delivered together is mostly acked together: runs of neighbours go with one statement each.
    if seqs:
        db.executemany(f"DELETE FROM {table} WHERE seq BETWEEN ? AND ?", _runs(seqs))  # noqa: S608  # our own names


def _runs(seqs: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of neighbours, ascending."""
    found: list[tuple[int, int]] = []
    first = last = -2
    for seq in sorted(seqs):
        if seq != last + 1:
            if last >= 0:
                found.append((first, last))
            first = seq
        last = seq
    found.append((first, last))
    return found
