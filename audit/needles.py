"""Looks for many byte strings at once in large files, in one pass and bounded memory.

A hundred secrets in a dozen forms each are thousands of needles; one `bytes.find` for each over a memory image would
take minutes. So the files are read as aligned words of 8 bytes, and each word is looked up in a set: a needle of 15
bytes or more contains, wherever it lies, at least one whole aligned word, and for each of the 8 ways in which it can
lie the most telling such word is in the set. Only needles of which a word was seen are then looked for with
`bytes.find`. The time depends on the size of the file, hardly on the count of needles. Shorter needles are looked for
one by one.

Compressed streams (zlib, gzip) are found by their headers, inflated within bounds, and what comes out is searched the
same way.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

CHUNK_BYTES: Final = 4 * 1024 * 1024
WORD_BYTES: Final = 8
INDEXED_BYTES_MIN: Final = 2 * WORD_BYTES - 1
TELLING_BYTES: Final = 6
NEEDLE_BYTES_MAX: Final = 4096
STREAM_INPUT_BYTES: Final = 256 * 1024
STREAM_OUTPUT_BYTES: Final = 1024 * 1024
STREAMS_MAX: Final = 200_000
INFLATED_BYTES_MAX: Final = 256 * 1024 * 1024
HITS_MAX: Final = 10_000
_ZERO_BLOCK: Final = bytes(65_536)
_ZLIB_HEADERS: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_GZIP_HEADER: Final = b"\x1f\x8b\x08"
_AUTO_DETECT: Final = 32 + zlib.MAX_WBITS


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
    streams_left_out: int = 0


@dataclass(slots=True)
class Finder:
    """An index over needles, to be used on any number of files."""

    needles: Sequence[Needle]
    inflate: bool = False
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

    def search(self, data: memoryview) -> list[Hit]:
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
                self._search_streams(data, chunk[: CHUNK_BYTES + 2], start, known, hits)
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

    def _streams_spent(self) -> bool:
        return self.figures.streams >= STREAMS_MAX or self.figures.inflated_bytes >= INFLATED_BYTES_MAX

    def _search_streams(
        self, data: memoryview, chunk: bytes, start: int, known: frozenset[int], hits: set[Hit]
    ) -> None:
        if self._streams_spent():
            # Counted only: a file made of nothing but headers must not keep the verifier busy.
            self.figures.streams_left_out += sum(chunk.count(header) for header in (*_ZLIB_HEADERS, _GZIP_HEADER))
            return
        for at in _stream_starts(chunk):
            if self._streams_spent():
                self.figures.streams_left_out += 1
                continue
            self.figures.streams += 1
            inflated = _inflate(data[start + at : start + at + STREAM_INPUT_BYTES])
            self.figures.inflated_bytes += len(inflated)
            if len(inflated) >= WORD_BYTES:
                inside: set[Hit] = set()
                self._search_bytes(inflated, 0, known, inside)
                hits.update(Hit(hit.subject, f"{hit.form}, compressed", start + at) for hit in inside)


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


def _stream_starts(chunk: bytes) -> Iterator[int]:
    for header in (*_ZLIB_HEADERS, _GZIP_HEADER):
        at = chunk.find(header)
        while at >= 0:
            yield at
            at = chunk.find(header, at + 1)


def _inflate(data: memoryview) -> bytes:
    """Inflate what can be, at most `STREAM_OUTPUT_BYTES`; a stream that breaks still gives what came before."""
    stream = zlib.decompressobj(_AUTO_DETECT)
    parts: list[bytes] = []
    size = 0
    # Small portions: when a stream breaks, zlib raises and keeps back what the last portion had given. Chance headers
    # break at once.
    for start in range(0, len(data), 512):
        try:
            part = stream.decompress(data[start : start + 512], STREAM_OUTPUT_BYTES - size)
        except zlib.error:
            break
        parts.append(part)
        size += len(part)
        if stream.eof or size >= STREAM_OUTPUT_BYTES:
            break
        if stream.unconsumed_tail:
            parts.append(stream.decompress(stream.unconsumed_tail, STREAM_OUTPUT_BYTES - size))
            break
    return b"".join(parts)
