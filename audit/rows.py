"""Rows of the store, kept by column: an envelope takes some 250 bytes, where objects of its own would take 1,000.

Integers and values of a fixed size lie in arrays, one after the other. Values whose size may differ (device lists,
prekeys, leaves, bodies) are not kept at all: only where they lie in the file, from which they are read again when they
are asked for. A row is made when somebody looks at it, and is gone when he looks away.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from audit.crypto import COMMITMENT, NONCE
from audit.equal_values import as_values, distinct, words_of
from audit.schema import Column

Piece: TypeAlias = tuple[int, int]
"""Start and end of bytes in the file."""
Words: TypeAlias = NDArray[np.int64]
BODY_HEAD_BYTES: Final = 72
SHORT_BYTES_MAX: Final = 32
"""Values of up to this size are kept, longer ones of varying size are read again."""


class Bytes(Protocol):
    """A file's bytes: a view of the file itself, or of memory."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes | memoryview: ...


def join(data: Bytes, pieces: Sequence[Piece]) -> bytes:
    """The bytes of some pieces of the file, one after the other."""
    if len(pieces) == 1:
        return bytes(data[pieces[0][0] : pieces[0][1]])
    return b"".join(data[start:end] for start, end in pieces)


class PieceLists:
    """For each row the pieces of the file in which a value lies."""

    def __init__(self) -> None:
        self._ends = array("q")
        self._bounds = array("q")

    def append(self, pieces: Sequence[Piece]) -> None:
        """Add the pieces of the next row."""
        for piece in pieces:
            self._bounds.extend(piece)
        self._ends.append(len(self._bounds))

    def __getitem__(self, position: int) -> tuple[Piece, ...]:
        start = self._ends[position - 1] if position else 0
        bounds = self._bounds[start : self._ends[position]]
        return tuple(zip(bounds[::2], bounds[1::2], strict=True))

    def bounds(self) -> Words:
        """Start and end of each piece, in order of the file."""
        bounds: Words = np.frombuffer(self._bounds, dtype=np.int64).reshape(-1, 2)
        return bounds[np.argsort(bounds[:, 0], kind="stable")]


class _FixedColumn:
    """Values of one size, one after the other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values = bytearray()

    def append(self, value: bytes) -> None:
        self._values += value

    def __getitem__(self, position: int) -> bytes:
        return bytes(self._values[position * self.size : (position + 1) * self.size])

    def array(self) -> NDArray[np.void]:
        return np.frombuffer(self._values, dtype=np.dtype((np.void, self.size)))


class _ShortColumn:
    """Values of up to `SHORT_BYTES_MAX` bytes, each behind its length."""

    def __init__(self, size: int) -> None:
        self._fixed = _FixedColumn(size + 1)

    def append(self, value: bytes) -> None:
        self._fixed.append((bytes((len(value),)) + value).ljust(self._fixed.size, b"\0"))

    def __getitem__(self, position: int) -> bytes:
        slot = self._fixed[position]
        return slot[1 : 1 + slot[0]]

    def array(self) -> NDArray[np.void]:
        return self._fixed.array()


class StoredRow:
    """A row of any table but `envelopes`, by column name; reads what it is asked for."""

    __slots__ = ("_position", "_rows", "seq")

    def __init__(self, rows: StoredRows, position: int, seq: int) -> None:
        self._rows = rows
        self._position = position
        self.seq = seq

    @property
    def values(self) -> dict[str, int | str | bytes]:
        """All columns."""
        return {name: self._rows.value(self._position, name) for name in self._rows.names}

    def integer(self, column: str) -> int:
        """The value of an INTEGER column."""
        value = self._rows.value(self._position, column)
        assert isinstance(value, int)
        return value

    def blob(self, column: str) -> bytes:
        """The value of a BLOB column."""
        value = self._rows.value(self._position, column)
        assert isinstance(value, bytes)
        return value

    def text(self, column: str) -> str:
        """The value of a TEXT column."""
        value = self._rows.value(self._position, column)
        assert isinstance(value, str)
        return value


class StoredRows(Sequence[StoredRow]):
    """The rows of a table, by column."""

    def __init__(self, data: Bytes, columns: tuple[Column, ...]) -> None:
        self._data = data
        self._seqs = array("q")
        self._kinds = {column.name: column.kind for column in columns}
        self.names = tuple(self._kinds)
        self._integers = {column.name: array("q") for column in columns if column.kind == "INTEGER"}
        self._kept: dict[str, _FixedColumn | _ShortColumn] = {}
        self._read_again: dict[str, PieceLists] = {}
        self._hashes: dict[str, array[int]] = {}
        for column in columns:
            if column.kind == "INTEGER":
                continue
            if self.reads_again(column):
                self._read_again[column.name], self._hashes[column.name] = PieceLists(), array("q")
            elif column.bytes_min == column.bytes_max:
                self._kept[column.name] = _FixedColumn(column.bytes_max)
            else:
                self._kept[column.name] = _ShortColumn(column.bytes_max)

    @staticmethod
    def reads_again(column: Column) -> bool:
        """Whether values of a column are not kept, but read from the file again."""
        return column.kind != "INTEGER" and column.bytes_max > SHORT_BYTES_MAX and column.bytes_min != column.bytes_max

    @staticmethod
    def row_bytes(columns: tuple[Column, ...]) -> int:
        """How much memory a row takes."""
        kept = [column for column in columns if column.kind != "INTEGER" and not StoredRows.reads_again(column)]
        return (
            9 * (1 + len(columns))
            + 9 * sum(column.bytes_max + 1 for column in kept) // 8
            + 24 * (len(columns) - len(kept))
        )

    def append(self, seq: int, values: Sequence[int | bytes], places: Sequence[Sequence[Piece]] | None) -> None:
        """Add a row; its values fit their columns, texts as UTF-8.

        Args:
            seq: the rowid.
            values: one for each column.
            places: where each lies in the file; None for a table of which nothing is read again.
        """
        self._seqs.append(seq)
        for position, (name, value) in enumerate(zip(self.names, values, strict=True)):
            if isinstance(value, int):
                self._integers[name].append(value)
            elif name in self._kept:
                self._kept[name].append(value)
            else:
                assert places is not None
                self._read_again[name].append(places[position])
                self._hashes[name].append(hash(value))

    def __len__(self) -> int:
        return len(self._seqs)

    @overload
    def __getitem__(self, key: int) -> StoredRow: ...
    @overload
    def __getitem__(self, key: slice) -> list[StoredRow]: ...
    def __getitem__(self, key: int | slice) -> StoredRow | list[StoredRow]:
        if isinstance(key, slice):
            return [self[position] for position in range(*key.indices(len(self)))]
        position = range(len(self))[key]
        return StoredRow(self, position, self._seqs[position])

    def __iter__(self) -> Iterator[StoredRow]:
        for position, seq in enumerate(self._seqs):
            yield StoredRow(self, position, seq)

    def value(self, position: int, column: str) -> int | str | bytes:
        """One value."""
        if column in self._integers:
            return self._integers[column][position]
        kept = self._kept.get(column)
        raw = kept[position] if kept is not None else join(self._data, self._read_again[column][position])
        return raw.decode() if self._kinds[column] == "TEXT" else raw

    def seqs(self) -> Words:
        """The rowids."""
        return np.frombuffer(self._seqs, dtype=np.int64)

    def integers(self, column: str) -> Words:
        """An INTEGER column."""
        return np.frombuffer(self._integers[column], dtype=np.int64)

    def blobs(self, column: str) -> NDArray[np.void]:
        """A column of values of one size."""
        return self._kept[column].array()

    def different(self, column: str) -> int:
        """How many different values a column has; longer ones are compared by a hash of 64 bits."""
        if column in self._integers:
            return len(np.unique(self.integers(column)))
        if column in self._kept:
            return distinct(self._kept[column].array())
        return len(np.unique(np.frombuffer(self._hashes[column], dtype=np.int64)))


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
        return self.body_head[COMMITMENT]

    @property
    def nonce(self) -> bytes:
        """The AEAD's nonce."""
        return self.body_head[NONCE]


class EnvelopeRows(Sequence[EnvelopeRow]):
    """The rows of `envelopes`, by column; bodies stay in the file."""

    ROW_BYTES: Final = 260
    """What a row takes: 6 numbers, 136 bytes of values, 4 of its look, 24 and more of where its body lies twice, and
    an eighth for room that arrays keep."""

    def __init__(self) -> None:
        self._integers = {
            name: array("q") for name in ("seq", "number", "expiry", "commit_index", "leaf", "body_bytes")
        }
        self._mailboxes, self._ids = _FixedColumn(16), _FixedColumn(16)
        self._hashes, self._heads = _FixedColumn(32), _FixedColumn(BODY_HEAD_BYTES)
        self._unevenness = array("f")
        self.pieces = PieceLists()

    def append(
        self,
        integers: tuple[int, ...],
        mailbox: bytes,
        envelope_id: bytes,
        body_sha256: bytes,
        body_head: bytes,
        unevenness: float,
        pieces: Sequence[Piece],
    ) -> None:
        """Add a row.

        Args:
            integers: seq, number, expiry, commit_index, leaf, body_bytes.
            mailbox: 16 bytes.
            envelope_id: 16 bytes.
            body_sha256: of the whole body.
            body_head: its first 72 bytes, or all that it has.
            unevenness: the chi-square of its bytes.
            pieces: where the body lies in the file.
        """
        for column, number in zip(self._integers.values(), integers, strict=True):
            column.append(number)
        self._mailboxes.append(mailbox)
        self._ids.append(envelope_id)
        self._hashes.append(body_sha256)
        self._heads.append(body_head.ljust(BODY_HEAD_BYTES, b"\0"))
        self._unevenness.append(unevenness)
        self.pieces.append(pieces)

    def __len__(self) -> int:
        return len(self._unevenness)

    @overload
    def __getitem__(self, key: int) -> EnvelopeRow: ...
    @overload
    def __getitem__(self, key: slice) -> list[EnvelopeRow]: ...
    def __getitem__(self, key: int | slice) -> EnvelopeRow | list[EnvelopeRow]:
        if isinstance(key, slice):
            return [self[position] for position in range(*key.indices(len(self)))]
        return self._row(range(len(self))[key])

    def __iter__(self) -> Iterator[EnvelopeRow]:
        for position in range(len(self)):
            yield self._row(position)

    def _row(self, position: int) -> EnvelopeRow:
        columns = self._integers
        size = columns["body_bytes"][position]
        return EnvelopeRow(
            columns["seq"][position],
            self._mailboxes[position],
            columns["number"][position],
            self._ids[position],
            columns["expiry"][position],
            columns["commit_index"][position],
            columns["leaf"][position],
            size,
            self._hashes[position],
            self._heads[position][:size],
            self.pieces[position],
        )

    def integers(self, column: str) -> Words:
        """A column of integers: seq, number, expiry, commit_index, leaf, body_bytes."""
        return np.frombuffer(self._integers[column], dtype=np.int64)

    def different(self, column: str) -> int:
        """How many different values a column has; bodies are told apart by their hashes."""
        values = {"mailbox": self.mailboxes, "envelope_id": self.ids, "body": self.body_hashes}
        return distinct(values[column]()) if column in values else len(np.unique(self.integers(column)))

    def unevenness(self) -> NDArray[np.float32]:
        """The chi-square of each body's bytes."""
        return np.frombuffer(self._unevenness, dtype=np.float32)

    def mailboxes(self) -> NDArray[np.void]:
        """The mailbox of each row."""
        return self._mailboxes.array()

    def ids(self) -> NDArray[np.void]:
        """The envelope id of each row."""
        return self._ids.array()

    def body_hashes(self) -> NDArray[np.void]:
        """SHA-256 of each body."""
        return self._hashes.array()

    def heads(self) -> NDArray[np.uint8]:
        """The first bytes of each body: hint, key commitment, nonce; zeros behind the end of a shorter one."""
        return self._heads.array().view(np.uint8).reshape(-1, BODY_HEAD_BYTES)

    def commitments(self) -> NDArray[np.void]:
        """The key commitment of each row."""
        return as_values(self.heads()[:, COMMITMENT])

    def nonces(self) -> NDArray[np.void]:
        """The nonce of each row."""
        return as_values(self.heads()[:, NONCE])


class _Sorted:
    """Positions of rows by the first 8 bytes of a value: 16 bytes a row, where a dict takes 160."""

    def __init__(self, values: NDArray[np.void]) -> None:
        words = words_of(values)[:, 0] if len(values) else np.zeros(0, dtype=np.uint64)
        self._order = np.argsort(words, kind="stable")
        self._words = words[self._order]

    def positions(self, value: bytes) -> Iterator[int]:
        """Where a value may be that begins with the same 8 bytes, the last row first."""
        word = np.frombuffer(value[:8].ljust(8, b"\0"), dtype=np.uint64)[0]
        start, end = np.searchsorted(self._words, word, "left"), np.searchsorted(self._words, word, "right")
        yield from reversed(self._order[start:end].tolist())


class LiveEnvelopes(Mapping[tuple[bytes, bytes], EnvelopeRow]):
    """Envelopes by mailbox and envelope id; of two with the same the last."""

    def __init__(self, rows: EnvelopeRows) -> None:
        self._rows = rows
        self._sorted = _Sorted(rows.ids())

    def __getitem__(self, key: tuple[bytes, bytes]) -> EnvelopeRow:
        for position in self._sorted.positions(key[1]):
            row = self._rows[position]
            if (row.mailbox, row.envelope_id) == key:
                return row
        raise KeyError(key)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter({(row.mailbox, row.envelope_id) for row in self._rows})

    def __len__(self) -> int:
        return sum(1 for _ in self)


class RowsByKey(Mapping[bytes, StoredRow]):
    """Rows of a table by a column of values of one size; of two with the same the last."""

    def __init__(self, rows: StoredRows, column: str) -> None:
        self._rows = rows
        self._column = column
        self._sorted = _Sorted(rows.blobs(column))

    def __getitem__(self, key: bytes) -> StoredRow:
        for position in self._sorted.positions(key):
            if self._rows.value(position, self._column) == key:
                return self._rows[position]
        raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        return iter({row.blob(self._column) for row in self._rows})

    def __len__(self) -> int:
        return sum(1 for _ in self)
