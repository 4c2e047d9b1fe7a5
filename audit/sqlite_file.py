"""The SQLite 3 file format, read from raw bytes, with an account of every byte (protocol.md section 9).

SQLite itself answers queries and says nothing of the bytes that no query returns: free pages, gaps, the ends of
overflow pages. An order for "everything" hands those over too, so the verifier reads the file as it lies, by
https://www.sqlite.org/fileformat2.html (section numbers below are that page's). What the file says of itself is never
trusted: a page is taken once, a pointer must stay inside the file, a length is bounded, nothing recurses. What does
not fit raises `SqliteError`.

    page    ┌ header 8 or 12 ┬ cell pointers ┬ gap ─────────────┬ cell ┬ freeblock ┬ cell ┬ fragment ┬ cell ┐
            │     format     │    format     │ format / residue │ row  │  residue  │ row  │          │ row  │

Bytes that are not a row's are *format* where the format dictates them or they are zero, and *residue* where they are
stale: SQLite moves cells between pages and leaves the old copies in gaps, even with `secure_delete`. Residue is
counted page by page, and on free pages, which `secure_delete` erases, once more by itself. What nothing refers to (a
page in no tree and on no free list, bytes behind the last page) is *unexplained*.

Only what the store's schema can hold is read: table b-trees of UTF-8 with 4,096-byte pages. Auto-vacuum's pointer-map
pages, other page sizes and reserved bytes are refused. An index's pages are not followed, and so turn up as
unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct, unpack, unpack_from
from typing import Final, NamedTuple

from audit.errors import BoundError, SqliteError
from audit.rows import Bytes, Piece
from audit.sqlite_records import Value, decode_record, read_varint

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 100
SCHEMA_ROWS_MAX: Final = 256
SCHEMA_ROW_BYTES_MAX: Final = 64 * 1024
"""The protocol's schema has 10 rows, of at most 300 bytes."""
PAGES_MAX: Final = 1 << 27
"""512 GiB: one byte of memory for each."""
DEPTH_MAX: Final = 20
"""SQLite's own BTCURSOR_MAX_DEPTH: a deeper tree cannot be read by it."""
PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""A row's; the largest that a relay writes is a commit's leaves, 32 bytes an envelope."""
PAGE_PAYLOAD_BYTES_MAX: Final = 4 * PAYLOAD_BYTES_MAX
"""Of all rows that begin on one page, which are held at once; an honest page has one that is long, or many short."""
LOCAL_MAX: Final = PAGE_BYTES - 35
LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
OVERFLOW_BYTES: Final = PAGE_BYTES - 4
LOCK_BYTE_OFFSET: Final = 1 << 30
"""Section 1.4: the page that holds this offset is set aside for locks and never used."""
INTERIOR, LEAF = 0x05, 0x0D
_TWO_U16: Final = Struct(">HH")
_TWO_U32: Final = Struct(">II")


class Cell(NamedTuple):
    """One row as it lies in the file, its record not decoded."""

    rowid: int
    payload: bytes
    """The record: header and values."""
    pieces: list[Piece]
    """Where the payload lies in the file."""
    head_bytes: int
    """The cell's header, pointers to overflow pages, and what fills a cell of less than 4 bytes."""
    page: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values, and where in the file the bytes of each lie."""

    rowid: int
    values: tuple[Value, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    head_bytes: int
    """Cell and record headers, and pointers to overflow pages: format, but for the rowid."""
    page: int


@dataclass(frozen=True, slots=True)
class SchemaEntry:
    """One row of sqlite_schema."""

    kind: str
    name: str
    table: str
    root: int
    sql: str


@dataclass(slots=True)
class Account:
    """Where the bytes went that are no row's values."""

    format_bytes: int = 0
    residue_bytes: int = 0
    residue_by_page: Counter[int] = field(default_factory=Counter)
    unerased_by_page: Counter[int] = field(default_factory=Counter)
    """The part of residue that lies on free pages and is no old pointer: `secure_delete` would have erased it."""
    unexplained: list[tuple[Piece, str]] = field(default_factory=list)

    @property
    def unexplained_bytes(self) -> int:
        """Count of bytes that nothing refers to."""
        return sum(end - start for (start, end), _ in self.unexplained)


class SqliteFile:
    """A parser over the bytes of one file; ask `rows` once for each table, then `finish` closes the account."""

    def __init__(self, data: Bytes, lock_byte_offset: int = LOCK_BYTE_OFFSET) -> None:
        self._data = data
        self._lock_page = lock_byte_offset // PAGE_BYTES + 1
        self.account = Account()
        self.page_count = 0
        self.overflow_pages = 0
        self.free_pages = 0
        self.table_pages = 0
        self._read_header()
        self._taken = bytearray(self.page_count + 1)

    # -------------------------------------------------------------------------------------------- header, section 1.3

    def _u16(self, offset: int) -> int:
        return int.from_bytes(self._data[offset : offset + 2], "big")

    def _u32(self, offset: int) -> int:
        return int.from_bytes(self._data[offset : offset + 4], "big")

    def _read_header(self) -> None:
        data = self._data
        if len(data) < PAGE_BYTES:
            raise SqliteError("store", f"{len(data)} bytes, less than one page of {PAGE_BYTES}")
        head = bytes(data[:HEADER_BYTES])
        if head[:16] != b"SQLite format 3\0":
            raise SqliteError("store header", "is not that of an SQLite 3 file")
        fixed: dict[str, tuple[object, set[object]]] = {
            "page size": (self._u16(16), {PAGE_BYTES}),
            "write version": (head[18], {1, 2}),
            "read version": (head[19], {1, 2}),
            "reserved bytes a page": (head[20], {0}),
            "payload fractions": (head[21:24], {b"\x40\x20\x20"}),
            "schema format": (self._u32(44), {4}),
            "largest root page (auto-vacuum)": (self._u32(52), {0}),
            "text encoding": (self._u32(56), {1}),
            "incremental vacuum": (self._u32(64), {0}),
        }
        for name, (value, allowed) in fixed.items():
            if value not in allowed:
                raise SqliteError("store header", f"{name} is {value!r}")
        # SQLite writes zero here unless told otherwise, and the protocol never tells it: whatever stands here is
        # somebody's message.
        for name, start, end in (
            ("default cache size", 48, 52),
            ("user version", 60, 64),
            ("application id", 68, 72),
            ("space for expansion", 72, 92),
        ):
            self._stale_or_unexplained(start, end, f"store header, {name}")
        self.account.format_bytes += HEADER_BYTES - 32
        self.page_count = len(data) // PAGE_BYTES
        if self.page_count > PAGES_MAX:
            raise BoundError("store", f"{self.page_count:,} pages, at most {PAGES_MAX:,} are read")
        tail = len(data) - self.page_count * PAGE_BYTES
        if tail:
            self.account.unexplained.append(((len(data) - tail, len(data)), "behind the last whole page"))
        # Section 1.3.8: the size in the header counts only if it was written by the same change.
        if self._u32(24) == self._u32(92) and self._u32(28) != self.page_count:
            raise SqliteError("store header", f"names {self._u32(28)} pages, the file has {self.page_count}")

    def _stale_or_unexplained(self, start: int, end: int, where: str) -> None:
        if any(self._data[start:end]):
            self.account.unexplained.append(((start, end), where))
        else:
            self.account.format_bytes += end - start

    # -------------------------------------------------------------------------------------------------------- pages

    def _take(self, page: int, what: str) -> int:
        """Take a page for one use and return its offset; every page has exactly one."""
        if not 1 <= page <= self.page_count:
            raise SqliteError(what, f"page {page} is not among the {self.page_count} of the file")
        if page == self._lock_page:
            raise SqliteError(what, f"page {page} is set aside for locks")
        if self._taken[page]:
            raise SqliteError(what, f"page {page} is used twice")
        self._taken[page] = 1
        return (page - 1) * PAGE_BYTES

    def _read(self, offset: int) -> bytes:
        return bytes(self._data[offset : offset + PAGE_BYTES])

    def _gap(self, content: bytes, start: int, end: int, page: int) -> None:
        """Account for bytes of a page that hold nothing: zeros are format, the rest is residue."""
        stale = end - start - content.count(0, start, end)
        self.account.format_bytes += end - start - stale
        if stale:
            self.account.residue_bytes += stale
            self.account.residue_by_page[page] += stale

    # ------------------------------------------------------------------------------------------- b-trees, section 1.6

    def schema(self) -> list[SchemaEntry]:
        """Read sqlite_schema, whose tree begins on page 1."""
        entries: list[SchemaEntry] = []
        for cell in self.cells(1, "sqlite_schema"):
            if len(cell.payload) > SCHEMA_ROW_BYTES_MAX or len(entries) == SCHEMA_ROWS_MAX:
                raise SqliteError("sqlite_schema", f"more than {SCHEMA_ROWS_MAX} rows, or one that is too long")
            row = row_of(cell, "sqlite_schema")
            if len(row.values) != 5:
                raise SqliteError("sqlite_schema", f"a row of {len(row.values)} columns")
            kind, name, table, root, sql = row.values
            if not (isinstance(kind, str) and isinstance(name, str) and isinstance(table, str)):
                raise SqliteError("sqlite_schema", "a type or name that is no text")
            # A view or trigger has root 0; sql is NULL for SQLite's own indexes.
            entries.append(
                SchemaEntry(
                    kind, name, table, root if isinstance(root, int) else 0, sql if isinstance(sql, str) else ""
                )
            )
        return entries

    def rows(self, root: int, table: str) -> Iterator[Row]:
        """Yield the rows of the table b-tree at page `root`, in order of rowid, decoded.

        Raises:
            SqliteError: Whatever is not a well-formed tree of this file.
        """
        for cell in self.cells(root, table):
            yield row_of(cell, table)

    def cells(self, root: int, table: str) -> Iterator[Cell]:
        """Yield the same rows as they lie in the file.

        Raises:
            SqliteError: Whatever is not a well-formed tree of this file.
        """
        last_rowid: int | None = None
        stack: list[Iterator[tuple[int, int | None]]] = [iter(((root, None),))]
        keys: list[int | None] = [None]
        while stack:
            # A key is at least as high as every row of its child, and below the next row.
            key = keys.pop()
            if key is not None:
                if last_rowid is not None and last_rowid > key:
                    raise SqliteError(table, f"a key {key} of an interior page, below row {last_rowid}")
                last_rowid = key
            page, key = next(stack[-1], (0, None))
            if not page:
                stack.pop()
                continue
            keys.append(key)
            if len(stack) > DEPTH_MAX:
                raise SqliteError(table, f"a tree deeper than {DEPTH_MAX}")
            offset = self._take(page, table)
            content = self._read(offset)
            self.table_pages += 1
            kind = content[self._header_at(page)]
            if kind == INTERIOR:
                stack.append(iter(self._read_interior(page, content, table)))
                keys.append(None)
            elif kind == LEAF:
                for cell in self._read_leaf(page, offset, content, table):
                    if last_rowid is not None and cell.rowid <= last_rowid:
                        raise SqliteError(f"{table}, page {page}", f"row {cell.rowid} after row {last_rowid}")
                    last_rowid = cell.rowid
                    yield cell
            else:
                raise SqliteError(f"{table}, page {page}", f"type {kind} is no page of a table")

    @staticmethod
    def _header_at(page: int) -> int:
        return HEADER_BYTES if page == 1 else 0

    def _cell_pointers(self, page: int, content: bytes, header_bytes: int, table: str) -> tuple[list[int], int, int]:
        """Return cell offsets within the page, the end of the pointer array, and the start of the cell content area."""
        at = self._header_at(page)
        count, area = _TWO_U16.unpack_from(content, at + 3)
        area = area or 65536
        pointers_at = at + header_bytes
        pointers_end = pointers_at + 2 * count
        if not pointers_end <= area <= PAGE_BYTES:
            raise SqliteError(f"{table}, page {page}", f"{count} cells and content from {area} do not fit")
        pointers = list(unpack_from(f">{count}H", content, pointers_at))
        for pointer in pointers:
            if not area <= pointer <= PAGE_BYTES - 4:
                raise SqliteError(f"{table}, page {page}", f"a cell at {pointer}, outside of the content area")
        return pointers, pointers_end, area

    def _read_interior(self, page: int, content: bytes, table: str) -> list[tuple[int, int | None]]:
        """Section 1.6, table interior page: 4-byte child pointer, varint key; rightmost pointer in the header."""
        pointers, pointers_end, area = self._cell_pointers(page, content, 12, table)
        children: list[tuple[int, int | None]] = []
        used = []
        for pointer in pointers:
            key, end = read_varint(content, pointer + 4, PAGE_BYTES, table)
            children.append((self._child(content, pointer, table), _signed(key)))
            used.append((pointer, end))
            self.account.format_bytes += end - pointer
        children.append((self._child(content, self._header_at(page) + 8, table), None))
        self.account.format_bytes += pointers_end - self._header_at(page)
        self._account_page(page, content, used, pointers_end, area, table)
        return children

    def _child(self, content: bytes, at: int, table: str) -> int:
        child = int.from_bytes(content[at : at + 4], "big")
        if not child:
            raise SqliteError(table, f"page 0 is not among the {self.page_count} of the file")
        return child

    def _read_leaf(self, page: int, offset: int, content: bytes, table: str) -> list[Cell]:
        pointers, pointers_end, area = self._cell_pointers(page, content, 8, table)
        used, cells = [], []
        payload_bytes_left = PAGE_PAYLOAD_BYTES_MAX
        for pointer in pointers:
            cell, end = self._read_cell(page, offset, content, pointer, table)
            payload_bytes_left -= len(cell.payload)
            if payload_bytes_left < 0:
                raise SqliteError(f"{table}, page {page}", f"rows of more than {PAGE_PAYLOAD_BYTES_MAX} bytes on it")
            cells.append(cell)
            used.append((pointer, end))
        self.account.format_bytes += pointers_end - self._header_at(page)
        self._account_page(page, content, used, pointers_end, area, table)
        return cells

    def _account_page(
        self, page: int, content: bytes, areas: list[Piece], pointers_end: int, area: int, table: str
    ) -> None:
        """Account for the gap before the content area, the freeblocks, and the fragments between cells."""
        at = self._header_at(page)
        self._gap(content, pointers_end, area, page)
        freeblock = int.from_bytes(content[at + 1 : at + 3], "big")
        if freeblock:
            areas.extend(self._freeblocks(content, freeblock, area, page, table))
        areas.sort()
        position, fragments = area, 0
        for start, end in areas:
            if start != position:
                fragments += self._fragment(content, position, start, page, table)
            position = end
        if position != PAGE_BYTES:
            fragments += self._fragment(content, position, PAGE_BYTES, page, table)
        if fragments != content[at + 7]:
            raise SqliteError(
                f"{table}, page {page}", f"{fragments} bytes of fragments, the page's header counts {content[at + 7]}"
            )

    def _freeblocks(self, content: bytes, freeblock: int, area: int, page: int, table: str) -> Iterator[Piece]:
        last, where = area - 1, f"{table}, page {page}"
        while freeblock:
            # "Freeblocks are always connected in order of increasing offset", so the chain ends.
            if not last < freeblock <= PAGE_BYTES - 4:
                raise SqliteError(where, f"a freeblock at {freeblock} after {last}")
            following, size = _TWO_U16.unpack_from(content, freeblock)
            if size < 4 or freeblock + size > PAGE_BYTES:
                raise SqliteError(where, f"a freeblock of {size} bytes at {freeblock}")
            yield freeblock, freeblock + size
            self.account.format_bytes += 4
            self._gap(content, freeblock + 4, freeblock + size, page)
            last, freeblock = freeblock, following

    def _fragment(self, content: bytes, start: int, end: int, page: int, table: str) -> int:
        where = f"{table}, page {page}"
        if end < start:
            raise SqliteError(where, f"two cells or freeblocks overlap at {end}")
        if end - start > 3:
            raise SqliteError(where, f"{end - start} bytes at {start} that belong to nothing")
        self._gap(content, start, end, page)
        return end - start

    # ------------------------------------------------------------------------------- cells and overflow, section 1.6

    def _read_cell(self, page: int, offset: int, content: bytes, pointer: int, table: str) -> tuple[Cell, int]:
        """Return the row of a table leaf cell, and the cell's end within the page."""
        payload_bytes, at = read_varint(content, pointer, PAGE_BYTES, table)
        rowid, at = read_varint(content, at, PAGE_BYTES, table)
        if not 0 < payload_bytes <= PAYLOAD_BYTES_MAX:
            raise SqliteError(
                f"{table}, page {page}",
                f"a row of {payload_bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed",
            )
        local = self._local_bytes(payload_bytes)
        end = at + local + (4 if local < payload_bytes else 0)
        if end > PAGE_BYTES:
            raise SqliteError(f"{table}, page {page}", f"a cell at {pointer} that runs over the page's end")
        pieces: list[Piece] = [(offset + at, offset + at + local)]
        payload, chain_bytes = content[at : at + local], 0
        if local < payload_bytes:
            first = int.from_bytes(content[end - 4 : end], "big")
            rest, chain_bytes = self._follow_overflow(first, payload_bytes - local, pieces, f"{table}, page {page}")
            payload, chain_bytes = payload + rest, chain_bytes + 4
        # A cell never takes less than 4 bytes, the size of the freeblock that it would leave (section 1.6).
        cell_end = max(end, pointer + 4)
        head_bytes = at - pointer + chain_bytes + cell_end - end
        return Cell(_signed(rowid), payload, pieces, head_bytes, page), cell_end

    @staticmethod
    def _local_bytes(payload_bytes: int) -> int:
        """Section 1.6: how much of a payload stays on the leaf."""
        if payload_bytes <= LOCAL_MAX:
            return payload_bytes
        local = LOCAL_MIN + (payload_bytes - LOCAL_MIN) % OVERFLOW_BYTES
        return local if local <= LOCAL_MAX else LOCAL_MIN

    def _follow_overflow(self, page: int, left: int, pieces: list[Piece], where: str) -> tuple[bytes, int]:
        """Collect the pieces of a chain of overflow pages; return what is in them and the bytes that are pointers."""
        parts = []
        while left:
            offset = self._take(page, where)
            self.overflow_pages += 1
            content = self._read(offset)
            here = min(left, OVERFLOW_BYTES)
            pieces.append((offset + 4, offset + 4 + here))
            parts.append(content[4 : 4 + here])
            if here < OVERFLOW_BYTES:
                self._gap(content, 4 + here, PAGE_BYTES, page)
            left -= here
            page = int.from_bytes(content[:4], "big")
        if page:
            raise SqliteError(where, f"a chain of overflow pages goes on to page {page} behind its row's end")
        return b"".join(parts), 4 * len(parts)

    # ------------------------------------------------------------------------------------------ free list, section 1.5

    def read_free_list(self) -> None:
        """Account for trunk and leaf pages of the free list."""
        trunk, named = self._u32(32), self._u32(36)
        while trunk:
            content = self._read(self._take(trunk, "free list"))
            self.free_pages += 1
            following, count = _TWO_U32.unpack_from(content, 0)
            if count > PAGE_BYTES // 4 - 2:
                raise SqliteError("free list", f"trunk page {trunk} names {count} leaves")
            self.account.format_bytes += 8 + 4 * count
            tail_at = 8 + 4 * count
            self._gap(content, tail_at, PAGE_BYTES, trunk)
            # A trunk keeps the pointers to leaves that it has given back; anything else was never erased.
            words = unpack(f">{PAGE_BYTES // 4}I", content)
            strange = sum(word > self.page_count for word in words[2 + count :])
            if strange:
                self.account.unerased_by_page[trunk] = 4 * strange
            for leaf in words[2 : 2 + count]:
                leaf_offset = self._take(leaf, "free list")
                self.free_pages += 1
                self._gap(self._read(leaf_offset), 0, PAGE_BYTES, leaf)
                if self.account.residue_by_page[leaf]:
                    self.account.unerased_by_page[leaf] = self.account.residue_by_page[leaf]
            trunk = following
        if self.free_pages != named:
            raise SqliteError("free list", f"has {self.free_pages} pages, the header counts {named}")

    def finish(self) -> Account:
        """Account for the page set aside for locks and for pages that nothing refers to, and return the account."""
        if self._lock_page <= self.page_count:
            offset = (self._lock_page - 1) * PAGE_BYTES
            self._taken[self._lock_page] = 1
            self._stale_or_unexplained(offset, offset + PAGE_BYTES, "the page set aside for locks")
        self._taken[0] = 1
        page = self._taken.find(0)
        while page >= 0:
            following = self._taken.find(1, page)
            last = following - 1 if following > 0 else self.page_count
            where = (
                f"page {page}, which nothing refers to"
                if page == last
                else f"pages {page} to {last}, which nothing refers to"
            )
            self.account.unexplained.append((((page - 1) * PAGE_BYTES, last * PAGE_BYTES), where))
            page = self._taken.find(0, last + 1)
        return self.account


def row_of(cell: Cell, table: str) -> Row:
    """Decode a cell's record."""
    values, pieces, header_bytes = decode_record(cell.payload, cell.pieces, f"{table}, page {cell.page}")
    return Row(cell.rowid, values, pieces, cell.head_bytes + header_bytes, cell.page)


def _signed(number: int) -> int:
    """SQLite's integers are signed 64 bits; a varint holds them as unsigned."""
    return number - (1 << 64) if number >> 63 else number
