"""What a key search is asked to do: alignment, kinds, forms, parts of the disclosure, processes, bounds.

The bounds hold for each block of `BLOCK_BYTES` by itself, so that what is left out does not depend on how many
processes there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from audit.errors import AuditError

ALIGNMENTS: Final = (8, 4, 1)
WORKERS_MAX: Final = 64
BLOCK_BYTES: Final = 1024 * 1024
"""One step of work: its windows are filtered and tried together, and progress is told after it."""
DECODED_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of what the compressed and encoded forms of one block come to. A bomb reaches it at once."""
DECODED_WINDOWS_MAX: Final = 131_072
"""Windows of them that pass the filter and are tried; about five seconds of work."""

Progress = Callable[[int, int], None]
"""Told of bytes done, and of how many."""


class KeySearchError(AuditError):
    """The search could not be done as asked, or not to its end."""


@unique
class KeyKind(Enum):
    """What a window is tried as; the value is what is printed."""

    MESSAGE = "message key"
    CHAIN = "chain key"
    FILE = "file key"
    HEADER = "header key"
    CONTENT = "content key"
    X25519 = "X25519 private key"
    ED25519 = "Ed25519 seed"
    ML_KEM = "ML-KEM-768 seed"


@unique
class Form(Enum):
    """How the bytes of a window stood there."""

    RAW = "raw"
    HEXADECIMAL = "hexadecimal"
    BASE64 = "base64"
    STREAM = "zlib or gzip"
    DEFLATE = "raw deflate"


SYMMETRIC: Final = frozenset({KeyKind.MESSAGE, KeyKind.CHAIN, KeyKind.FILE, KeyKind.HEADER, KeyKind.CONTENT})
QUICK: Final = SYMMETRIC | {KeyKind.X25519}
"""Without Ed25519 and ML-KEM seeds, which a fourth and a half of the time go to."""


@dataclass(frozen=True, slots=True)
class KeySearchSettings:
    """How to search.

    Attributes:
        alignment: of windows in the memory image and in ciphertext, in bytes: 8, 4 or 1. Elsewhere every byte begins
            one.
        kinds: what windows are tried as.
        forms: how keys may be kept.
        sections: names of the parts to search, None for all.
        places: file and byte: search only the blocks that hold one of these, None for all; what is done to a block
            depends on no other, so a control need not search the rest.
        workers: processes.
        unbounded: whether compressed and encoded forms are searched beyond the bounds.
        progress: told of each block.

    Raises:
        KeySearchError: a number is none of those.
    """

    alignment: int = 8
    kinds: frozenset[KeyKind] = frozenset(KeyKind)
    forms: frozenset[Form] = frozenset(Form)
    sections: frozenset[str] | None = None
    places: frozenset[tuple[str, int]] | None = None
    workers: int = 2
    unbounded: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise KeySearchError("alignment", f"is {self.alignment}, must be 8, 4 or 1")
        if not 1 <= self.workers <= WORKERS_MAX:
            raise KeySearchError("workers", f"is {self.workers}, must be 1 to {WORKERS_MAX}")

    @property
    def whole(self) -> bool:
        """Whether nothing is left out but what the limits of the search say."""
        everything = self.kinds == frozenset(KeyKind) and self.forms == frozenset(Form)
        return everything and self.sections is None and self.places is None
