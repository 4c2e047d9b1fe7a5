"""What a key search looked at and what it found: figures by part of the disclosure, and hits with their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from audit.keysearch.settings import KeyKind

HITS_MAX: Final = 1_000
"""Kept; all are counted."""


@dataclass(frozen=True, slots=True)
class KeyHit:
    """A key that was found; no byte of it.

    Attributes:
        where: file, byte, address and mapping.
        section: the part of the disclosure.
        path: the file.
        offset: where in the file the key begins, or what holds it, if it was compressed or encoded.
        form: how it stood there.
        kind: what it is.
        whose: what it opens, or whose it is.
        declared: whether the relay says that it has it: its own signing key.
    """

    where: str
    section: str
    path: str
    offset: int
    form: str
    kind: KeyKind
    whose: str
    declared: bool

    @property
    def text(self) -> str:
        """What was found, for a report."""
        form = "" if self.form == "raw" else f", as {self.form}"
        verb = {"content key": "opens", "message key": "opens", "chain key": "leads to the key of"}.get(
            self.kind.value, "of"
        )
        return f"holds a key{form}: {self.kind.value}, {verb} {self.whose}"


@dataclass(slots=True)
class SectionFigures:
    """One part of the disclosure, in numbers.

    Attributes:
        name: the part.
        alignment: of its windows, in bytes.
        bytes_searched: all of its bytes.
        windows: of 32 bytes.
        regular: not tried: too few different bytes for a random key.
        repeated: not tried: another window of the same block has the same bytes.
        decoded: what came out of compressed and encoded forms, bytes by form.
        decoded_windows: windows of that, by form.
        decoded_tried: those of them that were tried, by form.
        left_out: places in forms that were not decoded or tried, beyond the bounds.
    """

    name: str
    alignment: int
    bytes_searched: int = 0
    windows: int = 0
    regular: int = 0
    repeated: int = 0
    decoded: Counter[str] = field(default_factory=Counter)
    decoded_windows: Counter[str] = field(default_factory=Counter)
    decoded_tried: Counter[str] = field(default_factory=Counter)
    left_out: int = 0

    @property
    def tried(self) -> int:
        """Windows as they stand that were tried."""
        return self.windows - self.regular - self.repeated

    def add(self, other: SectionFigures) -> None:
        """Add the figures of a block."""
        self.bytes_searched += other.bytes_searched
        self.windows += other.windows
        self.regular += other.regular
        self.repeated += other.repeated
        self.decoded.update(other.decoded)
        self.decoded_windows.update(other.decoded_windows)
        self.decoded_tried.update(other.decoded_tried)
        self.left_out += other.left_out


@dataclass(frozen=True, slots=True)
class Coverage:
    """The whole search.

    Attributes:
        sections: each part.
        alignment: as asked.
        kinds: what windows were tried as.
        whole: whether all kinds, forms and parts took part.
        targets: how many keys of each sort were known by something public.
        leaks: keys found that the relay must not have, the first `HITS_MAX`, in order of place.
        leak_count: all of them.
        declared: the relay's own keys, which it says that it has and which open no content.
        declared_count: all of them.
        not_possible: kinds that could not be tried, with the reason.
    """

    sections: tuple[SectionFigures, ...]
    alignment: int
    kinds: tuple[KeyKind, ...]
    whole: bool
    targets: Mapping[str, int]
    leaks: tuple[KeyHit, ...] = ()
    leak_count: int = 0
    declared: tuple[KeyHit, ...] = ()
    declared_count: int = 0
    not_possible: tuple[str, ...] = ()

    @property
    def windows(self) -> int:
        """All windows, decoded ones among them."""
        return sum(section.windows + section.decoded_windows.total() for section in self.sections)

    @property
    def tried(self) -> int:
        """All windows tried."""
        return sum(section.tried + section.decoded_tried.total() for section in self.sections)

    @property
    def left_out(self) -> int:
        """Places in compressed and encoded forms that the bounds left out."""
        return sum(section.left_out for section in self.sections)

    def document(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "alignment": self.alignment,
            "kinds": [kind.value for kind in self.kinds],
            "whole": self.whole,
            "targets": dict(self.targets),
            "not_possible": list(self.not_possible),
            "windows": self.windows,
            "tried": self.tried,
            "sections": [
                {
                    "name": section.name,
                    "alignment": section.alignment,
                    "bytes": section.bytes_searched,
                    "windows": section.windows,
                    "regular": section.regular,
                    "repeated": section.repeated,
                    "tried": section.tried,
                    "decoded_bytes": dict(section.decoded),
                    "decoded_windows": dict(section.decoded_windows),
                    "decoded_tried": dict(section.decoded_tried),
                    "left_out": section.left_out,
                }
                for section in self.sections
            ],
            "keys_found": self.leak_count,
            "declared_keys_found": self.declared_count,
        }
