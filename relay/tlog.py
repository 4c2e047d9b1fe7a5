"""The relay's transparency log on the disk: append-only, in files that any web server can mirror (C2SP tlog-tiles).

    log = TransparencyLog.create(folder, signer, [entry])       a new log with its first entries
    log = TransparencyLog.open(folder, key)
    log.append([entry, …], signer)                               durable, then published by a new checkpoint
    log.inclusion(index), log.consistency(size)                  proofs, from the files

What an entry says is its writer's business. Rules: a tile is written beside its place, flushed and renamed, and so are
all of them before the checkpoint that needs them; after a crash the old checkpoint stands, and what was written for the
lost one is overwritten by the next. Opening checks the signature and that the tiles' root is the checkpoint's. Whoever
appends holds the home's lock.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wire.errors import BlindpostError, FormatError
from wire.limits import HASH_BYTES
from wire.note import Checkpoint, NoteKey, NoteSigner, open_checkpoint, sign_checkpoint
from wire.tiles import CHECKPOINT_NAME, TILE_WIDTH, Tile, bundle_of, entries_of, hashes_from, tile_at, tiles_of
from wire.tlog import EMPTY_ROOT, Hashes, consistency_proof, inclusion_proof, leaf_hash, node_hash, tree_hash

__all__ = ["LogDamaged", "TransparencyLog"]

_CHECKPOINT_BYTES_MAX: Final = 65_536


class LogDamaged(BlindpostError):
    """The files are not those of the checkpoint: the log cannot go on."""


class TransparencyLog:
    """A log of one folder. Made by `create` or `open`.

    Args:
        folder: where its files lie.
        key: its public key; the key's name is the log's origin.
        checkpoint: its newest tree head.
        note: the same as it is published.
    """

    def __init__(self, folder: Path, key: NoteKey, checkpoint: Checkpoint, note: str) -> None:
        self.folder = folder
        self.key = key
        self.checkpoint = checkpoint
        self.note = note

    @classmethod
    def create(cls, folder: Path, signer: NoteSigner, entries: Sequence[bytes]) -> "TransparencyLog":
        """Begin a log.

        Raises:
            FormatError: no entries, or one is too long.
            FileExistsError: there is a log already.
        """
        if (folder / CHECKPOINT_NAME).exists():
            raise FileExistsError(17, "there is a log already", str(folder))
        if not entries:
            raise FormatError("log", "must begin with an entry", 1)
        folder.mkdir(parents=True, exist_ok=True)
        log = cls(folder, signer.key, Checkpoint(signer.key.name, 0, EMPTY_ROOT), "")
        log.append(entries, signer)
        return log

    @classmethod
    def open(cls, folder: Path, key: NoteKey) -> "TransparencyLog":
        """Open a log.

        Raises:
            FormatError, SignatureError: the checkpoint is none of this key.
            LogDamaged: the tiles do not have the checkpoint's root.
            OSError: a file cannot be read.
        """
        with (folder / CHECKPOINT_NAME).open("rb") as file:
            data = file.read(_CHECKPOINT_BYTES_MAX + 1)
        checkpoint = open_checkpoint(data, key)
        log = cls(folder, key, checkpoint, data.decode("utf-8"))
        if log._root_of(checkpoint.size) != checkpoint.root:
            raise LogDamaged(f"{folder}: the tiles have another root than the checkpoint")
        return log

    @property
    def size(self) -> int:
        """How many entries."""
        return self.checkpoint.size

    def append(self, entries: Sequence[bytes], signer: NoteSigner) -> Checkpoint:
        """Append entries; when this returns they are durable and published.

        Raises:
            FormatError: an entry is too long; nothing was written.
            OSError: writing failed; the old checkpoint stands.
        """
        if not entries:
            return self.checkpoint
        old, new = self.size, self.size + len(entries)
        edge = self._edge(entries)
        for tile in tiles_of(old, new):
            self._write(tile.path, edge.bytes_of(tile))
        root = tree_hash(_source_of(edge, self, new), 0, new)
        checkpoint = Checkpoint(self.checkpoint.origin, new, root)
        note = sign_checkpoint(checkpoint, signer)
        self._write(CHECKPOINT_NAME, note.encode())
        self.checkpoint, self.note = checkpoint, note
        return checkpoint

    def entry(self, index: int) -> bytes:
        """An entry.

        Raises:
            FormatError: there is none of that number, or its bundle is damaged.
        """
        if not 0 <= index < self.size:
            raise FormatError("log entry", f"{index} is not one of {self.size}", self.size)
        tile = tile_at(None, index // TILE_WIDTH, self.size)
        return entries_of(self._read(tile), tile.width)[index % TILE_WIDTH]

    def entries(self) -> list[bytes]:
        """All entries, in order."""
        found: list[bytes] = []
        for tile in tiles_of(0, self.size):
            if tile.level is None:
                found += entries_of(self._read(tile), tile.width)
        return found

    def inclusion(self, index: int) -> list[bytes]:
        """The proof that entry `index` is in the newest tree."""
        return inclusion_proof(self._hashes(self.size), index, self.size)

    def consistency(self, size: int) -> list[bytes]:
        """The proof that the tree of `size` entries is the beginning of the newest."""
        return consistency_proof(self._hashes(self.size), size, self.size)

    def _hashes(self, size: int) -> Hashes:
        return hashes_from(self._read, size)

    def _root_of(self, size: int) -> bytes:
        try:
            return tree_hash(self._hashes(size), 0, size)
        except (FormatError, FileNotFoundError) as error:
            raise LogDamaged(f"{self.folder}: {error}") from None

    def _read(self, tile: Tile) -> bytes:
        return (self.folder / tile.path).read_bytes()

    def _edge(self, entries: Sequence[bytes]) -> "_Edge":
        """What the tree ends with, with the new entries."""
        old = self.size
        levels: list[list[bytes]] = []
        bundle: list[bytes] = []
        if old % TILE_WIDTH:
            tile = tile_at(None, old // TILE_WIDTH, old)
            bundle = entries_of(self._read(tile), tile.width)
        level = 0
        while old >> 8 * level:
            width = (old >> 8 * level) % TILE_WIDTH
            data = self._read(Tile(level, old >> 8 * level + 8, width)) if width else b""
            levels.append([data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)])
            level += 1
        return _Edge(old, bundle, levels, entries)

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class _Edge:
    """The growing edge: all hashes and entries from the first tile that is not whole, by level.

    Args:
        size: of the tree before.
        bundle: the entries of its last bundle that is not whole.
        levels: by level, the hashes of its last tile that is not whole.
        entries: what is appended.
    """

    def __init__(self, size: int, bundle: list[bytes], levels: list[list[bytes]], entries: Sequence[bytes]) -> None:
        # Where the first tile that changes begins, by level, in hashes of that level.
        self._starts = [(size >> 8 * level) // TILE_WIDTH * TILE_WIDTH for level in range(max(1, len(levels)))]
        self._levels = levels or [[]]
        self._entries = [*bundle, *entries]
        self._bundle_start = self._starts[0]
        bundle_of(entries)
        for entry in entries:
            self._add(0, leaf_hash(entry))

    def _add(self, level: int, hash_: bytes) -> None:
        if level == len(self._levels):
            self._levels.append([])
            self._starts.append(0)
        row = self._levels[level]
        row.append(hash_)
        if (self._starts[level] + len(row)) % TILE_WIDTH == 0:
            self._add(level + 1, _fold(row[-TILE_WIDTH:]))

    def bytes_of(self, tile: Tile) -> bytes:
        """The bytes of a tile that has changed."""
        if tile.level is None:
            at = tile.index * TILE_WIDTH - self._bundle_start
            return bundle_of(self._entries[at : at + tile.width])
        at = tile.index * TILE_WIDTH - self._starts[tile.level]
        return b"".join(self._levels[tile.level][at : at + tile.width])

    def has(self, tile: Tile) -> bool:
        """Whether a tile is one of those that change."""
        return tile.level is not None and tile.index * TILE_WIDTH >= self._starts[tile.level]


def _source_of(edge: _Edge, log: TransparencyLog, size: int) -> Hashes:
    def read(tile: Tile) -> bytes:
        return edge.bytes_of(tile) if edge.has(tile) else log._read(tile)

    return hashes_from(read, size)


def _fold(row: list[bytes]) -> bytes:
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]
