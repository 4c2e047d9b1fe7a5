"""No escrowed key: nothing outside of bodies is a key that opens something (protocol.md sections 4.2 and 4.3).

Because the AEAD is made committing, a search for message keys costs one hash for each candidate:
`commitment_of(candidate)` is looked up among the commitments of all bodies. So every 32-byte window outside of bodies
can be tried. Private halves of known public keys cost a scalar multiplication each, so there the candidates are those
that can be: decoded hexadecimal and base64, the configuration, and what is unexplained.

The work is cut into pieces and spread over processes, which share the store and send back what they found.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np
from nacl import bindings
from numpy.typing import NDArray

from audit import disclosure as names
from audit.case import THOROUGH, Case
from audit.checks.directory import known_public_keys
from audit.encodings import decoded_runs
from audit.errors import AuditError
from audit.keysearch.pool import spread
from audit.outcome import About, Outcome
from audit.rows import Words

ABOUT = About(
    "search.keys",
    "no escrowed key: nothing outside of the bodies opens one",
    "No 32 bytes in store, log, configuration or manifest, as they stand or in hexadecimal or base64, are a "
    "message key of a stored "
    "body, and none that could be one is the private half of a known public key.",
    "Keys kept in another encoding, in pieces, under a key of the relay's own, or only in memory (there "
    "volunteered keys are searched for).",
    "4.2, 4.3",
)
KEY_BYTES: Final = 32
WINDOWS_MAX: Final = 2_000_000_000
"""At some 0.8 microseconds each, divided by the processes: a store of 1,000,000 envelopes and 100,000 devices has 110
million, one of 10,000 devices with all their prekeys 900 million. `thorough` lifts both bounds."""
PRIVATE_MAX: Final = 50_000
"""At some 60 microseconds each, in each file and each piece of work; an honest configuration and log have a few
hundred."""
WORK_BYTES: Final = 2 * 1024 * 1024
"""What one piece of work has to look at."""
HITS_MAX: Final = 1_000
"""Kept of one piece of work."""
DISTINCT_MIN: Final = 12
"""A key drawn at random has fewer different bytes with a probability of 1e-16, so it is none."""
BATCH_WINDOWS: Final = 8_192
_PERSON: Final = b"bp1-message"
_TABLE_BITS: Final = 24
_ZEROS = re.compile(rb"\0{32,}")


class _Commitments:
    """Tells which of many hashes are key commitments of bodies: 24 bytes an envelope, where a dict takes 200.

    A table of the first 24 bits turns away nearly all, a search among sorted words the rest, and the store itself has
    the last word.
    """

    def __init__(self, case: Case) -> None:
        self._rows = case.store.envelopes if case.store is not None else ()
        words: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        if case.store is not None and len(case.store.envelopes):
            words = np.ascontiguousarray(case.store.envelopes.heads()[:, 16:24]).view(np.uint64)[:, 0]
        self._order = np.argsort(words, kind="stable")
        self._words = words[self._order]
        self._table = np.zeros(1 << _TABLE_BITS if len(words) else 0, dtype=bool)
        self._table[(words >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)] = True

    def __len__(self) -> int:
        return len(self._words)

    def found(self, hashes: list[bytes]) -> Iterator[tuple[int, int]]:
        """Positions of hashes (64 bytes: encryption key and commitment) that are a body's, with that row's number."""
        words = np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 8)[:, 4]
        near = np.flatnonzero(self._table[(words >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)])
        low = np.searchsorted(self._words, words[near], "left")
        high = np.searchsorted(self._words, words[near], "right")
        for at in np.flatnonzero(low < high).tolist():
            position = int(near[at])
            for place in range(int(low[at]), int(high[at])):
                row = self._rows[int(self._order[place])]
                if row.commitment == hashes[position][KEY_BYTES:]:
                    yield position, row.seq
                    break


@dataclass(frozen=True, slots=True)
class _Work:
    """Parts of a file that one process looks at."""

    path: str
    bounds: Words
    """Start and end of each."""
    behind: int = 0
    """How many bytes behind a part belong to it as well, for windows that begin in it."""
    windows: int = 0
    whole_as_private: bool = False


@dataclass(slots=True)
class _Done:
    """What came of it."""

    path: str
    windows: int = 0
    private: int = 0
    private_left_out: int = 0
    found: list[tuple[int, bytes, str]] = field(default_factory=list)
    """Place, a hash of the key, and whose it is."""

    def add(self, offset: int, key: bytes, text: str) -> None:
        """Keep a key that was found, if there are not too many already; never the key itself."""
        if len(self.found) < HITS_MAX:
            self.found.append((offset, hashlib.sha256(key).digest(), text))


class _Searcher:
    """Tries candidates; forked workers share what it has."""

    def __init__(self, case: Case, private_max: float) -> None:
        self._case = case
        self._commitments = _Commitments(case)
        self.public_keys = known_public_keys(case)
        self._private_max = private_max

    def search(self, work: _Work) -> _Done:
        """Look at some parts of a file."""
        done = _Done(work.path)
        view = self._case.disclosure.files[work.path]
        keys: list[bytes] = []
        firsts: list[int] = []
        places: list[tuple[int, int]] = []
        for start, end in work.bounds.tolist():
            region = bytes(view[start : end + work.behind])
            for at, step, windows in self._windows(region, end - start, start, done):
                firsts.append(len(keys))
                places.append((at, step))
                keys += windows
                if len(keys) >= BATCH_WINDOWS:
                    self._try(keys, firsts, places, done)
                    keys, firsts, places = [], [], []
            if work.whole_as_private:
                self._try_private(region, start, 1, done)
        self._try(keys, firsts, places, done)
        return done

    def _windows(self, region: bytes, starts: int, offset: int, done: _Done) -> Iterator[tuple[int, int, list[bytes]]]:
        """Candidates of a region: as they stand, without long zeros, and in hexadecimal and base64."""
        if len(self._commitments):
            position = 0
            for zeros in _ZEROS.finditer(region):
                yield from _cut(region, position, min(starts, zeros.start()), offset, 1)
                position = max(position, zeros.end() - KEY_BYTES + 1)
            yield from _cut(region, position, starts, offset, 1)
        for at, decoded in decoded_runs(region):
            if at < starts:
                if len(self._commitments):
                    yield from _cut(decoded, 0, len(decoded), offset + at, 0)
                self._try_private(decoded, offset + at, 0, done)

    def _try(self, keys: list[bytes], firsts: Sequence[int], places: Sequence[tuple[int, int]], done: _Done) -> None:
        if not keys:
            return
        done.windows += len(keys)
        blake2b = hashlib.blake2b
        hashes = [blake2b(key=key, person=_PERSON).digest() for key in keys]
        for position, row in self._commitments.found(hashes):
            batch = bisect_right(firsts, position) - 1
            at, step = places[batch]
            done.add(
                at + step * (position - firsts[batch]),
                keys[position],
                f"the message key that opens envelopes row {row}",
            )

    def _try_private(self, data: bytes, offset: int, step: int, done: _Done) -> None:
        """Every window as an X25519 private key and as an Ed25519 seed."""
        count = max(0, len(data) - KEY_BYTES + 1)
        allowed = int(min(count, self._private_max - done.private))
        done.private += allowed
        done.private_left_out += count - allowed
        for i in range(allowed):
            window = data[i : i + KEY_BYTES]
            if len(set(window)) < DISTINCT_MIN:
                continue
            for public in (bindings.crypto_scalarmult_base(window), bindings.crypto_sign_seed_keypair(window)[0]):
                if public in self.public_keys:
                    done.add(offset + step * i, window, f"the private half of {self.public_keys[public]}")


def _cut(data: bytes, start: int, end: int, offset: int, step: int) -> Iterator[tuple[int, int, list[bytes]]]:
    """The windows of 32 bytes that begin from `start` on and before `end`, not too many at once, with their place."""
    end = min(end, len(data) - KEY_BYTES + 1)
    for first in range(start, end, BATCH_WINDOWS):
        last = min(end, first + BATCH_WINDOWS)
        yield offset + step * first, step, [data[i : i + KEY_BYTES] for i in range(first, last)]


def check(case: Case, outcome: Outcome) -> None:
    """Try all candidates, the small files first."""
    windows_max, private_max = (inf, inf) if case.thorough else (WINDOWS_MAX, PRIVATE_MAX)
    searcher = _Searcher(case, private_max)
    if case.store is None:
        outcome.miss("a store that can be read")
    left_out: Counter[str] = Counter()
    tasks, planned = [], 0
    for work in _plan(case):
        if planned >= windows_max:
            left_out[work.path] += work.windows
            continue
        planned += work.windows
        tasks.append(work)
    try:
        results = list(spread(tasks, searcher.search, os.cpu_count() or 1))
    except AuditError as error:
        outcome.miss(str(error))
        return
    told = set()
    private_left_out: Counter[str] = Counter()
    for done in sorted(results, key=lambda done: (done.path != names.CONFIG, done.path, done.found[:1])):
        private_left_out[done.path] += done.private_left_out
        for offset, key_hash, text in sorted(done.found):
            if key_hash not in told:
                told.add(key_hash)
                outcome.fail(case.place(done.path, offset), f"holds {text}")
    # What was not tried may be what matters: a relay could fill a bound with rubbish, so this is no mere remark.
    for counts, bound, what in (
        (left_out, windows_max, "message keys"),
        (private_left_out, private_max, "private keys"),
    ):
        for path, count in counts.items():
            if count:
                outcome.miss(f"{path}: {count:,} candidates for {what}, beyond the bound of {bound:,}; {THOROUGH}")
    windows, private = sum(done.windows for done in results), sum(done.private for done in results)
    commitments, public_keys = len(case.store.envelopes) if case.store else 0, len(searcher.public_keys)
    outcome.figures.update(
        {
            "candidates as message keys": windows,
            "commitments": commitments,
            "candidates as private keys": private,
            "known public keys": public_keys,
        }
    )
    outcome.evidence = (
        f"{windows:,} candidates against {commitments:,} key commitments, {private:,} against "
        f"{public_keys:,} public keys: {outcome.finding_count} keys found"
    )


def _plan(case: Case) -> Iterator[_Work]:
    """Everything outside of bodies, in pieces of work."""
    for path in (names.CONFIG, names.CARD, names.LOG, names.MANIFEST):
        if path not in case.disclosure.files:
            continue
        size = len(case.disclosure.files[path])
        starts = np.arange(0, size, names.BLOCK_BYTES, dtype=np.int64)
        for start in starts.tolist():
            end = min(size, start + names.BLOCK_BYTES)
            yield _Work(path, _one(start, end), names.OVERLAP_BYTES, end - start, path == names.CONFIG)
    if case.store is None:
        return
    for (start, end), _ in case.store.unexplained:
        yield _Work(names.STORE, _one(start, end), 0, 0, True)
    bounds = case.store.bounds_outside_ciphertext()
    # Windows lie in a part as a whole, but for parts that are long, and are cut with an overlap.
    bounds = _shortened(bounds)
    totals = np.cumsum(bounds[:, 1] - bounds[:, 0])
    cuts: Words | list[int] = (
        np.searchsorted(totals, np.arange(WORK_BYTES, int(totals[-1]) + WORK_BYTES, WORK_BYTES)) if len(bounds) else []
    )
    first = 0
    for last in cuts:
        if int(last) >= first:
            part = bounds[first : int(last) + 1]
            windows = int(np.maximum(part[:, 1] - part[:, 0] - KEY_BYTES + 1, 0).sum())
            yield _Work(names.STORE, part, 0, windows)
            first = int(last) + 1


def _one(start: int, end: int) -> Words:
    return np.array([[start, end]], dtype=np.int64)


def _shortened(bounds: Words) -> Words:
    """Cut parts of more than `WORK_BYTES`, each with an overlap that no window and no run of hexadecimal is lost in."""
    long = bounds[:, 1] - bounds[:, 0] > WORK_BYTES
    if not long.any():
        return bounds
    pieces = [bounds[~long]]
    for start, end in bounds[long].tolist():
        starts = np.arange(start, end, WORK_BYTES, dtype=np.int64)
        pieces.append(np.column_stack((starts, np.minimum(starts + WORK_BYTES + names.OVERLAP_BYTES, end))))
    whole = np.concatenate(pieces)
    return whole[np.argsort(whole[:, 0], kind="stable")]
