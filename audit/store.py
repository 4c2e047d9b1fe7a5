"""The store as rows with types, and the bytes of it by class (protocol.md section 9).

Reads the file once, through `sqlite_file`, checks every column against `schema.TABLES`, and keeps what the checks
need. Bodies are not kept: of each, its hash, size and first bytes, and where it lies in the file. Columns that do not
fit are kept out of the rows and their bytes counted as unexplained, with the reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from audit.crypto import body_kinds
from audit.schema import CREATE_STATEMENTS, TABLES, ByteClass, Column
from audit.sqlite_file import Account, Piece, Row, SchemaEntry, SqliteFile
from audit.sqlite_records import Value, join

BODY_HEAD_BYTES = 72
PROBLEMS_MAX = 1_000
"""Kept and shown; all are counted."""


@dataclass(frozen=True, slots=True)
class EnvelopeRow:
    """A row of `envelopes`; of the body only what can be told without reading it again."""

    seq: int
    mailbox: bytes
    number: int
    envelope_id: bytes
    expiry: int
    commit_index: int
    leaf: int
    body_bytes: int
    body_sha256: bytes
    body_head: bytes
    """hint 16, commitment 32, nonce 24."""
    pieces: tuple[Piece, ...]

    @property
    def commitment(self) -> bytes:
        """The key commitment."""
        return self.body_head[16:48]

    @property
    def nonce(self) -> bytes:
        """The AEAD's nonce."""
        return self.body_head[48:72]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of any other table, by column name."""

    seq: int
    values: dict[str, int | str | bytes]

    def integer(self, column: str) -> int:
        """The value of an INTEGER column."""
        value = self.values[column]
        assert isinstance(value, int)
        return value

    def blob(self, column: str) -> bytes:
        """The value of a BLOB column."""
        value = self.values[column]
        assert isinstance(value, bytes)
        return value

    def text(self, column: str) -> str:
        """The value of a TEXT column."""
        value = self.values[column]
        assert isinstance(value, str)
        return value


@dataclass(slots=True)
class ColumnFigures:
    """What the leakage table shows of a column."""

    count: int = 0
    size: int = 0
    low: int | None = None
    high: int | None = None
    distinct: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Store:
    """Everything that was read from the file."""

    data: memoryview
    schema: list[SchemaEntry] = field(default_factory=list)
    envelopes: list[EnvelopeRow] = field(default_factory=list)
    tables: dict[str, list[StoredRow]] = field(default_factory=lambda: {name: [] for name in TABLES})
    schema_problems: list[str] = field(default_factory=list)
    row_problems: list[str] = field(default_factory=list)
    row_problem_count: int = 0
    classes: Counter[ByteClass] = field(default_factory=Counter)
    unexplained: list[tuple[Piece, str]] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    ciphertext: list[Piece] = field(default_factory=list)
    figures: dict[tuple[str, str], ColumnFigures] = field(default_factory=dict)
    page_count: int = 0
    free_pages: int = 0

    def body(self, row: EnvelopeRow) -> bytes:
        """Read a body again from the file."""
        return join(self.data, row.pieces)

    def column_texts(self) -> Iterator[tuple[str, bytes, list[int]]]:
        """Name, all values one after the other, and where each begins, of each column: what is cut into rows is whole.

        Of bodies only hint, key commitment and nonce, which no key binds to a text; integers without leading zeros.
        """
        for table, rows in self.tables.items():
            key = "idx" if table == "commits" else "seq"
            for column in (key, *(column.name for column in TABLES[table])) if rows else ():
                values = [row.seq if column == key else row.values[column] for row in rows]
                yield f"{table}.{column}", *_joined(values)
        for column in ("seq", *(column.name for column in TABLES["envelopes"][:-1])) if self.envelopes else ():
            yield f"envelopes.{column}", *_joined([getattr(row, column) for row in self.envelopes])
        for part, start, end in (("hint", 0, 16), ("key commitment", 16, 48), ("nonce", 48, 72)):
            yield f"envelopes.body, {part}", *_joined([row.body_head[start:end] for row in self.envelopes])

    def outside_ciphertext(self) -> list[Piece]:
        """The parts of the file that hold no body, in order."""
        parts, position = [], 0
        for start, end in sorted(self.ciphertext):
            if start > position:
                parts.append((position, start))
            position = end
        if position < len(self.data):
            parts.append((position, len(self.data)))
        return parts


def _joined(values: Sequence[int | str | bytes]) -> tuple[bytes, list[int]]:
    """All values one after the other, and where each begins."""
    parts = [_value_bytes(value) for value in values]
    return b"".join(parts), list(accumulate(map(len, parts[:-1]), initial=0)) if parts else []


def _value_bytes(value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return value.encode() if isinstance(value, str) else value


def read_store(data: memoryview) -> Store:
    """Read a store from the bytes of its file.

    Raises:
        SqliteError: The file is not well formed; nothing of it is then taken as read.
    """
    parser = SqliteFile(data)
    store = Store(data)
    store.schema = parser.schema()
    schema_text_bytes = _check_schema(store)
    for entry in store.schema:
        if entry.kind == "table" and entry.root > 0:
            columns = TABLES.get(entry.name) if CREATE_STATEMENTS.get(entry.name) == entry.sql else None
            for row in parser.rows(
                entry.root, entry.name if entry.name in TABLES else "a table unknown to the protocol"
            ):
                _take_row(store, entry.name, columns, row)
    parser.read_free_list()
    store.account = parser.finish()
    store.page_count, store.free_pages = parser.page_count, parser.free_pages
    store.unexplained.extend(store.account.unexplained)
    store.classes[ByteClass.UNEXPLAINED] += store.account.unexplained_bytes
    store.classes[ByteClass.RESIDUE] += store.account.residue_bytes
    store.classes[ByteClass.FORMAT] += store.account.format_bytes
    # What is left of the file is the schema's own rows: their statements are format as far as they are the protocol's.
    rest = len(data) - sum(store.classes.values())
    store.classes[ByteClass.UNEXPLAINED] += rest - schema_text_bytes
    store.classes[ByteClass.FORMAT] += schema_text_bytes
    if rest != schema_text_bytes:
        store.unexplained.append(
            ((0, rest - schema_text_bytes), "rows of sqlite_schema that the protocol does not have")
        )
    return store


def _check_schema(store: Store) -> int:
    """Compare with section 9; return how many bytes the schema's rows take if all is as it must be."""
    expected = list(TABLES)
    found = [entry.name for entry in store.schema]
    for entry in store.schema:
        if entry.kind != "table":
            store.schema_problems.append(f"a {_shown(entry.kind)} named {_shown(entry.name)}")
        elif entry.name not in TABLES:
            store.schema_problems.append(f"a table named {_shown(entry.name)}")
        elif entry.sql != CREATE_STATEMENTS[entry.name] or entry.table != entry.name:
            store.schema_problems.append(f"table {entry.name} is made by another statement: {_shown(entry.sql)}")
    store.schema_problems.extend(f"table {name} is missing" for name in expected if name not in found)
    if not store.schema_problems and found != expected:
        store.schema_problems.append("the tables stand in another order")
    return sum(_schema_row_bytes(entry) for entry in store.schema if CREATE_STATEMENTS.get(entry.name) == entry.sql)


def _schema_row_bytes(entry: SchemaEntry) -> int:
    """Cell header, record header and values of a row of sqlite_schema (SQLite file format sections 1.6 and 2.1)."""
    root_bytes = next((size for size, bits in ((1, 7), (2, 15), (3, 23)) if not entry.root >> bits), 4)
    texts = [len(text.encode()) for text in (entry.kind, entry.name, entry.table, entry.sql)]
    header = 1 + 1 + sum(1 if 13 + 2 * size < 128 else 2 for size in texts)
    payload = header + sum(texts) + root_bytes
    return (1 if payload < 128 else 2) + 1 + payload


def _shown(text: str) -> str:
    return repr(text[:400])


def _take_row(store: Store, table: str, columns: tuple[Column, ...] | None, row: Row) -> None:
    """Class the bytes of a row, and keep it if it fits."""
    store.classes[ByteClass.FORMAT] += row.head_bytes
    if columns is None:
        _unexplained(store, f"{_shown(table)} row {row.rowid}: the table is not the protocol's", row.pieces)
        return
    if len(row.values) != len(columns) + 1:
        _problem(store, f"{table} row {row.rowid}: {len(row.values)} columns, {len(columns) + 1} are declared")
        _unexplained(store, f"{table} row {row.rowid}", row.pieces)
        return
    fits = row.values[0] is None
    kept = True
    if not fits:
        # The integer primary key is the rowid; SQLite always stores NULL in its place.
        _problem(store, f"{table} row {row.rowid}: a value in the place of the primary key")
        _unexplained(store, f"{table} row {row.rowid}, primary key", row.pieces[:1])
    for column, value, pieces in zip(columns, row.values[1:], row.pieces[1:], strict=True):
        problem = _column_problem(column, value)
        if problem:
            # A body of a wrong size stays in its row: that it is there at all is what the other checks ask.
            kept = kept and isinstance(value, bytes) and column.byte_class is ByteClass.CIPHERTEXT
            _problem(store, f"{table} row {row.rowid}, {column.name}: {problem}")
            _unexplained(store, f"{table} row {row.rowid}, {column.name}: {problem}", (pieces,))
            continue
        size = sum(end - start for start, end in pieces)
        store.classes[column.byte_class] += size
        if column.byte_class is ByteClass.CIPHERTEXT:
            store.ciphertext.extend(pieces)
        _count(store, table, column, value, size)
    if fits and kept:
        _keep(store, table, columns, row)


def _keep(store: Store, table: str, columns: tuple[Column, ...], row: Row) -> None:
    values = {column.name: value for column, value in zip(columns, row.values[1:], strict=True) if value is not None}
    if table == "envelopes":
        body = values["body"]
        stored = StoredRow(row.rowid, values)
        assert isinstance(body, bytes)
        store.envelopes.append(
            EnvelopeRow(
                seq=row.rowid,
                mailbox=stored.blob("mailbox"),
                number=stored.integer("number"),
                envelope_id=stored.blob("envelope_id"),
                expiry=stored.integer("expiry"),
                commit_index=stored.integer("commit_index"),
                leaf=stored.integer("leaf"),
                body_bytes=len(body),
                body_sha256=hashlib.sha256(body).digest(),
                body_head=body[:BODY_HEAD_BYTES],
                pieces=row.pieces[-1],
            )
        )
    else:
        store.tables[table].append(StoredRow(row.rowid, values))


def _column_problem(column: Column, value: Value) -> str | None:
    kinds = {"INTEGER": int, "BLOB": bytes, "TEXT": str}
    if not isinstance(value, kinds[column.kind]):
        return f"must be {column.kind}"
    if isinstance(value, int):
        return None if value >= 0 else "is negative"
    size = len(value.encode()) if isinstance(value, str) else len(value or b"")
    if not column.bytes_min <= size <= column.bytes_max:
        allowed = (
            f"{column.bytes_min}"
            if column.bytes_min == column.bytes_max
            else f"{column.bytes_min} to {column.bytes_max}"
        )
        return f"{size} bytes, must have {allowed}"
    if column.byte_class is ByteClass.CIPHERTEXT and not body_kinds(size):
        return f"{size} bytes, which is the size of no body (protocol.md section 4.4)"
    return None


def _count(store: Store, table: str, column: Column, value: Value, size: int) -> None:
    figures = store.figures.setdefault((table, column.name), ColumnFigures())
    figures.count += 1
    figures.size += size
    figures.distinct.add(hash(value))
    magnitude = value if isinstance(value, int) else size
    figures.low = magnitude if figures.low is None else min(figures.low, magnitude)
    figures.high = magnitude if figures.high is None else max(figures.high, magnitude)


def _problem(store: Store, text: str) -> None:
    store.row_problem_count += 1
    if len(store.row_problems) < PROBLEMS_MAX:
        store.row_problems.append(text)


def _unexplained(store: Store, text: str, places: tuple[tuple[Piece, ...], ...]) -> None:
    for pieces in places:
        for piece in pieces:
            store.classes[ByteClass.UNEXPLAINED] += piece[1] - piece[0]
            if len(store.unexplained) < PROBLEMS_MAX:
                store.unexplained.append((piece, text))
