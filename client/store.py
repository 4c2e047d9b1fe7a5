"""A device's sealed rows in SQLite (architecture section 3, keys at rest).

One table, three columns: the row's kind, its name and its sealed value. A name is a keyed hash and the value is sealed
with kind and name as associated data (keys/vault.py), so that a stolen file shows how many rows of which kind and size
there are, and a row moved to another place does not open. The names themselves stand inside the sealed values.

Rules:

* one step, one transaction: what a step puts and deletes becomes durable together (WAL, `synchronous = FULL`), or none
  of it; only after the step has returned may a packet leave that rests on it;
* deleted is erased: `secure_delete`, and the WAL is truncated after each 64 steps, at the close, at the opening, and
  while the device runs within a second of each step (client/erasing.py);
* one process on one home (a file lock), for the life of the store;
* a restored or copied home is noticed where the device itself can notice it: a counter moves at every open and close,
  in the row `GENERATION` and in a marker file beside the database. The row also names what no copy carries over: the
  inode of the database, and inode and change time of the marker, which the file system sets and no program can (an
  inode alone is given to the next file again). Where anything differs, `rolled_back` is true and the device must not
  send on old sessions; that is told at every opening until `put_renewed`. To touch the marker (its mode, its owner) is
  taken for a restoration as well, which costs new sessions and no more. Not noticed here: a snapshot of the whole
  machine or file system; whoever sets the clock or the raw disk to suit; and a home that was killed while it opened or
  closed, copied then, and put back under the same inode. A relay could help to hide these.

Left to callers: what the rows mean (client/records.py), and when a step begins and ends.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum, unique
from hashlib import blake2b
from pathlib import Path

from client.errors import HomeInUse, HomeInvalid, StoreFailed
from keys.vault import Vault
from wire.codec import Record, SecretRecord, decode, encode

__all__ = ["Kind", "Step", "Store"]

DATABASE = "device.sqlite"
LOCK = "lock"
MARKER = "generation"

_TRUNCATE_AFTER_STEPS = 64
_BUSY_MS = 5_000
_SCHEMA = (
    "CREATE TABLE rows (kind INTEGER NOT NULL, name BLOB NOT NULL, sealed BLOB NOT NULL, "
    "PRIMARY KEY (kind, name)) STRICT"
)


@unique
class Kind(IntEnum):
    """What a row is of; the only thing beside sizes that a stolen file shows."""

    GENERATION = 1
    META = 2
    DEVICE = 3
    ACCOUNT = 4
    PIN = 5
    SESSION = 6
    PREKEYS = 7
    SEEN = 8
    OUTGOING = 9
    PREPARED = 10
    UPLOAD = 11
    PAYLOAD = 12
    KEPT = 13
    UNRESOLVED = 14
    PARTIAL = 15
    PIECE = 16
    RECEIPT = 17
    HEADER = 18
    NOTICE = 19
    SENT = 20
    CANARY = 21
    BODY_PIN = 22
    ACK = 23


class _Row(SecretRecord, frozen=True):
    name: bytes
    value: bytes


class _Generation(Record, frozen=True):
    """`count` is on its way into the marker until `settled`: then `marker` is that of the count before.

    `restored`: a restoration was noticed, and nothing was renewed for it yet.
    """

    count: int
    settled: bool
    restored: bool
    inode: int
    marker: tuple[int, int]


class Step:
    """What one transaction puts and deletes, gathered in memory until the step ends."""

    def __init__(self) -> None:
        self._changes: dict[tuple[Kind, bytes], bytes | None] = {}

    def put(self, kind: Kind, name: bytes, value: bytes) -> None:
        """Write a row, or replace it."""
        self._changes[kind, name] = value

    def delete(self, kind: Kind, name: bytes) -> None:
        """Remove a row, if it is there."""
        self._changes[kind, name] = None

    @property
    def changes(self) -> dict[tuple[Kind, bytes], bytes | None]:
        """What has been gathered so far; None where a row goes away."""
        return self._changes


class Store:
    """The sealed rows of one home.

    Args:
        home: the folder, which must exist.
        vault: seals and opens the rows.
        fault: called with `before-commit` and `after-commit` at each transaction; tests stop the world there.

    Attributes:
        on_commit: called after each step; by client/erasing.py while the device runs.
        rolled_back: this home was put back from a copy, and nothing was renewed for it yet.

    Raises:
        HomeInUse: another process holds the home.
        HomeInvalid: the database cannot be read.
    """

    def __init__(self, home: Path, vault: Vault, fault: Callable[[str], None] | None = None) -> None:
        self._home = home
        self._vault = vault
        self._fault = fault or (lambda _boundary: None)
        self._name_key = vault.name_key()
        self._steps_in_log = 0
        self.on_commit: Callable[[], None] | None = None
        self._lock = _locked(home / LOCK)
        try:
            self._connection = _connected(home / DATABASE)
            self.rolled_back = self._restored = self._check_generation()
            self._move_generation()
            # What was erased before a kill still lies in the log that the kill left.
            self._truncate_log()
        except sqlite3.Error as error:
            os.close(self._lock)
            raise HomeInvalid(f"{DATABASE}: {error}") from None
        except BaseException:
            os.close(self._lock)
            raise

    def __repr__(self) -> str:
        return f"Store(home={str(self._home)!r}, keys=<redacted>)"

    @property
    def home(self) -> Path:
        """The folder."""
        return self._home

    # Reading

    def get(self, kind: Kind, name: bytes) -> bytes | None:
        """The value of one row, or None."""
        hashed = self._hashed(kind, name)
        found = self._connection.execute(
            "SELECT sealed FROM rows WHERE kind = ? AND name = ?", (int(kind), hashed)
        ).fetchone()
        return None if found is None else self._opened(kind, hashed, found[0]).value

    def items(self, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of every row of a kind, in no order that means anything."""
        cursor = self._connection.execute("SELECT name, sealed FROM rows WHERE kind = ?", (int(kind),))
        for hashed, sealed in cursor:
            row = self._opened(kind, hashed, sealed)
            yield row.name, row.value

    def count(self, kind: Kind) -> int:
        """How many rows of a kind there are."""
        return int(self._connection.execute("SELECT count(*) FROM rows WHERE kind = ?", (int(kind),)).fetchone()[0])

    # Writing

    @contextmanager
    def step(self) -> Iterator[Step]:
        """One transaction: durable when the block has ended; nothing of it happened if it, or the commit, failed.

        Raises:
            StoreFailed: the commit failed (a full disk, for one).
        """
        step = Step()
        yield step
        if step.changes:
            self._commit(step)

    def close(self) -> None:
        """Move the generation, truncate the WAL, let go of the home."""
        try:
            self._move_generation()
            self._truncate_log()
        finally:
            self.abandon()

    def empty_log(self) -> bool:
        """Truncate the WAL, and wait for nobody who reads the database; returns whether nothing is left in it."""
        if self._lock < 0 or not self._steps_in_log:
            return True
        try:
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._truncate_log()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        except sqlite3.Error:  # a disk that fails now is asked again; what is stored does not depend on it
            return False
        return not self._steps_in_log

    def _truncate_log(self) -> None:
        is_busy, _pages, _moved = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:
            self._steps_in_log = 0

    def abandon(self) -> None:
        """Let go of the home without another write, as a crash would. Calling it twice is harmless."""
        if self._lock >= 0:
            self._connection.close()
            os.close(self._lock)
            self._lock = -1

    def _commit(self, step: Step) -> None:
        puts, deletes = [], []
        for (kind, name), value in step.changes.items():
            hashed = self._hashed(kind, name)
            if value is None:
                deletes.append((int(kind), hashed))
            else:
                sealed = self._vault.seal(encode(_Row(name, value)), _place(kind, hashed))
                puts.append((int(kind), hashed, sealed))
        self._fault("before-commit")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM rows WHERE kind = ? AND name = ?", deletes)
            self._connection.executemany("INSERT OR REPLACE INTO rows (kind, name, sealed) VALUES (?, ?, ?)", puts)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StoreFailed(f"{DATABASE}: {error}") from None
        self._steps_in_log += 1
        self._fault("after-commit")
        if self._steps_in_log >= _TRUNCATE_AFTER_STEPS:
            self.empty_log()
        if self.on_commit is not None:
            self.on_commit()

    # Names, seals, generations

    def _hashed(self, kind: Kind, name: bytes) -> bytes:
        return blake2b(bytes((kind,)) + name, digest_size=16, key=self._name_key, person=b"bp1-row-name").digest()

    def _opened(self, kind: Kind, hashed: bytes, sealed: bytes) -> _Row:
        row = decode(_Row, self._vault.open(sealed, _place(kind, hashed)), "row")
        if self._hashed(kind, row.name) != hashed:
            raise HomeInvalid(f"{DATABASE}: a row stands under another row's name")
        return row

    def _check_generation(self) -> bool:
        value = self.get(Kind.GENERATION, b"")
        if value is None:
            if (self._home / MARKER).exists():
                raise HomeInvalid(f"{DATABASE}: is empty, though {MARKER} is not")
            self._generation = 0
            return False
        held = decode(_Generation, value, "generation")
        self._generation = held.count
        return held.restored or not self._is_the_one(held)

    def _is_the_one(self, held: _Generation) -> bool:
        """Whether database and marker are the very files that this row was written beside."""
        if held.inode != self._inode():
            return False
        marker, told = self._marker(), self._told()
        if held.settled:
            return (told, marker) == (held.count, held.marker)
        # Killed while the generation moved: before the marker was written, or after.
        return (told, marker) == (held.count - 1, held.marker) or told == held.count

    def _move_generation(self) -> None:
        self._generation += 1
        with self.step() as step:
            self._put_generation(step, settled=False)
        _write_whole(self._home / MARKER, f"{self._generation}\n".encode("ascii"))
        with self.step() as step:
            self._put_generation(step, settled=True)

    def put_renewed(self, step: Step) -> None:
        """What a restored home must not use any more is renewed, within this step: the next opening tells no more."""
        self._restored = False
        self._put_generation(step, settled=True)

    def _put_generation(self, step: Step, *, settled: bool) -> None:
        row = _Generation(self._generation, settled, self._restored, self._inode(), self._marker())
        step.put(Kind.GENERATION, b"", encode(row))

    def _inode(self) -> int:
        return (self._home / DATABASE).stat().st_ino

    def _marker(self) -> tuple[int, int]:
        """Inode and change time of the marker file, or zeros."""
        try:
            found = (self._home / MARKER).stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_ctime_ns

    def _told(self) -> int:
        """The count in the marker file; zero where it tells none."""
        try:
            return int((self._home / MARKER).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0


def _place(kind: Kind, hashed: bytes) -> bytes:
    return bytes((kind,)) + hashed


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise HomeInUse(f"{path.parent}: another process holds this home") from None
    return descriptor


def _connected(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, _BUSY_MS / 1_000, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        connection.execute(_SCHEMA)
    return connection


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a small file as a whole: a crash leaves the old one or the new one."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
