"""Reads a mirror of a relay's transparency log: checkpoint, tiles and entries, all recomputed (protocol.md section 15).

A mirror is a folder that any web server could hold, so every byte of it is somebody else's. What the folder says about
its hashes is compared with hashes made here from the entries; what the checkpoint says, with their root. Whose the log
is and what its leaves say is order_log.py's.

Sources: C2SP signed-note, tlog-checkpoint and tlog-tiles; RFC 9162 section 2.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from audit.errors import BoundError, DisclosureError, ProofError, SignatureError
from audit.merkle import leaf_hash, node_hash, root_of

CHECKPOINT_NAME: Final = "checkpoint"
NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 64
ENTRIES_MAX: Final = 1_000_000
WIDTH: Final = 256
HASH_BYTES: Final = 32
_BUNDLE_BYTES_MAX: Final = WIDTH * (2 + 65_535)
_DASH: Final = "— "


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint as it stands in its note; not to be believed before `verify_note`."""

    text: str
    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror whose entries and tiles agree.

    Args:
        note: its checkpoint.
        entries: all of them.
        hashes: of the entries, as leaves.
    """

    note: Note
    entries: tuple[bytes, ...]
    hashes: tuple[bytes, ...]

    def root(self, size: int) -> bytes:
        """The root of the tree of the first entries."""
        return root_of(self.hashes[:size])


def key_id_of(name: str, public_key: bytes) -> bytes:
    """The four bytes before a signature in a note."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]


def read_note(data: bytes, where: str) -> Note:
    """Read a checkpoint's note.

    Raises:
        DisclosureError: it is none.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise DisclosureError(where, f"{len(data)} bytes, at most {NOTE_BYTES_MAX} are allowed")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise DisclosureError(where, "is not UTF-8") from None
    text, separator, rest = whole.rpartition("\n\n")
    lines = rest.split("\n")
    body = text.split("\n")
    if not separator or lines[-1] or not 2 <= len(lines) <= SIGNATURES_MAX + 1 or len(body) != 3:
        raise DisclosureError(where, "is no note of three lines, an empty one and signatures")
    if any(character < " " and character != "\n" for character in whole):
        raise DisclosureError(where, "has a control character")
    origin, size, root = body
    if not size.isascii() or not size.isdigit() or len(size) > 19 or str(int(size)) != size:
        raise DisclosureError(where, "its size is no decimal number")
    return Note(
        text + "\n",
        origin,
        int(size),
        _base64(root, where, HASH_BYTES),
        tuple(_signature(line, where) for line in lines[:-1]),
    )


def verify_note(note: Note, public_key: bytes, where: str) -> None:
    """Check that a key has signed a note under the log's own name.

    Raises:
        SignatureError: it has not.
    """
    wanted = key_id_of(note.origin, public_key)
    for name, data in note.signatures:
        if name == note.origin and data[:4] == wanted:
            try:
                bindings.crypto_sign_open(data[4:] + note.text.encode(), public_key)
            except (CryptoError, ValueError):
                raise SignatureError(where, "the signature is not that of the log's key") from None
            return
    raise SignatureError(where, "the log's key has not signed it")


def read_mirror(folder: Path) -> Mirror:
    """Read a mirror whole, and recompute each of its hashes.

    Raises:
        DisclosureError: a file is missing, no file, or not of its format.
        ProofError: a tile or the root is not that of the entries.
        BoundError: it has more entries than this verifier takes on.
    """
    note = read_note(_read(folder, CHECKPOINT_NAME, NOTE_BYTES_MAX), CHECKPOINT_NAME)
    if note.size > ENTRIES_MAX:
        raise BoundError(CHECKPOINT_NAME, f"{note.size} entries, at most {ENTRIES_MAX} are read")
    entries: list[bytes] = []
    for start in range(0, note.size, WIDTH):
        width = min(WIDTH, note.size - start)
        name = tile_name("entries", start // WIDTH, width)
        entries += _entries(_read(folder, name, _BUNDLE_BYTES_MAX), width, name)
    hashes = [leaf_hash(entry) for entry in entries]
    if root_of(hashes) != note.root:
        raise ProofError(CHECKPOINT_NAME, "its root is not that of the entries")
    _check_tiles(folder, hashes)
    return Mirror(note, tuple(entries), tuple(hashes))


def tile_name(level: str, index: int, width: int) -> str:
    """The name of a tile: three digits a folder, and the width where it is not whole."""
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/{'/'.join(parts)}" + ("" if width == WIDTH else f".p/{width}")


def _check_tiles(folder: Path, hashes: list[bytes]) -> None:
    level, row = 0, hashes
    while row:
        for start in range(0, len(row), WIDTH):
            part = row[start : start + WIDTH]
            name = tile_name(str(level), start // WIDTH, len(part))
            if _read(folder, name, WIDTH * HASH_BYTES) != b"".join(part):
                raise ProofError(name, "its hashes are not those of the entries")
        row = [_fold(row[start : start + WIDTH]) for start in range(0, len(row) - WIDTH + 1, WIDTH)]
        level += 1


def _fold(row: list[bytes]) -> bytes:
    while len(row) > 1:
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]


def _entries(bundle: bytes, width: int, where: str) -> list[bytes]:
    entries: list[bytes] = []
    place = 0
    for _ in range(width):
        length = int.from_bytes(bundle[place : place + 2], "big")
        entry = bundle[place + 2 : place + 2 + length]
        if len(bundle) < place + 2 or len(entry) != length:
            raise DisclosureError(where, f"ends within entry {len(entries)}")
        entries.append(entry)
        place += 2 + length
    if place != len(bundle):
        raise DisclosureError(where, f"holds more than {width} entries")
    return entries


def _signature(line: str, where: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not name or not encoded:
        raise DisclosureError(where, "has a signature line that is none")
    return name, _base64(encoded, where)


def _base64(text: str, where: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DisclosureError(where, "has base64 that is none") from None
    if base64.b64encode(data).decode() != text or (length is not None and len(data) != length):
        raise DisclosureError(where, "has base64 of another length or spelling")
    return data


def _read(folder: Path, name: str, bytes_max: int) -> bytes:
    """A regular file of the mirror; links and pipes are not followed."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DisclosureError(name, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DisclosureError(name, "is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise DisclosureError(name, f"more than {bytes_max} bytes")
    return data
