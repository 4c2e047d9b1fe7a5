"""Varints and records of the SQLite file format (https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1).

SQLite writes each number in its shortest form. A longer form reads as the same value, so it could carry a message that
no query shows; it is refused here, as are serial types that are set aside, floating-point numbers (the schema has
none), text that is no UTF-8, and bytes behind the last column.
"""

from __future__ import annotations

from typing import TypeAlias

from audit.errors import SqliteError
from audit.rows import Piece

Value: TypeAlias = int | str | bytes | None

_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
COLUMNS_MAX = 64


def read_varint(data: bytes | memoryview, at: int, end: int, where: str) -> tuple[int, int]:
    """Read a varint of 1 to 9 bytes that begins at `at` and ends before `end`; return it and its end."""
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for i in range(9):
        if at + i >= end:
            raise SqliteError(where, "a number that runs over its end")
        byte = data[at + i]
        if i == 8:
            value = (value << 8) | byte
            if not value >> 56:
                raise SqliteError(where, "a number in more bytes than it needs")
            return value, at + 9
        value = (value << 7) | (byte & 0x7F)
        if not byte & 0x80:
            if i and not value >> (7 * i):
                raise SqliteError(where, "a number in more bytes than it needs")
            return value, at + i + 1
    raise AssertionError("a varint ends at its ninth byte")


def cut(pieces: list[Piece], start: int, end: int) -> tuple[Piece, ...]:
    """Return the parts of the file that hold the payload's bytes from `start` to `end`."""
    cut = []
    position = 0
    for piece_start, piece_end in pieces:
        length = piece_end - piece_start
        low, high = max(start, position), min(end, position + length)
        if low < high:
            cut.append((piece_start + low - position, piece_start + high - position))
        position += length
        if position >= end:
            break
    return tuple(cut)


def read_types(payload: bytes, local_bytes: int, where: str) -> tuple[list[int], int]:
    """The serial types of a record, and the size of its header.

    Args:
        payload: the record.
        local_bytes: how much of it lies on the leaf page. The schema's records have at most ten columns, so the whole
            header does.
        where: for the error.
    """
    header_bytes, at = read_varint(payload, 0, local_bytes, where)
    if header_bytes > local_bytes or header_bytes < at:
        raise SqliteError(where, f"a record header of {header_bytes} bytes")
    types = []
    while at < header_bytes:
        serial_type, at = read_varint(payload, at, header_bytes, where)
        types.append(serial_type)
        if len(types) > COLUMNS_MAX:
            raise SqliteError(where, f"a record of more than {COLUMNS_MAX} columns")
    return types, header_bytes


def decode_record(
    payload: bytes, pieces: list[Piece], where: str
) -> tuple[tuple[Value, ...], tuple[tuple[Piece, ...], ...], int]:
    """Decode a record; return its values, the pieces of the file in which each lies, and the bytes of its header."""
    types, header_bytes = read_types(payload, pieces[0][1] - pieces[0][0], where)
    values: list[Value] = []
    places: list[tuple[Piece, ...]] = []
    position = header_bytes
    for serial_type in types:
        length = length_of(serial_type, where)
        if position + length > len(payload):
            raise SqliteError(where, "a record that is longer than its row")
        values.append(value_of(serial_type, payload[position : position + length], where))
        places.append(cut(pieces, position, position + length))
        position += length
    if position != len(payload):
        raise SqliteError(where, f"{len(payload) - position} bytes behind the last column of a record")
    return tuple(values), tuple(places), header_bytes


def length_of(serial_type: int, where: str) -> int:
    """How many bytes a value of a serial type takes."""
    if serial_type >= 12:
        return (serial_type - 12) // 2
    if serial_type in {0, 8, 9}:
        return 0
    if serial_type in _INTEGER_BYTES:
        return _INTEGER_BYTES[serial_type]
    raise SqliteError(where, f"a column of serial type {serial_type}")


def value_of(serial_type: int, raw: bytes, where: str) -> Value:
    """The value that some bytes are, in the one form in which SQLite writes it."""
    if serial_type == 0:
        return None
    if serial_type in {8, 9}:
        return serial_type - 8
    if serial_type in _INTEGER_BYTES:
        number = int.from_bytes(raw, "big", signed=True)
        if shortest_type(number) != serial_type:
            raise SqliteError(where, "an integer in more bytes than it needs")
        return number
    if serial_type % 2:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise SqliteError(where, "a text that is no UTF-8") from None
    return raw


def shortest_type(number: int) -> int:
    """The serial type that SQLite itself chooses (sqlite3VdbeSerialType); 0 and 1 have types of their own."""
    if number in {0, 1}:
        return 8 + number
    magnitude = ~number if number < 0 else number
    for serial_type, bits in ((1, 7), (2, 15), (3, 23), (4, 31), (5, 47)):
        if not magnitude >> bits:
            return serial_type
    return 6
