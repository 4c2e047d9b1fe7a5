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
from typing import Final, TypeAlias

from audit.errors import SqliteError
from audit.sqlite_records import Value, decode_record, read_varint

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 100
DEPTH_MAX: Final = 20
"""SQLite's own BTCURSOR_MAX_DEPTH: a deeper tree cannot be read by it."""
PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""A row's; the largest that a relay writes is a commit's leaves, 32 bytes an envelope."""
LOCAL_MAX: Final = PAGE_BYTES - 35
LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
OVERFLOW_BYTES: Final = PAGE_BYTES - 4
LOCK_BYTE_OFFSET: Final = 1 << 30
"""Section 1.4: the page that holds this offset is set aside for locks and never used."""
INTERIOR, LEAF = 0x05, 0x0D

Piece: TypeAlias = tuple[int, int]
"""Start and end of bytes in the file."""


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

    def __init__(self, data: memoryview, lock_byte_offset: int = LOCK_BYTE_OFFSET) -> None:
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
        if bytes(data[:16]) != b"SQLite format 3\0":
            raise SqliteError("store header", "is not that of an SQLite 3 file")
        fixed: dict[str, tuple[object, set[object]]] = {
            "page size": (self._u16(16), {PAGE_BYTES}),
            "write version": (data[18], {1, 2}),
            "read version": (data[19], {1, 2}),
            "reserved bytes a page": (data[20], {0}),
            "payload fractions": (bytes(data[21:24]), {b"\x40\x20\x20"}),
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

    def _gap(self, start: int, end: int, page: int) -> None:
        """Account for bytes that hold nothing: zeros are format, the rest is residue."""
        stale = end - start - bytes(self._data[start:end]).count(0)
        self.account.format_bytes += end - start - stale
        if stale:
            self.account.residue_bytes += stale
            self.account.residue_by_page[page] += stale

    # ------------------------------------------------------------------------------------------- b-trees, section 1.6

    def schema(self) -> list[SchemaEntry]:
        """Read sqlite_schema, whose tree begins on page 1."""
        entries = []
        for row in self.rows(1, "sqlite_schema"):
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
        """Yield the rows of the table b-tree at page `root`, in order of rowid.

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
            self.table_pages += 1
            kind = self._data[offset + self._header_at(page)]
            if kind == INTERIOR:
                stack.append(iter(self._read_interior(page, offset, table)))
                keys.append(None)
            elif kind == LEAF:
                for row in self._read_leaf(page, offset, table):
                    if last_rowid is not None and row.rowid <= last_rowid:
                        raise SqliteError(f"{table}, page {page}", f"row {row.rowid} after row {last_rowid}")
                    last_rowid = row.rowid
                    yield row
            else:
                raise SqliteError(f"{table}, page {page}", f"type {kind} is no page of a table")

    @staticmethod
    def _header_at(page: int) -> int:
        return HEADER_BYTES if page == 1 else 0

    def _cell_pointers(self, page: int, offset: int, header_bytes: int, table: str) -> tuple[list[int], int, int]:
        """Return cell offsets within the page, the end of the pointer array, and the start of the cell content area."""
        at = offset + self._header_at(page)
        count = self._u16(at + 3)
        content = self._u16(at + 5) or 65536
        pointers_at = self._header_at(page) + header_bytes
        pointers_end = pointers_at + 2 * count
        if not pointers_end <= content <= PAGE_BYTES:
            raise SqliteError(f"{table}, page {page}", f"{count} cells and content from {content} do not fit")
        pointers = [self._u16(offset + pointers_at + 2 * i) for i in range(count)]
        for pointer in pointers:
            if not content <= pointer <= PAGE_BYTES - 4:
                raise SqliteError(f"{table}, page {page}", f"a cell at {pointer}, outside of the content area")
        return pointers, pointers_end, content

    def _read_interior(self, page: int, offset: int, table: str) -> list[tuple[int, int | None]]:
        """Section 1.6, table interior page: 4-byte child pointer, varint key; rightmost pointer in the header."""
        pointers, pointers_end, content = self._cell_pointers(page, offset, 12, table)
        children: list[tuple[int, int | None]] = []
        used = []
        for pointer in pointers:
            key, end = read_varint(self._data, offset + pointer + 4, offset + PAGE_BYTES, table)
            children.append((self._child(offset + pointer, table), _signed(key)))
            used.append((pointer, end - offset))
            self.account.format_bytes += end - offset - pointer
        children.append((self._child(offset + self._header_at(page) + 8, table), None))
        self.account.format_bytes += pointers_end - self._header_at(page)
        self._account_page(page, offset, used, pointers_end, content, table)
        return children

    def _child(self, at: int, table: str) -> int:
        child = self._u32(at)
        if not child:
            raise SqliteError(table, f"page 0 is not among the {self.page_count} of the file")
        return child

    def _read_leaf(self, page: int, offset: int, table: str) -> list[Row]:
        pointers, pointers_end, content = self._cell_pointers(page, offset, 8, table)
        used, rows = [], []
        for pointer in pointers:
            row, end = self._read_cell(page, offset, pointer, table)
            rows.append(row)
            used.append((pointer, end))
        self.account.format_bytes += pointers_end - self._header_at(page)
        self._account_page(page, offset, used, pointers_end, content, table)
        return rows

    def _account_page(
        self, page: int, offset: int, used: list[Piece], pointers_end: int, content: int, table: str
    ) -> None:
        """Account for the gap before the content area, the freeblocks, and the fragments between cells."""
        where = f"{table}, page {page}"
        at = offset + self._header_at(page)
        self._gap(offset + pointers_end, offset + content, page)
        areas = list(used)
        freeblock = self._u16(at + 1)
        last = content - 1
        while freeblock:
            # "Freeblocks are always connected in order of increasing offset", so the chain ends.
            if not last < freeblock <= PAGE_BYTES - 4:
                raise SqliteError(where, f"a freeblock at {freeblock} after {last}")
            size = self._u16(offset + freeblock + 2)
            if size < 4 or freeblock + size > PAGE_BYTES:
                raise SqliteError(where, f"a freeblock of {size} bytes at {freeblock}")
            areas.append((freeblock, freeblock + size))
            self.account.format_bytes += 4
            self._gap(offset + freeblock + 4, offset + freeblock + size, page)
            last, freeblock = freeblock, self._u16(offset + freeblock)
        areas.sort()
        position, fragments = content, 0
        for start, end in [*areas, (PAGE_BYTES, PAGE_BYTES)]:
            if start < position:
                raise SqliteError(where, f"two cells or freeblocks overlap at {start}")
            if start > position:
                if start - position > 3:
                    raise SqliteError(where, f"{start - position} bytes at {position} that belong to nothing")
                fragments += start - position
                self._gap(offset + position, offset + start, page)
            position = end
        if fragments != self._data[at + 7]:
            raise SqliteError(where, f"{fragments} bytes of fragments, the page's header counts {self._data[at + 7]}")

    # ------------------------------------------------------------------------------- cells and overflow, section 1.6

    def _read_cell(self, page: int, offset: int, pointer: int, table: str) -> tuple[Row, int]:
        """Return the row of a table leaf cell, and the cell's end within the page."""
        where = f"{table}, page {page}"
        page_end = offset + PAGE_BYTES
        payload_bytes, at = read_varint(self._data, offset + pointer, page_end, where)
        rowid, at = read_varint(self._data, at, page_end, where)
        if not 0 < payload_bytes <= PAYLOAD_BYTES_MAX:
            raise SqliteError(where, f"a row of {payload_bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed")
        local = self._local_bytes(payload_bytes)
        end = at + local + (4 if local < payload_bytes else 0)
        if end > page_end:
            raise SqliteError(where, f"a cell at {pointer} that runs over the page's end")
        pieces: list[Piece] = [(at, at + local)]
        chain_bytes = 0
        if local < payload_bytes:
            chain_bytes = 4 + self._follow_overflow(self._u32(end - 4), payload_bytes - local, pieces, where)
        values, value_pieces, record_header_bytes = decode_record(self._data, pieces, where)
        # A cell never takes less than 4 bytes, the size of the freeblock that it would leave (section 1.6).
        cell_end = max(end, offset + pointer + 4)
        head_bytes = at - offset - pointer + record_header_bytes + chain_bytes + cell_end - end
        return Row(_signed(rowid), values, value_pieces, head_bytes, page), cell_end - offset

    @staticmethod
    def _local_bytes(payload_bytes: int) -> int:
        """Section 1.6: how much of a payload stays on the leaf."""
        if payload_bytes <= LOCAL_MAX:
            return payload_bytes
        local = LOCAL_MIN + (payload_bytes - LOCAL_MIN) % OVERFLOW_BYTES
        return local if local <= LOCAL_MAX else LOCAL_MIN

    def _follow_overflow(self, page: int, left: int, pieces: list[Piece], where: str) -> int:
        """Collect the pieces of a chain of overflow pages; return the count of bytes that are pointers."""
        pointer_bytes = 0
        while left:
            offset = self._take(page, where)
            self.overflow_pages += 1
            here = min(left, OVERFLOW_BYTES)
            pieces.append((offset + 4, offset + 4 + here))
            self._gap(offset + 4 + here, offset + PAGE_BYTES, page)
            left -= here
            pointer_bytes += 4
            page = self._u32(offset)
        if page:
            raise SqliteError(where, f"a chain of overflow pages goes on to page {page} behind its row's end")
        return pointer_bytes

    # ------------------------------------------------------------------------------------------ free list, section 1.5

    def read_free_list(self) -> None:
        """Account for trunk and leaf pages of the free list."""
        trunk, named = self._u32(32), self._u32(36)
        while trunk:
            offset = self._take(trunk, "free list")
            self.free_pages += 1
            count = self._u32(offset + 4)
            if count > PAGE_BYTES // 4 - 2:
                raise SqliteError("free list", f"trunk page {trunk} names {count} leaves")
            self.account.format_bytes += 8 + 4 * count
            tail_at = offset + 8 + 4 * count
            self._gap(tail_at, offset + PAGE_BYTES, trunk)
            # A trunk keeps the pointers to leaves that it has given back; anything else was never erased.
            strange = sum(self._u32(at) > self.page_count for at in range(tail_at, offset + PAGE_BYTES, 4))
            if strange:
                self.account.unerased_by_page[trunk] = 4 * strange
            for i in range(count):
                leaf = self._u32(offset + 8 + 4 * i)
                leaf_offset = self._take(leaf, "free list")
                self.free_pages += 1
                self._gap(leaf_offset, leaf_offset + PAGE_BYTES, leaf)
                if self.account.residue_by_page[leaf]:
                    self.account.unerased_by_page[leaf] = self.account.residue_by_page[leaf]
            trunk = self._u32(offset)
        if self.free_pages != named:
            raise SqliteError("free list", f"has {self.free_pages} pages, the header counts {named}")

    def finish(self) -> Account:
        """Account for the page set aside for locks and for pages that nothing refers to, and return the account."""
        for page in range(1, self.page_count + 1):
            offset = (page - 1) * PAGE_BYTES
            if page == self._lock_page:
                self._stale_or_unexplained(offset, offset + PAGE_BYTES, "the page set aside for locks")
            elif not self._taken[page]:
                self.account.unexplained.append(
                    ((offset, offset + PAGE_BYTES), f"page {page}, which nothing refers to")
                )
        return self.account


def _signed(number: int) -> int:
    """SQLite's integers are signed 64 bits; a varint holds them as unsigned."""
    return number - (1 << 64) if number >> 63 else number
