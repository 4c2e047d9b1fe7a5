"""The log as files that any web server can mirror (C2SP tlog-tiles): names, widths, entry bundles.

    checkpoint                     the signed tree head (note.py)
    tile/L/N, tile/L/N.p/W         hashes of level L: 256, or W of them where the tree ends
    tile/entries/N[.p/W]           the entries themselves, each behind its length in two bytes

A hash at level L covers 256^L leaves; only whole tiles are hashed into the level above. `hashes_from` turns such tiles
into the source of subtree hashes that tlog.py makes proofs from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from wire.errors import FormatError
from wire.limits import HASH_BYTES
from wire.tlog import Hashes, node_hash

__all__ = [
    "CHECKPOINT_NAME",
    "ENTRY_BYTES_MAX",
    "TILE_WIDTH",
    "Tile",
    "Tiles",
    "bundle_of",
    "entries_of",
    "hashes_from",
    "tiles_of",
]

CHECKPOINT_NAME: Final = "checkpoint"
TILE_WIDTH: Final = 256
ENTRY_BYTES_MAX: Final = 65_535
_HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, or one entry bundle.

    Args:
        level: of its hashes; None for a bundle of entries.
        index: its place within the level.
        width: how many hashes or entries, 1 to 256.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The file's name under the log's folder, with `/`."""
        parts = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            parts.append(f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{'/'.join(reversed(parts))}{partial}"


Tiles: TypeAlias = Callable[[Tile], bytes]
"""The bytes of a tile that a tree of the size at hand has."""


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """A tile as wide as it is in a tree of `size` leaves."""
    whole = size >> _HEIGHT * (level or 0)
    return Tile(level, index, min(TILE_WIDTH, whole - TILE_WIDTH * index))


def tiles_of(size1: int, size2: int) -> Iterator[Tile]:
    """The tiles and bundles that a tree of `size2` has and one of `size1` had not, or not so wide."""
    for level in (None, *range(64)):
        shift = _HEIGHT * (level or 0)
        before, after = size1 >> shift, size2 >> shift
        if not after:
            return
        if after > before:
            for index in range(before // TILE_WIDTH, -(-after // TILE_WIDTH)):
                yield tile_at(level, index, size2)


def hashes_from(tiles: Tiles, size: int) -> Hashes:
    """A source of subtree hashes over the tiles of a tree of `size` leaves.

    The source raises FormatError for a tile of another length than its width says.
    """

    def hashes(start: int, end: int) -> bytes:
        level = ((end - start).bit_length() - 1) // _HEIGHT
        shift = _HEIGHT * level
        first, last = start >> shift, end >> shift
        tile = tile_at(level, first // TILE_WIDTH, size)
        data = tiles(tile)
        if len(data) != HASH_BYTES * tile.width:
            raise FormatError(tile.path, f"has {len(data)} bytes", HASH_BYTES * tile.width)
        at = first % TILE_WIDTH
        row = [data[HASH_BYTES * i : HASH_BYTES * (i + 1)] for i in range(at, at + last - first)]
        while len(row) > 1:
            row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        return row[0]

    return hashes


def bundle_of(entries: Sequence[bytes]) -> bytes:
    """Entries as a bundle.

    Raises:
        FormatError: an entry is longer than 65,535 bytes.
    """
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise FormatError("log entry", f"has {len(entry)} bytes", ENTRY_BYTES_MAX)
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def entries_of(bundle: bytes, width: int) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        FormatError: it does not hold so many, whole.
    """
    entries, at = [], 0
    while at + 2 <= len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            break
        entries.append(bundle[at + 2 : end])
        at = end
    if at != len(bundle) or len(entries) != width:
        raise FormatError("entry bundle", f"does not hold {width} whole entries", width)
    return entries
