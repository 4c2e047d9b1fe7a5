"""The forms in which a text or a secret may have been kept, as needles.

A canary of up to 32 bytes is looked for whole. A longer one is cut into windows of 32 characters, so that a plaintext
of which only a part was kept is found as well: any run of 63 characters holds a whole window, unless windows were
thinned out because there are more than `WINDOWS_MAX`. Windows that could stand in anybody's text (repetitions, MIME
headers, document types) are left out: they would accuse the innocent.

Base64 depends on the position modulo 3, so each window is encoded at three alignments, without the characters that its
neighbours share. Compression is not a form here: streams are inflated by `needles`. `decoded_runs` goes the other way:
what hexadecimal and base64 in a file decode to, for what has no fixed form.
"""

from __future__ import annotations

import base64
import json
import quopri
import re
from collections.abc import Iterator
from itertools import chain
from typing import Final
from urllib.parse import quote, quote_plus

WINDOW_CHARS: Final = 32
WINDOWS_MAX: Final = 48
CANARY_BYTES_MIN: Final = 8
SECRET_BYTES_MIN: Final = 12
BASE64_TILE: Final = 20
"""15 bytes of text."""
QUOTED_TILE: Final = 36
"""12 bytes of a text of which every byte is quoted: six Arabic letters."""
RUN_CHARS_MAX: Final = 65_536
"""Longer runs of hexadecimal or base64 are decoded in pieces, which overlap by more than 32 decoded bytes."""
RUN_OVERLAP_CHARS: Final = 128
_HEX_RUN = re.compile(rb"[0-9A-Fa-f]{64,}")
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{43,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_COMMON = re.compile(
    r"content-|mime-version|charset|boundary|multipart|text/|w3\.org|doctype|xmlns|http-equiv|(.)\1{15}", re.IGNORECASE
)


def _tiles(encoded: bytes, length: int) -> Iterator[bytes]:
    """Cut an encoded text into tiles: mail breaks it into lines of 76, and one of two tiles outlives a break."""
    if len(encoded) < 2 * length:
        yield encoded
        return
    for start in (*range(0, len(encoded) - length, length), len(encoded) - length):
        yield encoded[start : start + length]


def base64_forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Base64, standard and URL-safe, at the three alignments, without characters that depend on neighbours."""
    for shift in range(3):
        # The first character that depends on these bytes alone: 0, 2 (12 bits in) or 3 (18 bits in).
        encoded = base64.b64encode(bytes(shift) + data)
        first = (shift * 8 + 5) // 6
        last = (shift + len(data)) * 8 // 6
        for inner in _tiles(encoded[first:last], BASE64_TILE):
            yield f"base64 at alignment {shift}", inner
            safe = inner.translate(bytes.maketrans(b"+/", b"-_"))
            if safe != inner:
                yield f"URL-safe base64 at alignment {shift}", safe


def binary_forms(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A byte string as it is, reversed, in hexadecimal and in base64."""
    yield "raw", data
    yield "reversed", data[::-1]
    yield "hexadecimal", data.hex().encode()
    yield "hexadecimal, upper case", data.hex().upper().encode()
    yield from base64_forms(data)


def text_windows(text: str) -> list[str]:
    """Return the windows of a text that are looked for; none if nothing in it is distinctive."""
    if len(text) <= WINDOW_CHARS:
        distinctive = len(text.encode(errors="surrogateescape")) >= CANARY_BYTES_MIN and len(set(text)) >= 5
        return [text] if distinctive else []
    starts = list(range(0, len(text) - WINDOW_CHARS + 1, WINDOW_CHARS))
    starts.append(len(text) - WINDOW_CHARS)
    windows = list(dict.fromkeys(text[start : start + WINDOW_CHARS] for start in starts))
    windows = [window for window in windows if len(set(window)) >= 10 and not _COMMON.search(window)]
    if len(windows) > WINDOWS_MAX:
        windows = [windows[i * len(windows) // WINDOWS_MAX] for i in range(WINDOWS_MAX)]
    return windows


def text_forms(window: str, *, wide: bool = False) -> Iterator[tuple[str, bytes]]:
    """A window of a text in the common encodings; forms that are the same bytes come once.

    Args:
        wide: Whether the text has a character beyond U+FFFF. Only then does Python keep it as UTF-32, whose words
            of two characters are so common in memory that they would slow down the search for all others.
    """
    utf8 = window.encode(errors="surrogateescape")
    seen: set[bytes] = set()
    forms = _all_text_forms(window, utf8)
    for form, needle in chain(forms, [("UTF-32LE", window.encode("utf-32-le", "ignore"))]) if wide else forms:
        if needle not in seen and len(needle) >= CANARY_BYTES_MIN:
            seen.add(needle)
            yield form, needle


def _all_text_forms(window: str, utf8: bytes) -> Iterator[tuple[str, bytes]]:
    yield "UTF-8", utf8
    for form, codec in (
        ("UTF-16LE", "utf-16-le"),
        ("UTF-16BE", "utf-16-be"),
        ("Latin-1", "latin-1"),
    ):
        try:
            yield form, window.encode(codec)
        except UnicodeEncodeError:
            # This text has no such form.
            continue
    for form, needle in binary_forms(utf8):
        if form != "raw":
            yield form, needle
    quoted = quopri.encodestring(utf8).replace(b"=\n", b"")
    if quoted != utf8:
        for tile in _tiles(quoted, QUOTED_TILE):
            yield "quoted-printable", tile
    yield "percent-encoded", quote(utf8, safe="").encode()
    yield "form-encoded", quote_plus(utf8).encode()
    yield "JSON", json.dumps(window)[1:-1].encode()


def canary_needles(text: bytes) -> list[tuple[str, bytes]]:
    """All needles of a canary; none if it is too short or nothing in it is distinctive."""
    decoded = text.decode(errors="surrogateescape")
    wide = any(ord(character) > 0xFFFF for character in decoded)
    return [form for window in text_windows(decoded) for form in text_forms(window, wide=wide)]


def secret_needles(secret: bytes) -> list[tuple[str, bytes]]:
    """All needles of a secret: its 16-byte windows in each form, so that a half that was kept is found too.

    None if it is shorter than `SECRET_BYTES_MIN` or so regular that it would be found in any file.
    """
    if len(secret) < SECRET_BYTES_MIN or len(set(secret)) < 5:
        return []
    if len(secret) <= 16:
        windows = [secret]
    else:
        starts = [*range(0, len(secret) - 16, 16), len(secret) - 16]
        windows = [window for start in starts if len(set(window := secret[start : start + 16])) >= 5]
    return [form for window in windows for form in binary_forms(window)]


def decoded_runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What runs of hexadecimal digits and of base64 characters decode to, at each alignment; with where each begins."""
    yield from hexadecimal_runs(data)
    yield from base64_runs(data)


def hexadecimal_runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What runs of 64 and more hexadecimal digits decode to, at both alignments."""
    for match in _HEX_RUN.finditer(data):
        for at, run in _pieces(match):
            for shift in range(2):
                yield at, bytes.fromhex(run[shift : len(run) - (len(run) - shift) % 2].decode())


def base64_runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What runs of 43 and more base64 characters, of either alphabet, decode to at all four alignments."""
    for match in _BASE64_RUN.finditer(data):
        for at, run in _pieces(match):
            characters = run.translate(_URL_SAFE)
            for shift in range(4):
                part = characters[shift:]
                # A rest of one character decodes to nothing; of two or three it needs padding.
                part = part[: len(part) - 1] if len(part) % 4 == 1 else part
                yield at, base64.b64decode(part + b"=" * (-len(part) % 4))


def _pieces(match: re.Match[bytes]) -> Iterator[tuple[int, bytes]]:
    run = match[0]
    for start in range(0, max(1, len(run) - RUN_OVERLAP_CHARS), RUN_CHARS_MAX - RUN_OVERLAP_CHARS):
        yield match.start() + start, run[start : start + RUN_CHARS_MAX]
