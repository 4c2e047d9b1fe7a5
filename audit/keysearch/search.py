"""`search_keys`: the whole search, block by block over processes, to figures and hits.

Each block is filtered and tried as it stands, then what stands before known public keys, then what it decodes to. Only
one block and its windows are in memory at a time for each process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Final

from audit.case import Case
from audit.keysearch.coverage import HITS_MAX, Coverage, KeyHit, SectionFigures
from audit.keysearch.forms import Budget, Decoded, decoded_of, deflated_at
from audit.keysearch.pool import spread
from audit.keysearch.sections import Section, sections_of
from audit.keysearch.settings import DECODED_BYTES_MAX, DECODED_WINDOWS_MAX, Form, KeyKind, KeySearchSettings
from audit.keysearch.targets import Targets, targets_of
from audit.keysearch.trials import PAIR_BYTES, Hit, Trials, ml_kem_works
from audit.keysearch.windows import KEY_BYTES, candidates_of

BLOCK_HITS_MAX: Final = 100
"""Kept of one block, of leaks and of declared keys each: copies of a key that is allowed must not hide another. All
are counted."""


@dataclass(frozen=True, slots=True)
class _Task:
    section: int
    first: int
    behind: int


@dataclass(frozen=True, slots=True)
class _Found:
    offset: int
    form: str
    hit: Hit


@dataclass(slots=True)
class _Done:
    """What came of a block."""

    section: int
    figures: SectionFigures
    found: dict[bool, list[_Found]] = field(default_factory=lambda: {False: [], True: []})
    """By whether the key is declared."""
    count: Counter[bool] = field(default_factory=Counter)

    def add(self, found: _Found) -> None:
        declared = found.hit.whose.declared
        self.count[declared] += 1
        if len(self.found[declared]) < BLOCK_HITS_MAX:
            self.found[declared].append(found)

    def knows(self, offset: int) -> bool:
        return any(one.offset == offset for found in self.found.values() for one in found)


@dataclass(slots=True)
class _Searcher:
    """What every process inherits."""

    sections: list[Section]
    trials: Trials
    settings: KeySearchSettings

    def search(self, task: _Task) -> _Done:
        """Search the pieces of one block."""
        section = self.sections[task.section]
        done = _Done(task.section, SectionFigures(section.name, section.alignment))
        unbounded = self.settings.unbounded
        budget = Budget(inf if unbounded else DECODED_BYTES_MAX)
        seen: set[bytes] = set()
        pieces = slice(task.first, task.behind)
        for start, end in zip(section.starts[pieces], section.ends[pieces], strict=True):
            self._piece(section, start, end, budget, seen, done)
        done.figures.left_out += budget.streams_left_out + self.trials.content_left_out
        self.trials.content_left_out = 0
        return done

    def _piece(self, section: Section, start: int, end: int, budget: Budget, seen: set[bytes], done: _Done) -> None:
        figures, settings = done.figures, self.settings
        figures.bytes_searched += end - start
        first = start + -start % section.alignment
        block = bytes(section.view[first : end + PAIR_BYTES - 1])
        candidates = candidates_of(block, section.alignment, end - first)
        if Form.RAW in settings.forms:
            figures.windows += candidates.windows
            figures.regular += candidates.regular
            figures.repeated += candidates.repeated
            for hit in self.trials.of_windows(block, candidates.offsets):
                done.add(_Found(first + hit.offset, Form.RAW.value, hit))
            self._pairs(section, start, end, done)
        for decoded in decoded_of(section.view, start, end, settings.forms, budget):
            self._decoded(decoded, seen, done)
        if Form.DEFLATE in settings.forms:
            places = (first + at for at in candidates.offsets)
            for decoded in deflated_at(section.view, places, settings.forms, budget):
                self._decoded(decoded, seen, done)

    def _pairs(self, section: Section, start: int, end: int, done: _Done) -> None:
        """What stands before a public key; the windows that are aligned were tried already."""
        low = max(0, start - KEY_BYTES)
        for hit in self.trials.of_pairs(bytes(section.view[low : end + KEY_BYTES - 1])):
            if not done.knows(low + hit.offset):
                done.add(_Found(low + hit.offset, Form.RAW.value, hit))

    def _decoded(self, decoded: Decoded, seen: set[bytes], done: _Done) -> None:
        """Windows of what came out of a form: every byte begins one, and each is tried once a block."""
        figures, form = done.figures, decoded.forms[0].value
        figures.decoded[form] += len(decoded.data)
        candidates = candidates_of(decoded.data, 1)
        figures.decoded_windows[form] += candidates.windows
        fresh = []
        for at in candidates.offsets:
            # Two of them make a seed of ML-KEM: what follows is part of what was seen.
            window = decoded.data[at : at + PAIR_BYTES]
            if window not in seen:
                if len(seen) >= DECODED_WINDOWS_MAX and not self.settings.unbounded:
                    figures.left_out += 1
                    continue
                seen.add(window)
                fresh.append(at)
        figures.decoded_tried[form] += len(fresh)
        for hit in self.trials.of_windows(decoded.data, fresh):
            done.add(_Found(decoded.offset, decoded.shown, hit))


def search_keys(case: Case, settings: KeySearchSettings) -> Coverage:
    """Search a disclosure for keys that nobody volunteered.

    Args:
        case: the disclosure, opened.
        settings: what to search, and how.

    Raises:
        KeySearchError: a worker ended before its work was done.
    """
    targets = targets_of(case)
    kinds, not_possible = settings.kinds, []
    if KeyKind.ML_KEM in kinds and not ml_kem_works():
        kinds -= {KeyKind.ML_KEM}
        not_possible.append("ML-KEM-768 seeds: the cryptography library at hand has no ML-KEM")
    sections = sections_of(case, settings.alignment, settings.sections)
    searcher = _Searcher(sections, Trials.of(targets, kinds), settings)
    tasks = [
        _Task(number, first, behind)
        for number, section in enumerate(sections)
        for first, behind in section.blocks()
        if settings.places is None or section.holds(settings.places, first, behind)
    ]
    total = sum(sections[task.section].size_of(task.first, task.behind) for task in tasks)
    figures = {section.name: SectionFigures(section.name, section.alignment) for section in sections}
    found: dict[bool, list[tuple[Section, _Found]]] = {False: [], True: []}
    count: Counter[bool] = Counter()
    bytes_done = 0
    if settings.progress:
        settings.progress(0, total)
    for done in spread(tasks, searcher.search, settings.workers):
        section = sections[done.section]
        figures[section.name].add(done.figures)
        count.update(done.count)
        for declared, kept in done.found.items():
            found[declared] += [(section, one) for one in kept]
        bytes_done += done.figures.bytes_searched
        if settings.progress:
            settings.progress(bytes_done, total)
    leaks, own = _hits(case, found[False]), _hits(case, found[True])
    return Coverage(
        sections=tuple(figures.values()),
        alignment=settings.alignment,
        kinds=tuple(kind for kind in KeyKind if kind in kinds),
        whole=settings.whole and not not_possible,
        targets=_counts(targets),
        leaks=tuple(leaks[:HITS_MAX]),
        leak_count=count[False] - len(found[False]) + len(leaks),
        declared=tuple(own[:HITS_MAX]),
        declared_count=count[True] - len(found[True]) + len(own),
        not_possible=tuple(not_possible),
    )


def _hits(case: Case, found: list[tuple[Section, _Found]]) -> list[KeyHit]:
    """In order of place; a key that was found as a window and before its public key is one."""
    told: dict[tuple[str, int, str, KeyKind], KeyHit] = {}
    for section, one in found:
        told.setdefault(
            (section.path, one.offset, one.form, one.hit.kind),
            KeyHit(
                case.place(section.path, one.offset),
                section.name,
                section.path,
                one.offset,
                one.form,
                one.hit.kind,
                one.hit.whose.name,
                one.hit.whose.declared,
            ),
        )
    return sorted(told.values(), key=lambda hit: (hit.path, hit.offset, hit.form, hit.kind.value, hit.whose))


def _counts(targets: Targets) -> dict[str, int]:
    return {
        "key commitments": len(targets.commitments),
        "hints": len(targets.hints),
        "Ed25519 public keys": len(targets.ed25519),
        "X25519 public keys": len(targets.x25519),
        "ML-KEM public keys": len(targets.ml_kem),
    }
