"""The memory image's table of ranges (protocol.md section 11).

The image is searched, not accounted for: a process's memory holds Python's own objects, which nobody can list byte by
byte. What can be checked is that the image is the process that it is said to be, and how much of it could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from audit import decoder
from audit.disclosure import printable
from audit.errors import DecodeError

RANGES_BYTES_MAX: Final = 16 * 1024 * 1024
RANGES_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of addresses, and where its bytes are in the image."""

    start: int
    length: int
    offset: int
    readable: bool
    name: str

    @property
    def shown_name(self) -> str:
        """The mapping's name without its folders: a path of the relay's machine says nothing here."""
        return printable(self.name.rsplit("/", 1)[-1]) or "anonymous memory"


def read_ranges(data: bytes) -> tuple[int, list[Mapping]]:
    """Decode ranges.msgpack; return the process's id and its readable and unreadable ranges in order.

    Raises:
        DecodeError: It is malformed, or ranges overlap.
    """
    where = "memory ranges"
    pid, items = decoder.array(decoder.decode(data, where, RANGES_BYTES_MAX), where, 2)
    mappings = []
    address, offset = 0, 0
    for item in decoder.array(items, where, length_max=RANGES_MAX):
        fields = decoder.array(item, "range", 5)
        start = decoder.integer(fields[0], "range start", address)
        length = decoder.integer(fields[1], "range length", 1)
        if start + length > 2**64:
            raise DecodeError("range length", f"{length} from {start:#x} runs over the end of all addresses")
        readable = decoder.integer(fields[3], "readable", 0, 1) == 1
        at = decoder.integer(fields[2], "offset_in_image")
        # Readable ranges follow one another in the image without a gap; of an unreadable one the offset says nothing.
        if readable and at != offset:
            raise DecodeError("offset_in_image", f"is {at}, the ranges before it end at {offset}")
        mappings.append(Mapping(start, length, offset, readable, decoder.text(fields[4], "range name", 4096)))
        address = start + length
        offset += length if readable else 0
    return decoder.integer(pid, "pid", 1, 2**32), mappings
