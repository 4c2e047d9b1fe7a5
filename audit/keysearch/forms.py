"""What is compressed or encoded, decoded so that its windows can be tried as well.

Runs of hexadecimal digits and base64 characters (both alphabets, at each alignment), zlib and gzip streams by their
headers, and raw deflate, which has none, at each candidate window: what is compressed looks random. What comes out is
looked at once more: hexadecimal in a compressed text, a stream in base64. A `Budget` bounds it all; what it leaves out
is counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from audit.encodings import base64_runs, hexadecimal_runs
from audit.keysearch.settings import Form
from audit.keysearch.windows import KEY_BYTES
from audit.rows import Bytes
from audit.streams import STREAM_HEADER, header_bytes, inflate

DEPTH_MAX: Final = 2
RUN_OVERLAP_BYTES: Final = 128
"""Read beyond a block's end: 64 hexadecimal digits or 44 base64 characters that begin in the block are whole."""
_TRY_BYTES: Final = 64
"""What a false header counts."""
_FIRST_BYTES: Final = 128
"""How much of a raw deflate stream must inflate without an error to be taken for one."""
_FIRST_OUTPUT_MAX: Final = 4096


@dataclass(slots=True)
class Budget:
    """How much may still be decoded, and what was left out beyond it."""

    bytes_left: float
    streams_left_out: int = 0

    def spend(self, count: int) -> bool:
        """Take a count of bytes; False if there is nothing left."""
        self.bytes_left -= count
        return self.bytes_left > 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """Bytes that came out of a place, and how."""

    offset: int
    forms: tuple[Form, ...]
    data: bytes

    @property
    def shown(self) -> str:
        """The forms, the outermost first."""
        return ", in it ".join(form.value for form in self.forms)


def decoded_of(
    data: Bytes, start: int, end: int, forms: frozenset[Form], budget: Budget, depth: int = DEPTH_MAX
) -> Iterator[Decoded]:
    """What begins between two offsets, decoded, and what is decoded from that.

    Args:
        data: the whole file, which a stream may run through.
        start: first offset.
        end: the offset behind the last.
        forms: which to look for.
        budget: shared by all calls for a block.
        depth: how often what comes out is decoded again.
    """
    for found in _runs_and_streams(data, start, end, forms, budget):
        yield found
        yield from _inside(found, forms, budget, depth - 1)


def deflated_at(data: Bytes, places: Iterable[int], forms: frozenset[Form], budget: Budget) -> Iterator[Decoded]:
    """Raw deflate streams that begin at any of the places, and what is decoded from them."""
    for place in places:
        output = _deflated(data, place, budget)
        if len(output) >= KEY_BYTES:
            found = Decoded(place, (Form.DEFLATE,), output)
            yield found
            yield from _inside(found, forms, budget, DEPTH_MAX - 1)


def _inside(found: Decoded, forms: frozenset[Form], budget: Budget, depth: int) -> Iterator[Decoded]:
    if depth <= 0:
        return
    view = memoryview(found.data)
    for inner in decoded_of(view, 0, len(view), forms, budget, depth):
        yield Decoded(found.offset, (*found.forms, *inner.forms), inner.data)
    if Form.DEFLATE in forms and Form.DEFLATE not in found.forms:
        output = _deflated(view, 0, budget)
        if len(output) >= KEY_BYTES:
            yield Decoded(found.offset, (*found.forms, Form.DEFLATE), output)


def _runs_and_streams(data: Bytes, start: int, end: int, forms: frozenset[Form], budget: Budget) -> Iterator[Decoded]:
    region = bytes(data[start : end + RUN_OVERLAP_BYTES])
    for form, runs in ((Form.HEXADECIMAL, hexadecimal_runs), (Form.BASE64, base64_runs)):
        if form in forms:
            for at, decoded in runs(region):
                if not budget.spend(len(decoded)):
                    budget.streams_left_out += 1
                elif len(decoded) >= KEY_BYTES:
                    yield Decoded(start + at, (form,), decoded)
    if Form.STREAM in forms:
        found = STREAM_HEADER.search(region)
        while found and found.start() < end - start:
            at = start + found.start()
            output = _inflated(data, at + header_bytes(data, at), budget)
            if len(output) >= KEY_BYTES:
                yield Decoded(at, (Form.STREAM,), output)
            # One byte on, not behind the header: the second byte of a false one may be the first of a true one.
            found = STREAM_HEADER.search(region, found.start() + 1)


def _inflated(data: Bytes, body: int, budget: Budget) -> bytes:
    """What a stream gives, as far as it goes and the budget allows."""
    if not budget.spend(_TRY_BYTES):
        budget.streams_left_out += 1
        return b""
    output = bytearray()
    for part in inflate(data, body):
        output += part.output
        if not budget.spend(part.input_bytes + len(part.output)):
            budget.streams_left_out += 1
            break
    return bytes(output)


def _deflated(data: Bytes, place: int, budget: Budget) -> bytes:
    """What a raw deflate stream gives that begins here; nothing if its first bytes are none."""
    try:
        first = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[place : place + _FIRST_BYTES], _FIRST_OUTPUT_MAX)
    except zlib.error:
        # Nearly every place: no stream begins here.
        return b""
    return _inflated(data, place, budget) if first else b""
