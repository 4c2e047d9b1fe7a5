"""No escrowed key: nothing outside of bodies is a key that opens something (protocol.md sections 4.2 and 4.3).

Because the AEAD is made committing, a search for message keys costs one hash for each candidate:
`commitment_of(candidate)` is looked up among the commitments of all bodies. So every 32-byte window outside of bodies
can be tried. Private halves of known public keys cost a scalar multiplication each, so there the candidates are those
that can be: decoded hexadecimal and base64, the configuration, and what is unexplained.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Final

from nacl import bindings

from audit import disclosure as names
from audit.case import THOROUGH, Case
from audit.checks.directory import known_public_keys
from audit.crypto import commitment_of
from audit.encodings import decoded_runs
from audit.outcome import About, Outcome

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
WINDOWS_MAX: Final = 50_000_000
"""At some 1.3 microseconds each; a store of ten devices has about a million. `thorough` lifts both bounds."""
PRIVATE_MAX: Final = 50_000
"""At some 60 microseconds each; an honest configuration and log have a few hundred."""
_ZEROS = re.compile(rb"\0{32,}")


@dataclass(slots=True)
class _Search:
    """Tries candidates within the bounds, and reports each key once."""

    case: Case
    outcome: Outcome
    commitments: dict[bytes, int]
    public_keys: dict[bytes, str]
    windows_max: float
    private_max: float
    windows: int = 0
    windows_left_out: Counter[str] = field(default_factory=Counter)
    private: int = 0
    private_left_out: Counter[str] = field(default_factory=Counter)
    told: set[bytes] = field(default_factory=set)

    @staticmethod
    def _leave_out(left_out: Counter[str], path: str, count: int) -> None:
        if count:
            left_out[path] += count

    def try_region(self, path: str, start: int, region: bytes) -> None:
        """Every window of a region as a message key, and what its hexadecimal and base64 decode to as any key."""
        position = 0
        for zeros in _ZEROS.finditer(region):
            self.try_windows(path, start + position, region[position : zeros.start() + KEY_BYTES - 1])
            position = max(position, zeros.end() - KEY_BYTES + 1)
        self.try_windows(path, start + position, region[position:])
        for at, decoded in decoded_runs(region):
            self.try_windows(path, start + at, decoded, inside=True)
            self.try_private(path, start + at, decoded, inside=True)

    def try_windows(self, path: str, start: int, data: bytes, *, inside: bool = False) -> None:
        """Every window as a message key; `inside`: the bytes were decoded from a run that begins at `start`."""
        if not self.commitments:
            return
        count = max(0, len(data) - KEY_BYTES + 1)
        allowed = int(min(count, self.windows_max - self.windows))
        self.windows += allowed
        self._leave_out(self.windows_left_out, path, count - allowed)
        commitments, commit = self.commitments, commitment_of
        for i in range(allowed):
            row = commitments.get(commit(data[i : i + KEY_BYTES]))
            if row is not None and data[i : i + KEY_BYTES] not in self.told:
                self.told.add(data[i : i + KEY_BYTES])
                where = self.case.place(path, start if inside else start + i)
                self.outcome.fail(where, f"holds the message key that opens envelopes row {row}")

    def try_private(self, path: str, start: int, data: bytes, *, inside: bool = False) -> None:
        """Every window as an X25519 private key and as an Ed25519 seed."""
        count = max(0, len(data) - KEY_BYTES + 1)
        allowed = int(min(count, self.private_max - self.private))
        self.private += allowed
        self._leave_out(self.private_left_out, path, count - allowed)
        for i in range(allowed):
            window = data[i : i + KEY_BYTES]
            for public in (bindings.crypto_scalarmult_base(window), bindings.crypto_sign_seed_keypair(window)[0]):
                if public in self.public_keys and window not in self.told:
                    self.told.add(window)
                    where = self.case.place(path, start if inside else start + i)
                    self.outcome.fail(where, f"holds the private half of {self.public_keys[public]}")


def check(case: Case, outcome: Outcome) -> None:
    """Try all candidates, the small files first."""
    commitments = {row.commitment: row.seq for row in case.store.envelopes} if case.store else {}
    windows_max, private_max = (inf, inf) if case.thorough else (WINDOWS_MAX, PRIVATE_MAX)
    search = _Search(case, outcome, commitments, known_public_keys(case), windows_max, private_max)
    for path in (names.CONFIG, names.CARD, names.LOG, names.MANIFEST):
        if path in case.disclosure.files:
            data = case.disclosure.small(path)
            search.try_region(path, 0, data)
            if path == names.CONFIG:
                search.try_private(path, 0, data)
    if case.store is None:
        outcome.miss("a store that can be read")
    else:
        for (start, end), _ in case.store.unexplained:
            search.try_private(names.STORE, start, bytes(case.store.data[start:end]))
        for start, end in case.store.outside_ciphertext():
            search.try_region(names.STORE, start, bytes(case.store.data[start:end]))
    # What was not tried may be what matters: a relay could fill a bound with rubbish, so this is no mere remark.
    for left_out, bound, what in (
        (search.windows_left_out, windows_max, "message keys"),
        (search.private_left_out, private_max, "private keys"),
    ):
        for path, count in left_out.items():
            outcome.miss(f"{path}: {count:,} candidates for {what}, beyond the bound of {bound:,}; {THOROUGH}")
    outcome.figures.update(
        {
            "candidates as message keys": search.windows,
            "commitments": len(commitments),
            "candidates as private keys": search.private,
            "known public keys": len(search.public_keys),
        }
    )
    outcome.evidence = (
        f"{search.windows:,} candidates against {len(commitments):,} key commitments, {search.private:,} against "
        f"{len(search.public_keys):,} public keys: {outcome.finding_count} keys found"
    )
