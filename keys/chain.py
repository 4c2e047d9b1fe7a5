"""The derivations of the ratchet: root, chain, hints, and the keys of messages that have not come (protocol.md 4.2).

Functions only; which key is current, and when a key is erased, is the state machine's business (keys/ratchet.py).
"""

from hashlib import blake2b
from typing import Final, NamedTuple

from keys.agreement import hkdf
from keys.errors import GapTooLarge
from wire.hashing import label
from wire.limits import SKIPPED_KEYS_PER_GAP_MAX

__all__ = ["Skipped", "chain_step", "hint", "hint_block", "root_step", "skip_keys"]

_ROOT_LABEL: Final = label("ratchet-root")


def root_step(root: bytes, shared: bytes) -> tuple[bytes, bytes, bytes]:
    """KDF_RK: the next root key, a chain key and the next header key from a Diffie-Hellman result."""
    okm = hkdf(shared, root, _ROOT_LABEL, 96)
    return okm[:32], okm[32:64], okm[64:]


def chain_step(chain: bytes) -> tuple[bytes, bytes]:
    """KDF_CK: the next chain key and the message key."""
    both = blake2b(digest_size=64, key=chain, person=b"bp1-chain").digest()
    return both[:32], both[32:]


def hint_block(header_key: bytes, block: int) -> bytes:
    """The four hints of numbers 4 × block to 4 × block + 3, one hash, 64 bytes."""
    return blake2b(block.to_bytes(8, "big"), digest_size=64, key=header_key, person=b"bp1-hint").digest()


def hint(header_key: bytes, n: int) -> bytes:
    """The hint of message n under a header key, 16 bytes."""
    start = 16 * (n & 3)
    return hint_block(header_key, n >> 2)[start : start + 16]


class Skipped(NamedTuple):
    """The key of a message that has not come yet."""

    header_key: bytes
    n: int
    message_key: bytes
    stored_s: int

    def __repr__(self) -> str:
        return f"Skipped(n={self.n}, stored_s={self.stored_s}, keys=<redacted>)"


def skip_keys(header_key: bytes, chain: bytes, n: int, until: int, now_s: int) -> tuple[bytes, dict[bytes, Skipped]]:
    """Advance a chain from n to `until`, keeping the keys passed.

    Raises:
        GapTooLarge: more than 1,000 at once.
    """
    if until - n > SKIPPED_KEYS_PER_GAP_MAX:
        raise GapTooLarge(until - n, SKIPPED_KEYS_PER_GAP_MAX)
    skipped: dict[bytes, Skipped] = {}
    block, hints = -1, b""
    while n < until:
        if block != n >> 2:
            block = n >> 2
            hints = hint_block(header_key, block)
        chain, message_key = chain_step(chain)
        start = 16 * (n & 3)
        skipped[hints[start : start + 16]] = Skipped(header_key, n, message_key, now_s)
        n += 1
    return chain, skipped
