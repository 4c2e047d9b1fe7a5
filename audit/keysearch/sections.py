"""The parts of a disclosure that are searched, and the blocks that they are cut into.

Memory is aligned, and so are keys in it: what an allocator gives begins at a multiple of 8 or 16. In log,
configuration, manifest and the rows of the store nothing is aligned, so there every byte begins a window. Ciphertext is
taken as memory is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.image import Mapping
from audit.keysearch.settings import BLOCK_BYTES
from audit.rows import Bytes

HEAP, STACK, ANONYMOUS, FILES = (
    "memory, heap",
    "memory, main stack",
    "memory, anonymous",
    "memory, of program files",
)
MEMORY: Final = "memory"
STORE_CIPHERTEXT: Final = "store, ciphertext"
STORE_OTHER: Final = "store, all else"
STORE_WHOLE: Final = "store, not readable"
_NAMES: Final = {names.LOG: "log", names.CONFIG: "configuration", names.CARD: "card", names.MANIFEST: "manifest"}
OTHER: Final = "other files"

Piece = tuple[int, int]


@dataclass(slots=True)
class Section:
    """A part: pieces of one file, cut at `BLOCK_BYTES`, and which pieces make a block.

    Attributes:
        name: as it is shown.
        path: the file.
        view: the whole file.
        alignment: of windows, counted from the file's first byte.
    """

    name: str
    path: str
    view: Bytes
    alignment: int
    starts: array[int]
    ends: array[int]

    @classmethod
    def of(cls, name: str, path: str, view: Bytes, alignment: int, pieces: Iterable[Piece]) -> Section:
        """Cut pieces at the size of a block, counted from where each begins."""
        starts, ends = array("q"), array("q")
        for start, end in pieces:
            for at in range(start, min(end, len(view)), BLOCK_BYTES):
                starts.append(at)
                ends.append(min(at + BLOCK_BYTES, end, len(view)))
        return cls(name, path, view, alignment, starts, ends)

    def size_of(self, first: int, behind: int) -> int:
        """Bytes in the pieces of a block."""
        return sum(self.ends[first:behind]) - sum(self.starts[first:behind])

    def holds(self, places: frozenset[tuple[str, int]], first: int, behind: int) -> bool:
        """Whether a block holds one of these bytes."""
        offsets = [at for path, at in places if path == self.path]
        pieces = zip(self.starts[first:behind], self.ends[first:behind], strict=True)
        return any(start <= at < end for start, end in pieces for at in offsets)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Positions of pieces, first and behind the last, that come to about a block."""
        first, total = 0, 0
        for position, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            total += end - start
            if total >= BLOCK_BYTES:
                yield first, position + 1
                first, total = position + 1, 0
        if first < len(self.starts):
            yield first, len(self.starts)


def sections_of(case: Case, alignment: int, wanted: frozenset[str] | None) -> list[Section]:
    """All parts of a disclosure, or those wanted."""
    found = [section for section in _sections(case, alignment) if section.starts]
    return found if wanted is None else [section for section in found if section.name in wanted]


def _sections(case: Case, alignment: int) -> Iterator[Section]:
    files = case.disclosure.files
    for path, view in sorted(files.items()):
        whole = [(0, len(view))]
        if path == names.IMAGE and case.mappings:
            yield from _of_image(case.mappings, view, alignment)
        elif path == names.IMAGE:
            yield Section.of(MEMORY, path, view, alignment, whole)
        elif path == names.STORE and case.store is not None:
            outside = case.store.outside_ciphertext()
            yield Section.of(STORE_CIPHERTEXT, path, view, alignment, _between(outside, len(view)))
            yield Section.of(STORE_OTHER, path, view, 1, outside)
        elif path == names.STORE:
            yield Section.of(STORE_WHOLE, path, view, alignment, whole)
        else:
            yield Section.of(_NAMES.get(path, OTHER), path, view, 1, whole)


def _of_image(mappings: list[Mapping], view: Bytes, alignment: int) -> Iterator[Section]:
    pieces: dict[str, list[Piece]] = {HEAP: [], STACK: [], ANONYMOUS: [], FILES: []}
    end = 0
    for mapping in mappings:
        if mapping.readable:
            end = mapping.offset + mapping.length
            pieces[_kind_of(mapping)].append((mapping.offset, end))
    for name, found in pieces.items():
        yield Section.of(name, names.IMAGE, view, alignment, found)
    # An image that is longer than its table says is reported elsewhere, and searched here all the same.
    yield Section.of(MEMORY, names.IMAGE, view, alignment, [(end, len(view))])


def _kind_of(mapping: Mapping) -> str:
    if mapping.name == "[heap]":
        return HEAP
    if mapping.name == "[stack]":
        return STACK
    return FILES if mapping.name.startswith("/") else ANONYMOUS


def _between(outside: list[Piece], end: int) -> Iterator[Piece]:
    """What lies between the pieces, up to the end."""
    position = 0
    for start, behind in outside:
        if start > position:
            yield position, start
        position = behind
    if position < end:
        yield position, end
