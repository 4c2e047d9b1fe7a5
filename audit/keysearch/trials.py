"""Tries windows by what they would open; one function a kind, over all candidates of a block.

message key    its commitment is one of a stored body: one hash and a look-up, however many bodies there are
chain key      stepped `CHAIN_STEPS` times, each message key as above
header key     gives a hint that a stored body begins with, as one of the first `HEADER_HINTS` of its chain
file key       gives the hint of one of the first `FILE_CHUNKS` chunks
X25519         its public half is an identity key, a prekey, an ephemeral key, or an Ed25519 key's in that form
Ed25519        the public half of its seed is an account, device or admin key, or the relay's own
ML-KEM-768     64 bytes, d ‖ z, of which the public key is a prekey
pairs          what stands before a known public key (libsodium keeps an Ed25519 key as seed ‖ public key) or before a
               key commitment (section 4.2 derives both at once), at any position

A hit has no bytes of the key, only where it is and what it opens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from nacl import bindings
from nacl.exceptions import CryptoError

from audit.crypto import (
    CHUNK_OFFSET,
    NONCE,
    ORDINARY_OFFSET,
    SUITE,
    body_kinds,
    label,
)
from audit.keysearch.settings import KeyKind
from audit.keysearch.targets import Targets, Whose
from audit.keysearch.windows import DISTINCT_MIN, KEY_BYTES, Marks
from audit.store import EnvelopeRow

CHAIN_STEPS: Final = 8
HEADER_HINTS: Final = 8
FILE_CHUNKS: Final = 4
PAIR_BYTES: Final = 2 * KEY_BYTES
CONTENT_TRIES_MAX: Final = 4_096
"""Decryptions in one block, of what stands before a copied commitment; what is more is counted."""
_FIRST_HEAD_BYTES: Final = 1250
"""hint to CT and the length of `sealed` (section 4.3)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A window that is a key: where in the block, which kind, and what it opens."""

    offset: int
    kind: KeyKind
    whose: Whose


@dataclass(slots=True)
class Trials:
    """All tries, for one set of targets and kinds.

    Attributes:
        targets: what keys are known by.
        kinds: what windows are tried as.
    """

    targets: Targets
    kinds: frozenset[KeyKind]
    marks: Marks
    content_left_out: int = 0

    @classmethod
    def of(cls, targets: Targets, kinds: frozenset[KeyKind]) -> Trials:
        """Prepare what all blocks share."""
        marks: list[bytes] = []
        if KeyKind.X25519 in kinds or KeyKind.ED25519 in kinds:
            marks += [*targets.x25519, *targets.ed25519]
        if KeyKind.CONTENT in kinds:
            marks += targets.commitments
        return cls(targets, kinds, Marks(marks))

    def of_windows(self, block: bytes, offsets: Sequence[int]) -> Iterator[Hit]:
        """Try the windows of a block that begin at `offsets`."""
        windows = [block[at : at + KEY_BYTES] for at in offsets]
        tries: tuple[tuple[KeyKind, bool, Callable[[list[bytes]], Iterator[tuple[int, Whose]]]], ...] = (
            (KeyKind.MESSAGE, bool(self.targets.commitments), self._messages),
            (KeyKind.CHAIN, bool(self.targets.commitments), self._chains),
            (KeyKind.FILE, self.targets.chunks, self._files),
            (KeyKind.HEADER, bool(self.targets.hints), self._headers),
            (KeyKind.X25519, bool(self.targets.x25519), self._x25519),
            (KeyKind.ED25519, bool(self.targets.ed25519), self._ed25519),
        )
        for kind, possible, find in tries:
            if possible and kind in self.kinds:
                for position, whose in find(windows):
                    yield Hit(offsets[position], kind, whose)
        if KeyKind.ML_KEM in self.kinds and self.targets.ml_kem:
            yield from self._ml_kem(block, offsets)

    def _messages(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        blake2b, commitments = hashlib.blake2b, self.targets.commitments
        for position, window in enumerate(windows):
            commitment = blake2b(key=window, person=b"bp1-message").digest()[32:]
            if commitment in commitments:
                yield position, Whose(f"envelopes row {self.targets.row(commitments[commitment]).seq}")

    def _chains(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        """`ck' ‖ mk = keyed(ck, "bp1-chain", "", 64)` (section 4.2)."""
        blake2b, commitments = hashlib.blake2b, self.targets.commitments
        for position, window in enumerate(windows):
            chain = window
            for step in range(1, CHAIN_STEPS + 1):
                both = blake2b(key=chain, person=b"bp1-chain").digest()
                chain = both[:32]
                commitment = blake2b(key=both[32:], person=b"bp1-message").digest()[32:]
                if commitment in commitments:
                    yield (
                        position,
                        Whose(f"envelopes row {self.targets.row(commitments[commitment]).seq}, after {_steps(step)}"),
                    )
                    break

    def _files(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        blake2b, hints = hashlib.blake2b, self.targets.hints
        numbers = [index.to_bytes(4, "big") for index in range(FILE_CHUNKS)]
        for position, window in enumerate(windows):
            for number in numbers:
                hint = blake2b(number, key=window, person=b"bp1-chunk-hint", digest_size=16).digest()
                if hint in hints:
                    row = self.targets.row(hints[hint])
                    yield position, Whose(f"the chunks of a large message, envelopes row {row.seq} among them")
                    break

    def _headers(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        """`hint(n) = keyed(hk, "bp1-hint", u64(n div 4), 64)[16 (n mod 4) : …]` (section 4.2)."""
        blake2b, hints = hashlib.blake2b, self.targets.hints
        numbers = [index.to_bytes(8, "big") for index in range(HEADER_HINTS // 4)]
        for position, window in enumerate(windows):
            for number in numbers:
                four = blake2b(number, key=window, person=b"bp1-hint").digest()
                found = next((four[at : at + 16] for at in range(0, 64, 16) if four[at : at + 16] in hints), None)
                if found is not None:
                    yield position, Whose(f"the header of envelopes row {self.targets.row(hints[found]).seq}")
                    break

    def _x25519(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        public_of, known = bindings.crypto_scalarmult_base, self.targets.x25519
        for position, window in enumerate(windows):
            public = public_of(window)
            if public in known:
                yield position, known[public]

    def _ed25519(self, windows: list[bytes]) -> Iterator[tuple[int, Whose]]:
        pair_of, known = bindings.crypto_sign_seed_keypair, self.targets.ed25519
        for position, window in enumerate(windows):
            public = pair_of(window)[0]
            if public in known:
                yield position, known[public]

    def _ml_kem(self, block: bytes, offsets: Sequence[int]) -> Iterator[Hit]:
        """Seeds are d ‖ z: the second half must look random too."""
        known = self.targets.ml_kem
        for at in offsets:
            pair = block[at : at + PAIR_BYTES]
            if len(pair) == PAIR_BYTES and len(set(pair[KEY_BYTES:])) >= DISTINCT_MIN:
                public = MLKEM768PrivateKey.from_seed_bytes(pair).public_key().public_bytes_raw()
                if public in known:
                    yield Hit(at, KeyKind.ML_KEM, known[public])

    # -------------------------------------------------------------------------------------------------------- pairs

    def of_pairs(self, block: bytes) -> Iterator[Hit]:
        """Try what stands before public keys and commitments, at every position of a block."""
        tries = 0
        for at in self.marks.places(block):
            if at < KEY_BYTES:
                continue
            value, before = block[at : at + KEY_BYTES], block[at - KEY_BYTES : at]
            yield from (Hit(at - KEY_BYTES, kind, whose) for kind, whose in self._private(before))
            position = self.targets.commitments.get(value)
            if position is None or KeyKind.CONTENT not in self.kinds:
                continue
            row = self.targets.row(position)
            if before[16:] == row.body_head[:16]:
                # A commitment behind its own hint is the body itself, as it was stored.
                continue
            if tries >= CONTENT_TRIES_MAX:
                self.content_left_out += 1
                continue
            tries += len(self.targets.devices)
            if self._opens(before, row):
                yield Hit(at - KEY_BYTES, KeyKind.CONTENT, Whose(f"envelopes row {row.seq}"))

    def _private(self, window: bytes) -> Iterator[tuple[KeyKind, Whose]]:
        if KeyKind.X25519 in self.kinds:
            public = bindings.crypto_scalarmult_base(window)
            if public in self.targets.x25519:
                yield KeyKind.X25519, self.targets.x25519[public]
        if KeyKind.ED25519 in self.kinds or KeyKind.X25519 in self.kinds:
            public = bindings.crypto_sign_seed_keypair(window)[0]
            if public in self.targets.ed25519:
                yield KeyKind.ED25519, self.targets.ed25519[public]

    def _opens(self, key: bytes, row: EnvelopeRow) -> bool:
        """Whether an AEAD key opens a body, from whichever device of the directory it came."""
        store, recipient = self.targets.store, self.targets.devices.get(row.mailbox)
        if store is None or recipient is None:
            return False
        body = store.body(row)
        for offset in _content_offsets(body):
            for sender in set(self.targets.devices.values()):
                named = label("message") + SUITE.to_bytes(2, "big") + sender + recipient + row.envelope_id
                try:
                    bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                        body[offset:], named + body[:offset], body[NONCE], key
                    )
                except (CryptoError, ValueError):
                    # Not this sender, this offset, or this key.
                    continue
                return True
        return False


def _content_offsets(body: bytes) -> list[int]:
    """Where content begins in a body of this size (section 4.3)."""
    kinds = body_kinds(len(body))
    offsets = {"ordinary": ORDINARY_OFFSET, "chunk": CHUNK_OFFSET}
    found = [offsets[kind] for kind in kinds if kind in offsets]
    if "first" in kinds:
        found.append(_FIRST_HEAD_BYTES + int.from_bytes(body[_FIRST_HEAD_BYTES - 2 : _FIRST_HEAD_BYTES], "big"))
    return [offset for offset in found if offset < len(body)]


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def ml_kem_works() -> bool:
    """Whether the library at hand has ML-KEM-768: without it these seeds cannot be tried, and that is said."""
    try:
        MLKEM768PrivateKey.from_seed_bytes(bytes(PAIR_BYTES))
    except UnsupportedAlgorithm:
        return False
    return True
