"""Looks for many byte strings at once in large files, in one pass and bounded memory.

A hundred secrets in a dozen forms each are thousands of needles; one `bytes.find` for each over a memory image would
take minutes. So the files are read as aligned words of 8 bytes, and each word is looked up in a set: a needle of 15
bytes or more contains, wherever it lies, at least one whole aligned word, and for each of the 8 ways in which it can
lie the most telling such word is in the set. Only needles of which a word was seen are then looked for with
`bytes.find`. The time depends on the size of the file, hardly on the count of needles. Shorter needles are looked for
one by one.

Compressed streams (streams.py) are found by their headers, inflated as far as they go, and what comes out is searched
the same way. Raw deflate has no header; `search_deflated` tries it where a caller says that a stream may begin. All of
that shares one bound of work; what was left undone is counted, for the caller to say.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from audit.rows import Bytes
from audit.streams import GZIP_HEADER, OUTPUT_BLOCK_BYTES, STREAM_HEADER, header_bytes, inflate

CHUNK_BYTES: Final = 4 * 1024 * 1024
WORD_BYTES: Final = 8
INDEXED_BYTES_MIN: Final = 2 * WORD_BYTES - 1
TELLING_BYTES: Final = 6
NEEDLE_BYTES_MAX: Final = 4096
INFLATE_WORK_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Bytes that go into streams and come out of them. Ciphertext has a chance header every 2,000 bytes, so an honest store
or image of 8 GB stays below; a demonstration's has some 5,300 headers, of which none inflates to anything."""
TRY_WORK_BYTES: Final = 256
"""What a try counts at least."""
HITS_MAX: Final = 10_000
_ZERO_BLOCK: Final = bytes(65_536)


@dataclass(frozen=True, slots=True)
class Needle:
    """Bytes to look for; `subject` says whose, `form` in which encoding."""

    needle: bytes
    subject: int
    form: str

    def __repr__(self) -> str:
        return f"Needle(<{len(self.needle)} bytes>, subject={self.subject}, form={self.form!r})"


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a needle was found."""

    subject: int
    form: str
    offset: int


@dataclass(slots=True)
class SearchFigures:
    """How much was searched, and what the bounds left out."""

    searched_bytes: int = 0
    streams: int = 0
    inflated_bytes: int = 0
    inflate_work_bytes: int = 0
    streams_left_out: int = 0


@dataclass(slots=True)
class Finder:
    """An index over needles, to be used on any number of files."""

    needles: Sequence[Needle]
    inflate: bool = False
    work_bytes_max: float = INFLATE_WORK_BYTES_MAX
    figures: SearchFigures = field(default_factory=SearchFigures)
    _words: dict[int, list[int]] = field(default_factory=dict)
    _short: list[int] = field(default_factory=list)
    _overlap: int = 0

    def __post_init__(self) -> None:
        for position, needle in enumerate(self.needles):
            if not 0 < len(needle.needle) <= NEEDLE_BYTES_MAX:
                raise ValueError(f"a needle of {len(needle.needle)} bytes; 1 to {NEEDLE_BYTES_MAX} are possible")
            self._overlap = max(self._overlap, len(needle.needle) - 1)
            if len(needle.needle) < INDEXED_BYTES_MIN:
                self._short.append(position)
                continue
            for phase in range(WORD_BYTES):
                self._words.setdefault(_word(needle.needle, phase), []).append(position)

    def search(self, data: Bytes) -> list[Hit]:
        """Return all hits in a file, in order of offset; of overlapping chunks each hit once.

        Args:
            data: The file; never copied as a whole.
        """
        hits: set[Hit] = set()
        keys = self._words.keys()
        known = frozenset(keys)
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = bytes(data[start : start + CHUNK_BYTES + self._overlap])
            self._search_bytes(chunk, start, known, hits)
            if self.inflate:
                self._search_streams(data, chunk[: CHUNK_BYTES + len(GZIP_HEADER) - 1], start, known, hits)
            if len(hits) > HITS_MAX:
                break
        self.figures.searched_bytes += len(data)
        return sorted(hits, key=lambda hit: (hit.offset, hit.subject, hit.form))

    def _search_bytes(self, chunk: bytes, start: int, known: frozenset[int], hits: set[Hit]) -> None:
        candidates = set(self._short)
        for word in known.intersection(_words_of(chunk)):
            candidates.update(self._words[word])
        for position in candidates:
            needle = self.needles[position]
            at = chunk.find(needle.needle)
            while at >= 0 and len(hits) <= HITS_MAX:
                hits.add(Hit(needle.subject, needle.form, start + at))
                at = chunk.find(needle.needle, at + len(needle.needle))

    def search_deflated(self, data: Bytes, starts: Iterable[int]) -> list[Hit]:
        """Search what raw deflate streams that may begin at `starts` inflate to.

        Args:
            data: The file.
            starts: Offsets to try.
        """
        hits: set[Hit] = set()
        known = frozenset(self._words)
        for start in starts:
            self._search_stream(data, start, start, known, hits)
        return sorted(hits, key=lambda hit: (hit.offset, hit.subject, hit.form))

    def _search_streams(self, data: Bytes, chunk: bytes, start: int, known: frozenset[int], hits: set[Hit]) -> None:
        found = STREAM_HEADER.search(chunk)
        while found and found.start() < CHUNK_BYTES:
            at = start + found.start()
            self._search_stream(data, at, at + header_bytes(data, at), known, hits)
            # One byte on, not behind the header: the second byte of a false one may be the first of a true one.
            found = STREAM_HEADER.search(chunk, found.start() + 1)

    def _search_stream(self, data: Bytes, at: int, body: int, known: frozenset[int], hits: set[Hit]) -> None:
        """Inflate what begins at `body`, and search what comes out, block by block; hits lie at `at`."""
        figures = self.figures
        if figures.inflate_work_bytes >= self.work_bytes_max:
            # Counted only: a file made of nothing but headers must not keep the verifier busy.
            figures.streams_left_out += 1
            return
        figures.streams += 1
        figures.inflate_work_bytes += TRY_WORK_BYTES
        block = bytearray()
        for part in inflate(data, body):
            block += part.output
            figures.inflated_bytes += len(part.output)
            figures.inflate_work_bytes += part.input_bytes + len(part.output)
            if len(block) >= OUTPUT_BLOCK_BYTES:
                self._search_inflated(bytes(block), at, known, hits)
                del block[: len(block) - self._overlap]
            if figures.inflate_work_bytes >= self.work_bytes_max:
                figures.streams_left_out += 1
                break
        if len(block) >= WORD_BYTES:
            self._search_inflated(bytes(block), at, known, hits)

    def _search_inflated(self, block: bytes, at: int, known: frozenset[int], hits: set[Hit]) -> None:
        inside: set[Hit] = set()
        self._search_bytes(block, 0, known, inside)
        hits.update(Hit(hit.subject, f"{hit.form}, compressed", at) for hit in inside)


def _words_of(chunk: bytes) -> array[int]:
    """The aligned words of a chunk, without those of blocks that are all zeros: half of a memory image is."""
    words = array("Q")
    for start in range(0, len(chunk) - len(chunk) % WORD_BYTES, len(_ZERO_BLOCK)):
        block = chunk[start : start + len(_ZERO_BLOCK)]
        if block != _ZERO_BLOCK:
            words.frombytes(block[: len(block) - len(block) % WORD_BYTES])
    return words


def _word(needle: bytes, phase: int) -> int:
    """A telling word of a needle among those that are aligned when its byte `phase` is."""
    best, most = b"", 0
    for start in range(phase, len(needle) - WORD_BYTES + 1, WORD_BYTES):
        word = needle[start : start + WORD_BYTES]
        different = len(set(word))
        if different > most:
            best, most = word, different
            if most >= TELLING_BYTES:
                break
    return int.from_bytes(best, sys.byteorder)
