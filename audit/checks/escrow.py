"""No escrowed key: nothing outside of bodies is a key that opens something (protocol.md sections 4.2 and 4.3).

Because the AEAD is made committing, a search for message keys costs one hash for each candidate:
`commitment_of(candidate)` is looked up among the commitments of all bodies. So every 32-byte window outside of bodies
can be tried. Private halves of known public keys cost a scalar multiplication each, so there the candidates are those
that can be: decoded hexadecimal and base64, the configuration, and what is unexplained.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from nacl import bindings

from audit import disclosure as names
from audit.case import Case
from audit.checks.directory import known_public_keys
from audit.crypto import commitment_of
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
WINDOWS_MAX: Final = 2_000_000
"""At some 1.3 microseconds each; a store of ten devices has about a million."""
PRIVATE_MAX: Final = 10_000
RAW_PRIVATE_BYTES_MAX: Final = 4_096
RUN_BYTES_MAX: Final = 65_536
_HEX_RUN = re.compile(rb"[0-9A-Fa-f]{64,}")
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{43,}")
_ZEROS = re.compile(rb"\0{32,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(slots=True)
class _Search:
    """Tries candidates within the bounds, and reports each key once."""

    case: Case
    outcome: Outcome
    commitments: dict[bytes, int]
    public_keys: dict[bytes, str]
    windows: int = 0
    windows_left_out: int = 0
    private: int = 0
    private_left_out: int = 0
    told: set[bytes] = field(default_factory=set)

    def try_region(self, path: str, start: int, region: bytes) -> None:
        """Every window of a region as a message key, and what its hexadecimal and base64 decode to as any key."""
        position = 0
        for zeros in _ZEROS.finditer(region):
            self.try_windows(path, start + position, region[position : zeros.start() + KEY_BYTES - 1])
            position = max(position, zeros.end() - KEY_BYTES + 1)
        self.try_windows(path, start + position, region[position:])
        for at, decoded in _decoded_runs(region):
            self.try_windows(path, start + at, decoded, inside=True)
            self.try_private(path, start + at, decoded, inside=True)

    def try_windows(self, path: str, start: int, data: bytes, *, inside: bool = False) -> None:
        """Every window as a message key; `inside`: the bytes were decoded from a run that begins at `start`."""
        if not self.commitments:
            return
        count = max(0, len(data) - KEY_BYTES + 1)
        allowed = min(count, WINDOWS_MAX - self.windows)
        self.windows += allowed
        self.windows_left_out += count - allowed
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
        allowed = min(count, PRIVATE_MAX - self.private)
        self.private += allowed
        self.private_left_out += count - allowed
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
    search = _Search(case, outcome, commitments, known_public_keys(case))
    for path in (names.CONFIG, names.CARD, names.LOG, names.MANIFEST):
        if path in case.disclosure.files:
            data = case.disclosure.small(path)
            search.try_region(path, 0, data)
            if path == names.CONFIG:
                search.try_private(path, 0, data[:RAW_PRIVATE_BYTES_MAX])
    if case.store is None:
        outcome.miss("a store that can be read")
    else:
        for (start, end), _ in case.store.unexplained:
            search.try_private(names.STORE, start, bytes(case.store.data[start:end])[:RAW_PRIVATE_BYTES_MAX])
        for start, end in case.store.outside_ciphertext():
            search.try_region(names.STORE, start, bytes(case.store.data[start:end]))
    if search.windows_left_out:
        outcome.note(f"{search.windows_left_out:,} windows beyond the bound of {WINDOWS_MAX:,} as message keys")
    if search.private_left_out:
        outcome.note(f"{search.private_left_out:,} candidates beyond the bound of {PRIVATE_MAX:,} as private keys")
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


def _decoded_runs(region: bytes) -> Iterator[tuple[int, bytes]]:
    """Decode runs of hexadecimal digits and of base64 characters, at each alignment; with where each run begins."""
    for match in _HEX_RUN.finditer(region):
        run = match[0][:RUN_BYTES_MAX]
        for shift in range(2):
            yield match.start(), bytes.fromhex(run[shift : len(run) - (len(run) - shift) % 2].decode())
    for match in _BASE64_RUN.finditer(region):
        run = match[0][:RUN_BYTES_MAX].translate(_URL_SAFE)
        for shift in range(4):
            part = run[shift:]
            # A rest of one character decodes to nothing; of two or three it needs padding.
            part = part[: len(part) - 1] if len(part) % 4 == 1 else part
            yield match.start(), base64.b64decode(part + b"=" * (-len(part) % 4))
