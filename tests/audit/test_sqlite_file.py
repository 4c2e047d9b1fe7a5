"""The parser of the SQLite file format: what SQLite wrote is read and accounted for, what is bent is refused."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import SqliteError
from audit.sqlite_file import PAGE_BYTES, SqliteFile
from audit.sqlite_records import decode_record, read_varint


def database(path: Path, *, rows: int = 200, seed: int = 1) -> bytes:
    """A file with interior pages, overflow chains, a free list, freeblocks and fragments."""
    rng = random.Random(seed)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        connection.execute("CREATE TABLE t (seq INTEGER PRIMARY KEY, a TEXT NOT NULL, b BLOB, c INTEGER) STRICT")
        connection.execute("CREATE TABLE u (seq INTEGER PRIMARY KEY, b BLOB NOT NULL) STRICT")
        connection.execute("BEGIN")
        for i in range(rows):
            number = rng.choice([0, 1, -1, 127, -128, 32767, 8388607, 2**31 - 1, 2**47 - 1, -(2**63), 2**63 - 1, None])
            size = rng.choice([0, 1, 50, 400, 3000, 4050, 4061, 4062, 9000, 20_000])
            connection.execute(
                "INSERT INTO t VALUES (?, ?, ?, ?)", (i * 7, "é" * (i % 90), rng.randbytes(size), number)
            )
            connection.execute("INSERT INTO u (b) VALUES (?)", (rng.randbytes(rng.randrange(90)),))
        for i in rng.sample(range(rows), rows // 2):
            connection.execute("DELETE FROM t WHERE seq = ?", (i * 7,))
            connection.execute("DELETE FROM u WHERE seq = ?", (i,))
        connection.execute("COMMIT")
    return path.read_bytes()


def account(data: bytes) -> tuple[list[tuple[object, ...]], int, SqliteFile]:
    """Read everything; return rows, the sum of all bytes accounted for, and the parser."""
    parser = SqliteFile(memoryview(data))
    rows: list[tuple[object, ...]] = []
    total = 0
    schema = SqliteFile(memoryview(data))
    total += sum(row.head_bytes + _size(row.pieces) for row in schema.rows(1, "sqlite_schema"))
    for entry in parser.schema():
        for row in parser.rows(entry.root, entry.name):
            rows.append((entry.name, row.rowid, *row.values[1:]))
            total += row.head_bytes + _size(row.pieces)
    parser.read_free_list()
    result = parser.finish()
    total += result.format_bytes + result.residue_bytes + result.unexplained_bytes
    return rows, total, parser


def _size(pieces: tuple[tuple[tuple[int, int], ...], ...]) -> int:
    return sum(end - start for places in pieces for start, end in places)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_those_that_sqlite_reads_and_every_byte_is_accounted_for(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "t.sqlite"
    data = database(path, seed=seed)
    rows, total, parser = account(data)
    with closing(sqlite3.connect(path)) as connection:
        expected = [("t", *row) for row in connection.execute("SELECT * FROM t ORDER BY seq")]
        expected += [("u", *row) for row in connection.execute("SELECT * FROM u ORDER BY seq")]
    assert rows == expected
    assert total == len(data)
    assert parser.account.unexplained_bytes == 0
    assert parser.free_pages > 0
    assert parser.overflow_pages > 0


def test_negative_rowids_are_read(tmp_path: Path) -> None:
    path = tmp_path / "n.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (seq INTEGER PRIMARY KEY, b BLOB NOT NULL) STRICT")
        connection.executemany("INSERT INTO t VALUES (?, x'00')", [(-5,), (-(2**63),), (7,)])
    rows, total, _ = account(path.read_bytes())
    assert [row[1] for row in rows] == [-(2**63), -5, 7]
    assert total == len(path.read_bytes())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return database(tmp_path_factory.mktemp("good") / "good.sqlite", rows=80)


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def page_of(data: bytes, kind: int, with_cells: int = 1) -> int:
    """The offset of the first page of a kind behind the first."""
    for at in range(PAGE_BYTES, len(data), PAGE_BYTES):
        if data[at] == kind and int.from_bytes(data[at + 3 : at + 5], "big") >= with_cells:
            return at
    raise AssertionError("no such page")


def first_cell(data: bytes, at: int) -> int:
    return at + int.from_bytes(data[at + (12 if data[at] == 5 else 8) :][:2], "big")


HEADER: dict[str, tuple[int, bytes, str]] = {
    "magic": (0, b"SQLite format 4\0", "is not that of an SQLite 3 file"),
    "page size": (16, u16(1024), "page size is 1024"),
    "write version": (18, b"\x03", "write version is 3"),
    "reserved bytes": (20, b"\x08", "reserved bytes a page is 8"),
    "fractions": (21, b"\x41", "payload fractions"),
    "schema format": (44, u32(1), "schema format is 1"),
    "auto-vacuum": (52, u32(3), "auto-vacuum"),
    "encoding": (56, u32(2), "text encoding is 2"),
    "incremental": (64, u32(1), "incremental vacuum is 1"),
    "size": (28, u32(5), "names 5 pages"),
    "free count": (36, u32(99), "the header counts 99"),
    "free trunk": (32, u32(0xFFFFFFFF), "is not among the"),
    "free trunk used": (32, u32(1), "page 1 is used twice"),
}


@pytest.mark.parametrize("name", HEADER)
def test_header_that_is_another(good: bytes, name: str) -> None:
    at, value, text = HEADER[name]
    with pytest.raises(SqliteError) as caught:
        account(put(good, at, value))
    assert text in str(caught.value)


def test_a_file_shorter_than_a_page() -> None:
    with pytest.raises(SqliteError, match="less than one page"):
        account(b"SQLite format 3\0")


def interior(data: bytes) -> int:
    return page_of(data, 5)


def leaf(data: bytes) -> int:
    return page_of(data, 13, 3)


BENDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a tree that points to its own root": (
        lambda it: put(it, interior(it) + 8, u32(interior(it) // PAGE_BYTES + 1)),
        "is used twice",
    ),
    "a child outside of the file": (lambda it: put(it, interior(it) + 8, u32(10**9)), "is not among the"),
    "a key that is below its rows": (
        lambda it: put(it, first_cell(it, interior(it)) + 4, b"\1"),
        "a key 1 of an interior page, below row",
    ),
    "page zero": (lambda it: put(it, interior(it) + 8, u32(0)), "page 0 is not among the"),
    "a page of an index": (lambda it: put(it, leaf(it), b"\x0a"), "type 10 is no page of a table"),
    "more cells than fit": (lambda it: put(it, leaf(it) + 3, u16(4000)), "do not fit"),
    "a content area behind the page": (lambda it: put(it, leaf(it) + 5, u16(4097)), "do not fit"),
    "a cell in the header": (lambda it: put(it, leaf(it) + 8, u16(3)), "outside of the content area"),
    "a cell twice": (
        lambda it: put(it, leaf(it) + 8, it[leaf(it) + 10 : leaf(it) + 12]),
        "overlap",
    ),
    "rows out of order": (
        lambda it: put(it, leaf(it) + 8, it[leaf(it) + 10 : leaf(it) + 12] + it[leaf(it) + 8 : leaf(it) + 10]),
        "after row",
    ),
    "a freeblock before the content": (lambda it: put(it, leaf(it) + 1, u16(20)), "a freeblock at 20"),
    "fragments that are none": (lambda it: put(it, leaf(it) + 7, b"\x3c"), "the page's header counts 60"),
    "a payload without end": (
        lambda it: put(it, first_cell(it, leaf(it)), b"\xff\xff\xff\xff\x7f"),
        "at most 16777216 are allowed",
    ),
    "a payload of nothing": (lambda it: put(it, first_cell(it, leaf(it)), b"\0"), "a row of 0 bytes"),
    "a number longer than needed": (
        lambda it: put(it, first_cell(it, leaf(it)), b"\x80\x01"),
        "a number in more bytes than it needs",
    ),
}


@pytest.mark.parametrize("name", BENDS)
def test_pages_that_are_bent(good: bytes, name: str) -> None:
    bend, text = BENDS[name]
    with pytest.raises(SqliteError) as caught:
        account(bend(good))
    assert text in str(caught.value)


def small(tmp_path: Path, *statements: str) -> bytes:
    path = tmp_path / "small.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
    return path.read_bytes()


def test_overflow_chain_that_goes_in_a_circle(tmp_path: Path) -> None:
    data = small(tmp_path, "CREATE TABLE t (b)", "INSERT INTO t VALUES (zeroblob(12000))")
    with pytest.raises(SqliteError, match="is used twice"):
        account(put(data, 2 * PAGE_BYTES, u32(3)))
    with pytest.raises(SqliteError, match="is not among the"):
        account(put(data, 2 * PAGE_BYTES, u32(0)))


def test_overflow_chain_that_goes_on(tmp_path: Path) -> None:
    data = small(tmp_path, "CREATE TABLE t (b)", "INSERT INTO t VALUES (zeroblob(5000))", "CREATE TABLE u (b)")
    with pytest.raises(SqliteError, match="goes on to page 4"):
        account(put(data, 2 * PAGE_BYTES, u32(4)))


def test_bytes_behind_the_end_of_an_overflow_chain_are_residue(tmp_path: Path) -> None:
    data = small(tmp_path, "CREATE TABLE t (b)", "INSERT INTO t VALUES (zeroblob(4085))")
    _, total, parser = account(put(data, len(data) - 8, b"leftover"))
    assert total == len(data)
    assert parser.account.residue_bytes == 8


def test_overlapping_and_stray_bytes(tmp_path: Path) -> None:
    data = small(tmp_path, "CREATE TABLE t (b)", "INSERT INTO t VALUES (x'0102030405060708'), (x'0a0b0c')")
    at = PAGE_BYTES
    first, second = first_cell(data, at), at + int.from_bytes(data[at + 10 : at + 12], "big")
    assert second < first
    with pytest.raises(SqliteError, match="overlap"):
        account(put(put(data, second, b"\x09"), second + 3, b"\x1a"))
    with pytest.raises(SqliteError, match="that belong to nothing"):
        account(put(data, at + 5, u16(second - at - 10)))


def test_freeblocks_that_lie(tmp_path: Path) -> None:
    data = small(
        tmp_path,
        "CREATE TABLE t (b)",
        "INSERT INTO t VALUES (zeroblob(50)), (zeroblob(60)), (zeroblob(70))",
        "PRAGMA secure_delete = ON",
        "DELETE FROM t WHERE rowid = 2",
    )
    at = PAGE_BYTES + int.from_bytes(data[PAGE_BYTES + 1 : PAGE_BYTES + 3], "big")
    assert at > PAGE_BYTES
    with pytest.raises(SqliteError, match="a freeblock of 3 bytes"):
        account(put(data, at + 2, u16(3)))
    with pytest.raises(SqliteError, match="a freeblock of 5000 bytes"):
        account(put(data, at + 2, u16(5000)))
    with pytest.raises(SqliteError, match="a freeblock at"):
        account(put(data, at, u16(at - PAGE_BYTES)))
    # What is there before is the pointer to the cell that was last, which SQLite leaves behind the array.
    before = account(data)[2].account.residue_by_page[2]
    _, total, parser = account(put(data, at + 10, b"stale"))
    assert total == len(data)
    assert parser.account.residue_by_page[2] == before + 5


def test_free_list_that_lies(tmp_path: Path) -> None:
    data = small(
        tmp_path,
        "PRAGMA secure_delete = ON",
        "CREATE TABLE t (b)",
        "INSERT INTO t VALUES (zeroblob(30000))",
        "DELETE FROM t",
    )
    trunk = (int.from_bytes(data[32:36], "big") - 1) * PAGE_BYTES
    with pytest.raises(SqliteError, match="names 2000 leaves"):
        account(put(data, trunk + 4, u32(2000)))
    with pytest.raises(SqliteError, match="is used twice"):
        account(put(data, trunk + 8, u32(1)))
    with pytest.raises(SqliteError, match="is used twice"):
        account(put(data, trunk, u32(trunk // PAGE_BYTES + 1)))
    _, total, parser = account(put(put(data, trunk + 2000, u32(3)), trunk + 3000, b"mail"))
    assert total == len(data)
    assert parser.account.unerased_by_page == {trunk // PAGE_BYTES + 1: 4}
    assert parser.account.residue_bytes == 5


def test_tree_deeper_than_sqlite_allows() -> None:
    """Twenty-two pages, each the only child of the one before."""
    header = bytearray(100)
    header[:16] = b"SQLite format 3\0"
    header[16:24] = bytes((16, 0, 1, 1, 0, 64, 32, 32))
    header[47], header[59] = 4, 1
    pages = []
    for number in range(1, 24):
        at = 100 if number == 1 else 0
        page = bytearray(PAGE_BYTES)
        page[:at] = header[:at]
        page[at : at + 12] = bytes((5, 0, 0, 0, 0, 16, 0, 0)) + u32(number + 1)
        pages.append(bytes(page))
    header_says_otherwise = put(b"".join(pages), 24, u32(1))
    with pytest.raises(SqliteError, match="deeper than 20"):
        account(header_says_otherwise)


def test_lock_byte_page_is_never_used_and_accounted_for(tmp_path: Path) -> None:
    data = small(tmp_path, "CREATE TABLE t (b)", "INSERT INTO t VALUES (1)")
    parser = SqliteFile(memoryview(data), lock_byte_offset=PAGE_BYTES)
    with pytest.raises(SqliteError, match="page 2 is set aside for locks"):
        list(parser.rows(2, "t"))
    parser = SqliteFile(memoryview(data), lock_byte_offset=PAGE_BYTES)
    list(parser.schema())
    parser.finish()
    assert "set aside for locks" in parser.account.unexplained[0][1]
    blank = data[:PAGE_BYTES] + bytes(PAGE_BYTES)
    parser = SqliteFile(memoryview(blank), lock_byte_offset=PAGE_BYTES)
    before = parser.account.format_bytes
    list(parser.schema())
    assert parser.finish().unexplained == []
    assert parser.account.format_bytes >= before + PAGE_BYTES


@given(st.integers(0, 2**64 - 1))
def test_varints_in_their_shortest_form_are_read(value: int) -> None:
    if value < 2**56:
        groups = [value & 0x7F]
        while value >> (7 * len(groups)):
            groups.append(value >> (7 * len(groups)) & 0x7F | 0x80)
        encoded = bytes(reversed(groups))
    else:
        high = value >> 8
        encoded = bytes(high >> 7 * i & 0x7F | 0x80 for i in reversed(range(8))) + bytes((value & 0xFF,))
    assert read_varint(memoryview(encoded), 0, len(encoded), "x") == (value, len(encoded))
    with pytest.raises(SqliteError, match="runs over its end"):
        read_varint(memoryview(encoded), 0, len(encoded) - 1, "x")


@pytest.mark.parametrize("encoded", [b"\x80\x00", b"\x80\x7f", b"\x80" * 8 + b"\x7f"])
def test_varints_longer_than_needed_are_refused(encoded: bytes) -> None:
    with pytest.raises(SqliteError, match="more bytes than it needs"):
        read_varint(memoryview(encoded), 0, len(encoded), "x")


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"\x02\x01\x00", "more bytes than it needs"),
        (b"\x02\x02\x00\x05", "more bytes than it needs"),
        (b"\x02\x07" + bytes(8), "a column of serial type 7"),
        (b"\x02\x0a", "a column of serial type 10"),
        (b"\x02\x0f\xff", "no UTF-8"),
        (b"\x02\x10\xff", "longer than its row"),
        (b"\x02\x08\x00", "1 bytes behind the last column"),
        (b"\x09\x08", "a record header of 9 bytes"),
        (b"\x00", "a record header of 0 bytes"),
        (b"\x42" + b"\x00" * 65, "more than 64 columns"),
    ],
)
def test_records_that_are_bent(record: bytes, text: str) -> None:
    with pytest.raises(SqliteError) as caught:
        decode_record(record, [(0, len(record))], "x")
    assert text in str(caught.value)


def test_schema_rows_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "bent.sqlite"
    small_data = small(tmp_path, "CREATE TABLE t (b)")
    at = small_data.index(b"tablett")
    # The type of the first column becomes a blob of the same size.
    header = at - 6
    assert small_data[header : header + 2] == b"\x06\x17"
    path.write_bytes(put(small_data, header + 1, b"\x16"))
    with pytest.raises(SqliteError, match="no text"):
        SqliteFile(memoryview(path.read_bytes())).schema()
