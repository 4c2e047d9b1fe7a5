"""The store as rows with types, and the bytes of it by class (protocol.md section 9).

Reads the file once, through `sqlite_file`, checks every column against `schema.TABLES`, and keeps what the checks
need, by column (`rows`). Bodies are not kept: of each, its hash, size, first bytes and the look of the rest, and where
it lies in the file. Columns that do not fit are kept out of the rows and their bytes counted as unexplained, with the
reason.

Rows of one table have few different record headers, so what a header says (where each column lies, whether its size
fits, to which class its bytes belong) is worked out once for each; a row that fits then costs no more than
cutting it up.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import numpy as np

from audit.crypto import body_kinds
from audit.errors import BoundError
from audit.rows import (
    BODY_HEAD_BYTES,
    Bytes,
    EnvelopeRow,
    EnvelopeRows,
    Piece,
    PieceLists,
    StoredRow,
    StoredRows,
    Words,
    join,
)
from audit.schema import CREATE_STATEMENTS, TABLES, ByteClass, Column
from audit.sqlite_file import Account, Cell, Row, SchemaEntry, SqliteFile, row_of
from audit.sqlite_records import Value, cut, length_of, read_types, shortest_type

__all__ = ["ColumnFigures", "EnvelopeRow", "Store", "StoredRow", "read_store"]

PROBLEMS_MAX: Final = 1_000
"""Kept and shown; all are counted."""
ROWS_BYTES_MAX: Final = 640 * 1024 * 1024
"""Of what is kept of rows. An envelope takes some 260 bytes, a tombstone 130: some 2.4 million envelopes."""
SHAPES_MAX: Final = 4_096
SAMPLE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ColumnFigures:
    """What the leakage table shows of a column."""

    count: int = 0
    different: int = 0
    low: int | None = None
    high: int | None = None


@dataclass
class Store:
    """Everything that was read from the file."""

    data: Bytes
    schema: list[SchemaEntry] = field(default_factory=list)
    envelopes: EnvelopeRows = field(default_factory=EnvelopeRows)
    tables: dict[str, StoredRows] = field(default_factory=dict)
    schema_problems: list[str] = field(default_factory=list)
    row_problems: list[str] = field(default_factory=list)
    row_problem_count: int = 0
    classes: Counter[ByteClass] = field(default_factory=Counter)
    unexplained: list[tuple[Piece, str]] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    ciphertext: PieceLists = field(default_factory=PieceLists)
    sizes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Smallest and largest size of the values of each column that has no numbers."""
    page_count: int = 0
    free_pages: int = 0

    def __post_init__(self) -> None:
        # An envelope is kept by itself; its table here stays empty.
        self.tables = {name: StoredRows(self.data, columns) for name, columns in TABLES.items()}

    def note_size(self, table: str, column: str, size: int) -> None:
        """Keep the smallest and the largest size of a column's values."""
        low, high = self.sizes.get((table, column), (size, size))
        self.sizes[table, column] = min(low, size), max(high, size)

    def body(self, row: EnvelopeRow) -> bytes:
        """Read a body again from the file."""
        return join(self.data, row.pieces)

    def column_texts(self) -> Iterator[tuple[str, bytes, list[int]]]:
        """Name, all values one after the other, and where each begins, of each column: what is cut into rows is whole.

        Of bodies only hint, key commitment and nonce, which no key binds to a text; integers without leading zeros.
        """
        for table, rows in self.tables.items():
            key = "idx" if table == "commits" else "seq"
            if not rows:
                continue
            yield f"{table}.{key}", *_joined(rows.seqs().tolist())
            for column in rows.names:
                yield f"{table}.{column}", *_joined([rows.value(at, column) for at in range(len(rows))])
        if not self.envelopes:
            return
        for column in ("seq", "number", "expiry", "commit_index", "leaf"):
            yield f"envelopes.{column}", *_joined(self.envelopes.integers(column).tolist())
        for column, fixed in (("mailbox", self.envelopes.mailboxes()), ("envelope_id", self.envelopes.ids())):
            yield f"envelopes.{column}", fixed.tobytes(), list(range(0, 16 * len(fixed), 16))
        for part, start, end in (("hint", 0, 16), ("key commitment", 16, 48), ("nonce", 48, 72)):
            values = self.envelopes.heads()[:, start:end]
            yield f"envelopes.body, {part}", values.tobytes(), list(range(0, values.size, end - start))

    def outside_ciphertext(self) -> list[Piece]:
        """The parts of the file that hold no body, in order."""
        return [(start, end) for start, end in self.bounds_outside_ciphertext().tolist()]

    def bounds_outside_ciphertext(self) -> Words:
        """The same as an array: start and end of each part."""
        ends = self.ciphertext.bounds()
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:, 1]))
        bounds = np.column_stack((starts, np.concatenate((ends[:, 0], [len(self.data)]))))
        return bounds[bounds[:, 0] < bounds[:, 1]]

    def figures(self, table: str, column: Column) -> ColumnFigures:
        """What a column shows, over the rows that fit."""
        count = len(self.envelopes) if table == "envelopes" else len(self.tables[table])
        if not count:
            return ColumnFigures()
        if column.kind == "INTEGER":
            numbers = (self.envelopes if table == "envelopes" else self.tables[table]).integers(column.name)
            low, high = int(numbers.min()), int(numbers.max())
        else:
            low, high = self.sizes[table, column.name]
        return ColumnFigures(count, self._different(table, column.name), low, high)

    def _different(self, table: str, column: str) -> int:
        if table == "envelopes":
            return self.envelopes.different(column)
        return self.tables[table].different(column)


def _joined(values: Sequence[int | str | bytes]) -> tuple[bytes, list[int]]:
    """All values one after the other, and where each begins."""
    parts = [_value_bytes(value) for value in values]
    return b"".join(parts), list(accumulate(map(len, parts[:-1]), initial=0)) if parts else []


def _value_bytes(value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        # Row numbers may be negative in a store that means no good.
        return (value % 2**64).to_bytes((value.bit_length() + 7) // 8 if value >= 0 else 8, "big")
    return value.encode() if isinstance(value, str) else value


def read_store(data: Bytes, rows_bytes_max: float = ROWS_BYTES_MAX) -> Store:
    """Read a store from the bytes of its file.

    Args:
        data: the file.
        rows_bytes_max: how much of the rows may be kept, in bytes.

    Raises:
        BoundError: The rows take more.
        SqliteError: The file is not well formed; nothing of it is then taken as read.
    """
    parser = SqliteFile(data)
    store = Store(data)
    store.schema = parser.schema()
    schema_text_bytes = _check_schema(store)
    for entry in store.schema:
        if entry.kind == "table" and entry.root > 0:
            columns = TABLES.get(entry.name) if CREATE_STATEMENTS.get(entry.name) == entry.sql else None
            name = entry.name if entry.name in TABLES else "a table unknown to the protocol"
            reader = _TableReader(store, entry.name, columns, rows_bytes_max)
            for cell in parser.cells(entry.root, name):
                reader.take(cell)
            reader.finish()
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


@dataclass(slots=True)
class _Shape:
    """What a record header says: which columns lie where, if all have a type and size that fit."""

    fits: bool
    header_bytes: int
    record_bytes: int
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Of each column behind the key, its start and end in the record."""
    integers: list[tuple[int, int]] = field(default_factory=list)
    """Positions of INTEGER columns, with the serial type."""
    texts: list[int] = field(default_factory=list)
    """Positions of TEXT columns."""
    rows: int = 0


class _TableReader:
    """Takes the rows of one table."""

    def __init__(self, store: Store, table: str, columns: tuple[Column, ...] | None, rows_bytes_max: float) -> None:
        self._store = store
        self._table = table
        self._columns = columns
        self._bytes_left = rows_bytes_max - sum(_kept_bytes(store, name) for name in TABLES)
        self._row_bytes = _ROW_BYTES.get(table, 0)
        self._shapes: dict[bytes, _Shape] = {}
        self._format_bytes = 0

    def take(self, cell: Cell) -> None:
        """Class the bytes of a row, and keep it if it fits."""
        shape = self._shape_of(cell, self._columns) if self._columns is not None else None
        values = _values_of(cell.payload, shape) if shape is not None else None
        if shape is None or values is None:
            _take_row(self._store, self._table, self._columns, row_of(cell, self._table), self._keep_odd)
            return
        shape.rows += 1
        self._format_bytes += cell.head_bytes
        self._keep(cell, values, shape)

    def _shape_of(self, cell: Cell, columns: tuple[Column, ...]) -> _Shape | None:
        payload = cell.payload
        header_bytes = payload[0]
        if header_bytes > 0x7F:
            return None
        header = payload[:header_bytes]
        shape = self._shapes.get(header)
        if shape is None and len(self._shapes) < SHAPES_MAX:
            shape = self._shapes[header] = self._read_shape(cell, columns)
        return shape if shape is not None and shape.fits else None

    def _read_shape(self, cell: Cell, columns: tuple[Column, ...]) -> _Shape:
        where = f"{self._table}, page {cell.page}"
        types, header_bytes = read_types(cell.payload, cell.pieces[0][1] - cell.pieces[0][0], where)
        if len(types) != len(columns) + 1 or types[0] != 0:
            return _Shape(False, 0, 0)
        shape = _Shape(True, header_bytes, header_bytes)
        for position, (column, serial_type) in enumerate(zip(columns, types[1:], strict=True)):
            length = length_of(serial_type, where)
            shape.spans.append((shape.record_bytes, shape.record_bytes + length))
            shape.record_bytes += length
            if column.kind == "INTEGER":
                shape.fits &= 0 < serial_type < 10
                shape.integers.append((position, serial_type))
            else:
                shape.fits &= serial_type >= 12 and bool(serial_type % 2) == (column.kind == "TEXT")
                shape.fits &= _size_problem(column, length) is None
                if column.kind == "TEXT":
                    shape.texts.append(position)
        return shape

    def _take_room(self, rowid: int) -> None:
        """Count what a row takes, and look at its number."""
        self._bytes_left -= self._row_bytes
        if self._bytes_left < 0:
            raise BoundError(
                "store", f"more rows than {ROWS_BYTES_MAX // 2**20} MiB hold, of which the verifier keeps what it needs"
            )
        if rowid < 1:
            _problem(self._store, f"{self._table} row {rowid}: rows are counted from 1")

    def _keep(self, cell: Cell, values: list[int | bytes], shape: _Shape) -> None:
        self._take_room(cell.rowid)
        pieces = cell.pieces
        if self._table == "envelopes":
            start, end = shape.spans[-1]
            body = cut(pieces, start, end)
            self._store.ciphertext.append(body)
            _keep_envelope(self._store.envelopes, cell.rowid, values, body)
        else:
            places = [cut(pieces, start, end) for start, end in shape.spans] if self._table in _READ_AGAIN else None
            self._store.tables[self._table].append(cell.rowid, values, places)

    def _keep_odd(self, row: Row) -> None:
        """Keep a row that was looked at column by column."""
        self._take_room(row.rowid)
        values = [value.encode() if isinstance(value, str) else value for value in row.values[1:] if value is not None]
        for column, value in zip(self._columns or (), values, strict=True):
            if not isinstance(value, int):
                self._store.note_size(self._table, column.name, len(value))
        if self._table == "envelopes":
            _keep_envelope(self._store.envelopes, row.rowid, values, row.pieces[-1])
        else:
            self._store.tables[self._table].append(row.rowid, values, row.pieces[1:])

    def finish(self) -> None:
        """Add up what the rows that fit had in common."""
        classes = self._store.classes
        classes[ByteClass.FORMAT] += self._format_bytes
        for shape in self._shapes.values():
            if not shape.rows:
                continue
            classes[ByteClass.FORMAT] += shape.rows * shape.header_bytes
            for column, (start, end) in zip(self._columns or (), shape.spans, strict=True):
                classes[column.byte_class] += shape.rows * (end - start)
                if column.kind != "INTEGER":
                    self._store.note_size(self._table, column.name, end - start)


def _values_of(payload: bytes, shape: _Shape) -> list[int | bytes] | None:
    """Cut a record up; None if it must be looked at column by column."""
    if len(payload) != shape.record_bytes:
        return None
    values: list[int | bytes] = [payload[start:end] for start, end in shape.spans]
    for position, serial_type in shape.integers:
        raw = values[position]
        number = int.from_bytes(raw, "big", signed=True) if isinstance(raw, bytes) and raw else serial_type - 8
        if number < 0 or shortest_type(number) != serial_type:
            return None
        values[position] = number
    for position in shape.texts:
        text = values[position]
        if not isinstance(text, bytes) or not text.isascii():
            return None
    return values


def _keep_envelope(envelopes: EnvelopeRows, seq: int, values: Sequence[int | bytes], pieces: tuple[Piece, ...]) -> None:
    mailbox, number, envelope_id, expiry, commit_index, leaf, body = values
    assert isinstance(mailbox, bytes)
    assert isinstance(number, int)
    assert isinstance(envelope_id, bytes)
    assert isinstance(expiry, int)
    assert isinstance(commit_index, int)
    assert isinstance(leaf, int)
    assert isinstance(body, bytes)
    envelopes.append(
        (seq, number, expiry, commit_index, leaf, len(body)),
        mailbox,
        envelope_id,
        hashlib.sha256(body).digest(),
        body[:BODY_HEAD_BYTES],
        # Of a long body every nth byte: a part that is plaintext is in such a sample in the same proportion.
        chi_square(body[:: max(1, len(body) // SAMPLE_BYTES)]),
        pieces,
    )


def chi_square(data: bytes) -> float:
    """Pearson's statistic of the counts of byte values against equal counts."""
    if not data:
        return 0.0
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    return float(np.dot(counts, counts)) * 256 / len(data) - len(data)


_READ_AGAIN: Final = frozenset(
    table
    for table, columns in TABLES.items()
    if any(column.kind != "INTEGER" and StoredRows.reads_again(column) for column in columns)
)
_ROW_BYTES: Final = {table: StoredRows.row_bytes(columns) for table, columns in TABLES.items()} | {
    "envelopes": EnvelopeRows.ROW_BYTES
}


def _kept_bytes(store: Store, table: str) -> int:
    rows = store.envelopes if table == "envelopes" else store.tables[table]
    return len(rows) * _ROW_BYTES[table]


def _take_row(
    store: Store, table: str, columns: tuple[Column, ...] | None, row: Row, keep: Callable[[Row], None]
) -> None:
    """Class the bytes of a row column by column, and keep it if it fits."""
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
        store.classes[column.byte_class] += sum(end - start for start, end in pieces)
        if column.byte_class is ByteClass.CIPHERTEXT:
            store.ciphertext.append(pieces)
    if fits and kept:
        keep(row)


def _column_problem(column: Column, value: Value) -> str | None:
    kinds = {"INTEGER": int, "BLOB": bytes, "TEXT": str}
    if not isinstance(value, kinds[column.kind]):
        return f"must be {column.kind}"
    if isinstance(value, int):
        return None if value >= 0 else "is negative"
    return _size_problem(column, len(value.encode()) if isinstance(value, str) else len(value or b""))


def _size_problem(column: Column, size: int) -> str | None:
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
