"""Disclosures that somebody made to break, mislead or keep busy whoever reads them.

Each bends the files of an honest disclosure. Most are signed again by the relay, which is the one who cheats here: a
broken signature would end the matter before the deep checks are reached. None may be found blind, crash the verifier,
keep it busy, or make it write, connect or show what drives a terminal or a browser.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from tests.audit.honest import HonestRelay, pack, sha256

STORE, LOG, CONFIG, MANIFEST = "store/store.sqlite", "log/relay.log", "config/relay.toml", "manifest.msgpack"
RANGES, MAPS, IMAGE = "memory/ranges.msgpack", "memory/maps.txt", "memory/image.bin"
CARD = "config/relay-card.toml"
PAGE = 4096
ESCAPES = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>"
"""Clears a terminal, renames its window, and would run in a page."""


@dataclass(frozen=True)
class Hostile:
    """One of them.

    Attributes:
        name: what it is.
        bend: changes the files.
        signed: whether the relay signs them again.
        said: a part of what the report must say of it.
    """

    name: str
    bend: Callable[[Path, HonestRelay], None]
    said: str
    signed: bool = True


CORPUS: list[Hostile] = []


def hostile(name: str, said: str, *, signed: bool = True) -> Callable[[Callable[[Path, HonestRelay], None]], Any]:
    """Put a bend into the corpus."""

    def add(bend: Callable[[Path, HonestRelay], None]) -> Callable[[Path, HonestRelay], None]:
        CORPUS.append(Hostile(name, bend, said, signed))
        return bend

    return add


def disclosed(directory: Path, relay: HonestRelay, one: Hostile) -> Path:
    """Make one."""
    folder = relay.disclose(directory / "disclosure")
    one.bend(folder, relay)
    if one.signed:
        relay.sign_manifest(folder)
    return folder


# -------------------------------------------------------------------------------------------------------- directories


@hostile("a symbolic link out of the directory", "is a symbolic link", signed=False)
def _link_out(folder: Path, _: HonestRelay) -> None:
    (folder / LOG).unlink()
    (folder / LOG).symlink_to("/etc/passwd")


@hostile("a symbolic link in place of a folder", "is a symbolic link", signed=False)
def _link_folder(folder: Path, _: HonestRelay) -> None:
    (folder / "more").symlink_to("/etc", target_is_directory=True)


@hostile("a pipe that nobody writes to", "no regular file", signed=False)
def _pipe(folder: Path, _: HonestRelay) -> None:
    (folder / STORE).unlink()
    os.mkfifo(folder / STORE)


@hostile("a socket", "no regular file", signed=False)
def _socket(folder: Path, _: HonestRelay) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "s"))


@hostile("a device that never ends", "no regular file", signed=False)
def _device(folder: Path, _: HonestRelay) -> None:
    try:
        os.mknod(folder / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        # Only root makes devices; a pipe that is none of the named files stands for it.
        os.mkfifo(folder / "zero")


@hostile("a hard link to a file of somebody else", "is no file that a disclosure may have", signed=False)
def _hard_link(folder: Path, relay: HonestRelay) -> None:
    (folder.parent / "elsewhere").write_bytes(relay.card)
    os.link(folder.parent / "elsewhere", folder / "link")


@hostile("a name that drives a terminal", "is no file that a disclosure may have", signed=False)
def _name(folder: Path, _: HonestRelay) -> None:
    (folder / ESCAPES.replace("/", "")).write_bytes(b"")


@hostile("a name that is no UTF-8", "is no file that a disclosure may have", signed=False)
def _bytes_name(folder: Path, _: HonestRelay) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe"))).write_bytes(b"")


@hostile("a directory in place of a file", "the manifest names it, and it is not here", signed=False)
def _directory(folder: Path, _: HonestRelay) -> None:
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()


@hostile("a sparse store of 100 gigabytes", "at most 68,719,476,736 are read", signed=False)
def _sparse(folder: Path, _: HonestRelay) -> None:
    os.truncate(folder / STORE, 100 * 10**9)


@hostile("a sparse configuration of 10 gigabytes", "at most 33,554,432 are read", signed=False)
def _sparse_config(folder: Path, _: HonestRelay) -> None:
    os.truncate(folder / CONFIG, 10 * 10**9)


# ------------------------------------------------------------------------------------------------------------ manifest


def _remade(change: Callable[[list[Any]], None]) -> Callable[[Path, HonestRelay], None]:
    """A manifest whose fields are changed, signed by the relay."""

    def bend(folder: Path, relay: HonestRelay) -> None:
        outer = msgpack.unpackb((folder / MANIFEST).read_bytes())
        fields = msgpack.unpackb(outer[0])
        change(fields)
        signed = pack(fields)
        (folder / MANIFEST).write_bytes(
            pack([signed, relay.signing_key.public, relay.signing_key.sign("disclosure", signed)])
        )

    return bend


def _add_file(path: str) -> Callable[[list[Any]], None]:
    def change(fields: list[Any]) -> None:
        fields[3] = sorted([*fields[3], [path, 4, sha256(b"evil")]])

    return change


def _set(position: int, value: Any) -> Callable[[list[Any]], None]:
    def change(fields: list[Any]) -> None:
        fields[position] = value

    return change


for _path in ("../../../etc/passwd", "/etc/passwd", "store/../../x", ".", "a//b", "C:\\x", "\0", "x" * 1024):
    CORPUS.append(
        Hostile(
            f"a path that leads elsewhere: {_path[:20]!r}",
            _remade(_add_file(_path)),
            "the manifest names it, and it is not here"
            if _path.startswith("x")
            else "names a path that leads elsewhere",
            signed=False,
        )
    )
CORPUS += [
    Hostile("a manifest that names a file twice", _remade(lambda it: it[3].append(it[3][-1])), "named twice", False),
    Hostile("an order that drives a terminal", _remade(_set(1, ESCAPES)), "must be 'wholesale'", False),
    Hostile("a time beyond all calendars", _remade(_set(2, 2**41)), "taken_at: must be", False),
    Hostile("wrong types", _remade(_set(4, ["x", 7])), "must be", False),
    Hostile("a count of rotations beyond all bounds", _remade(_set(7, [b""] * 10_001)), "at most 256", False),
    Hostile(
        "modules whose names are markup", _remade(lambda it: it[6][2].append([ESCAPES + "vault", bytes(32)])), "", False
    ),
]


@hostile("a manifest nested without end", "no MessagePack", signed=False)
def _nested(folder: Path, _: HonestRelay) -> None:
    (folder / MANIFEST).write_bytes(b"\x91" * 200_000)


@hostile("an array that says it has 4 billion items", "no MessagePack", signed=False)
def _huge_count(folder: Path, _: HonestRelay) -> None:
    (folder / MANIFEST).write_bytes(b"\xdd\xff\xff\xff\xff" + b"\x01")


@hostile("a string that says it has 4 gigabytes", "no MessagePack", signed=False)
def _huge_string(folder: Path, _: HonestRelay) -> None:
    (folder / MANIFEST).write_bytes(b"\xc6\xff\xff\xff\xff" + b"\x01")


@hostile("a map with duplicate keys", "holds a map", signed=False)
def _duplicate(folder: Path, _: HonestRelay) -> None:
    (folder / MANIFEST).write_bytes(b"\x82\xa1a\x01\xa1a\x02")


# --------------------------------------------------------------------------------------------- log and configuration


@hostile("a log of one endless line", "is no event of the protocol")
def _endless(folder: Path, _: HonestRelay) -> None:
    with (folder / LOG).open("ab") as file:
        file.write(b"x" * 200_000)


@hostile("a log line that drives a terminal", "is no event of the protocol")
def _log_escapes(folder: Path, _: HonestRelay) -> None:
    with (folder / LOG).open("ab") as file:
        file.write(ESCAPES.encode() + b"\n")


@hostile("a log of zeros", "is no event of the protocol")
def _log_zeros(folder: Path, _: HonestRelay) -> None:
    (folder / LOG).write_bytes(bytes(300_000))


@hostile("a log with other ends of lines", "line feed")
def _log_returns(folder: Path, _: HonestRelay) -> None:
    (folder / LOG).write_bytes((folder / LOG).read_bytes().replace(b"\n", b"\r"))


@hostile("a zlib bomb in the log", "is no event of the protocol")
def _bomb(folder: Path, _: HonestRelay) -> None:
    with (folder / LOG).open("ab") as file:
        file.write(zlib.compress(bytes(30_000_000), 9) + b"\n")


@hostile("a log of 30,000 stream headers", "is no event of the protocol")
def _headers(folder: Path, _: HonestRelay) -> None:
    with (folder / LOG).open("ab") as file:
        file.write(b"\x78\x9c" * 30_000 + b"\n")


@hostile("a log of base64", "is no event of the protocol")
def _base64(folder: Path, _: HonestRelay) -> None:
    with (folder / LOG).open("ab") as file:
        file.write(b"QUJD" * 5_000 + b"\n")


@hostile("a configuration nested without end", "is no TOML")
def _toml(folder: Path, _: HonestRelay) -> None:
    (folder / CONFIG).write_bytes(b"a = " + b"[" * 100_000)


@hostile("a configuration with a key twice", "is no TOML")
def _toml_twice(folder: Path, _: HonestRelay) -> None:
    (folder / CONFIG).write_bytes(b"partition = 0\npartition = 0\n")


@hostile("a configuration that is no UTF-8", "is no TOML")
def _toml_bytes(folder: Path, _: HonestRelay) -> None:
    (folder / CONFIG).write_bytes(b"\xff\xfe\x00")


@hostile("a number of 100,000 digits", "is no TOML")
def _digits(folder: Path, _: HonestRelay) -> None:
    (folder / CONFIG).write_bytes(b"partition = " + b"9" * 100_000)


@hostile("a card that is none", "is no TOML")
def _card(folder: Path, _: HonestRelay) -> None:
    (folder / CARD).write_bytes(b"\x00" * 100)


# -------------------------------------------------------------------------------------------------------------- memory


@hostile("ranges nested without end", "")
def _ranges(folder: Path, _: HonestRelay) -> None:
    (folder / RANGES).write_bytes(b"\x91" * 100_000)


@hostile("a range that runs over all addresses", "runs over the end of all addresses")
def _addresses(folder: Path, _: HonestRelay) -> None:
    (folder / RANGES).write_bytes(pack([4711, [[2**64 - 1, 2, 0, 1, ""]]]))


@hostile("maps of markup", "is no line of a table of mappings")
def _maps(folder: Path, _: HonestRelay) -> None:
    (folder / MAPS).write_bytes(ESCAPES.encode() * 1000)


@hostile("an image that is shorter than its table", "the table of ranges says")
def _short_image(folder: Path, _: HonestRelay) -> None:
    os.truncate(folder / IMAGE, 100)


# --------------------------------------------------------------------------------------------------------------- store


def _bytes_of_store(change: Callable[[bytearray], None]) -> Callable[[Path, HonestRelay], None]:
    def bend(folder: Path, _: HonestRelay) -> None:
        data = bytearray((folder / STORE).read_bytes())
        change(data)
        (folder / STORE).write_bytes(data)

    return bend


def _root(data: bytearray, table: str) -> int:
    """Offset of the root page of a table, as SQLite itself says."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(bytes(data[:18]) + b"\1\1" + bytes(data[20:]))
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return (int(page) - 1) * PAGE


def _interior_to_itself(data: bytearray) -> None:
    at = _root(data, "envelopes")
    data[at : at + 12] = struct.pack(">BHHHBI", 5, 0, 0, PAGE, 0, at // PAGE + 1)


def _interior_in_a_ring(data: bytearray) -> None:
    one, other = _root(data, "envelopes"), _root(data, "commits")
    for at, child in ((one, other), (other, one)):
        data[at : at + 12] = struct.pack(">BHHHBI", 5, 0, 0, PAGE, 0, child // PAGE + 1)


def _overflow_to_itself(data: bytearray) -> None:
    """Every page that is no b-tree page points to itself: chains of overflow pages among them."""
    for at in range(PAGE, len(data), PAGE):
        if data[at] not in {5, 13, 2, 10}:
            data[at : at + 4] = struct.pack(">I", at // PAGE + 1)


def _free_list_to_itself(data: bytearray) -> None:
    data.extend(struct.pack(">II", len(data) // PAGE + 1, 0).ljust(PAGE, b"\0"))
    page = len(data) // PAGE
    data[28:32] = struct.pack(">I", page)
    data[32:40] = struct.pack(">II", page, 2**32 - 1)


def _free_list_of_all(data: bytearray) -> None:
    data.extend(struct.pack(">II", 0, 2**32 - 1).ljust(PAGE, b"\xff"))
    page = len(data) // PAGE
    data[28:32] = struct.pack(">I", page)
    data[32:40] = struct.pack(">II", page, 1)


def _cells(value: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        at = _root(data, "envelopes")
        data[at + 8 : at + 10] = struct.pack(">H", value)

    return change


def _first_cell(content: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        at = _root(data, "envelopes")
        cell = at + int.from_bytes(data[at + 8 : at + 10], "big")
        data[cell : cell + len(content)] = content

    return change


def _header(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


for _name, _change in (
    ("a b-tree that is its own child", _interior_to_itself),
    ("two b-trees that are each other's child", _interior_in_a_ring),
    ("overflow chains that end in themselves", _overflow_to_itself),
    ("a free list that ends in itself", _free_list_to_itself),
    ("a free list trunk with 4 billion leaves", _free_list_of_all),
    ("a cell pointer into the page's header", _cells(2)),
    ("a cell pointer behind the page", _cells(65_535)),
    ("a row of 2^63 bytes", _first_cell(b"\xff" * 9)),
    ("a row of 1 gigabyte", _first_cell(b"\x84\x80\x80\x80\x00")),
    ("a varint longer than it must be", _first_cell(b"\x80" * 8 + b"\x01")),
    ("pages of 512 bytes", _header(16, b"\x02\x00")),
    ("pages of 65,536 bytes", _header(16, b"\x00\x01")),
    ("pages of no size", _header(16, b"\x00\x00")),
    ("reserved bytes on each page", _header(20, b"\xff")),
    ("UTF-16", _header(56, b"\x00\x00\x00\x02")),
    ("auto-vacuum", _header(52, b"\x00\x00\x00\x05")),
    ("another size in the header", _header(28, b"\x7f\xff\xff\xff")),
    ("a store of zeros", lambda data: data.__setitem__(slice(0, len(data)), bytes(len(data)))),
    ("half a page at the end", lambda data: data.extend(b"\xaa" * 2000)),
    ("a megabyte that nothing refers to", lambda data: data.extend(bytes(1 << 20))),
    ("a store of ten bytes", lambda data: data.__delitem__(slice(10, None))),
    ("an empty store", bytearray.clear),
):
    CORPUS.append(Hostile(_name, _bytes_of_store(_change), ""))


def _sql(*statements: str) -> Callable[[Path, HonestRelay], None]:
    def bend(folder: Path, _: HonestRelay) -> None:
        with closing(sqlite3.connect(folder / STORE, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            for statement in statements:
                connection.execute(statement).fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for tail in ("-wal", "-shm"):
            Path(f"{folder / STORE}{tail}").unlink(missing_ok=True)

    return bend


CORPUS += [
    Hostile("a table of a million names", _sql(*(f"CREATE TABLE t{i} (a)" for i in range(300))), "sqlite_schema"),
    Hostile("a column that drives a terminal", _sql(f"UPDATE mailboxes SET account = '{ESCAPES}'"), ""),
    Hostile("a domain of markup", _sql(f"UPDATE tenants SET domain = '{ESCAPES}'"), "its domain is none"),
    Hostile("a view", _sql("CREATE VIEW v AS SELECT body FROM envelopes"), "'view' named"),
    Hostile("a trigger", _sql("CREATE TRIGGER g AFTER INSERT ON relay BEGIN SELECT 1; END"), "'trigger' named"),
    Hostile("a table whose name is markup", _sql(f'CREATE TABLE "{ESCAPES}" (a)'), "a table named"),
    Hostile(
        "a body of 400 kilobytes", _sql("UPDATE envelopes SET body = zeroblob(400000) WHERE seq = 1"), "400000 bytes"
    ),
    Hostile("a number of 63 bits", _sql("UPDATE envelopes SET number = 9223372036854775807"), "have given"),
    Hostile("a leaf of 63 bits", _sql("UPDATE envelopes SET leaf = 9223372036854775807"), "swapped"),
    Hostile("a negative rowid", _sql("UPDATE envelopes SET seq = -9223372036854775808 WHERE seq = 1"), ""),
    Hostile(
        "all rows gone",
        _sql(*(f"DELETE FROM {it}" for it in ("envelopes", "commits", "mailboxes", "lists", "relay"))),
        "",
    ),
    Hostile("text that is no UTF-8", _sql("UPDATE mailboxes SET account = CAST(x'fffefd' AS TEXT)"), "no UTF-8"),
    Hostile("other integers in the schema", _sql("UPDATE sqlite_schema SET rootpage = 4000000000"), ""),
    Hostile("leaves of a megabyte", _sql("UPDATE commits SET leaves = zeroblob(1000000)"), "bytes of leaves"),
]
