"""Compressed streams in bytes of any kind: where one may begin, and what comes out of it (RFC 1950 to 1952).

gzip and every valid pair of zlib's CMF and FLG without a preset dictionary are known by their headers; raw deflate has
none. Streams are inflated as far as they go, block by block, so that a bomb costs no memory; bounds are the caller's.
Checksums are not looked at: one that is wrong must not hide what it belongs to.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from audit.rows import Bytes

PORTION_BYTES: Final = 512
OUTPUT_BLOCK_BYTES: Final = 1024 * 1024
NAME_BYTES_MAX: Final = 4096
_PRESET_DICTIONARY: Final = 0x20
_CMF: Final = range(0x08, 0x79, 0x10)
"""Deflate, with a window of 2^8 to 2^15 bytes (RFC 1950 section 2.2)."""
GZIP_HEADER: Final = b"\x1f\x8b\x08"
_GZIP_HEADER_BYTES: Final = 10


def _flags_of(cmf: int) -> bytes:
    """The FLG bytes that go with a CMF: together a multiple of 31."""
    return bytes(flg for flg in range(256) if (256 * cmf + flg) % 31 == 0 and not flg & _PRESET_DICTIONARY)


STREAM_HEADER: Final = re.compile(
    b"|".join([*(b"\\x%02x[%s]" % (cmf, re.escape(_flags_of(cmf))) for cmf in _CMF), re.escape(GZIP_HEADER)])
)


def header_bytes(data: Bytes, at: int) -> int:
    """How long the header of a stream is: 2 of zlib; of gzip 10, and what its flags add (RFC 1952 section 2.3)."""
    if data[at] != GZIP_HEADER[0]:
        return 2
    head = bytes(data[at : at + _GZIP_HEADER_BYTES])
    if len(head) < _GZIP_HEADER_BYTES:
        return len(head)
    flags, end = head[3], at + _GZIP_HEADER_BYTES
    if flags & 4:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            name = bytes(data[end : end + NAME_BYTES_MAX])
            end += name.find(b"\0") + 1
    return end + (2 if flags & 2 else 0) - at


@dataclass(frozen=True, slots=True)
class Inflated:
    """What came out, and how many bytes went in for it."""

    output: bytes
    input_bytes: int


def inflate(data: Bytes, start: int) -> Iterator[Inflated]:
    """Inflate a raw deflate stream as far as it goes; one that breaks still gives all that came before."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    position = start
    while position < len(data) and not stream.eof:
        portion = data[position : position + PORTION_BYTES]
        try:
            output = stream.decompress(portion, OUTPUT_BLOCK_BYTES)
            while stream.unconsumed_tail:
                yield Inflated(output, 0)
                output = stream.decompress(stream.unconsumed_tail, OUTPUT_BLOCK_BYTES)
        except zlib.error:
            # zlib keeps back what the last portion had given: from its beginning once more, byte by byte.
            yield from _inflate_to_break(data, start, position)
            return
        yield Inflated(output, len(portion))
        position += len(portion)


def _inflate_to_break(data: Bytes, start: int, good: int) -> Iterator[Inflated]:
    """What the bytes behind `good` give before the stream breaks among them."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for position in range(start, good, PORTION_BYTES):
        stream.decompress(data[position : min(good, position + PORTION_BYTES)])
    parts = []
    with suppress(zlib.error):
        for position in range(good, good + PORTION_BYTES):
            parts.append(stream.decompress(data[position : position + 1]))
    yield Inflated(b"".join(parts), good - start)
