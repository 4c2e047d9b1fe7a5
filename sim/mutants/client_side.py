"""Clients that cheat: the real client with one function of keys/ replaced, for the time of a `with` block.

Each function here is a context manager; inside it, what people send is protected as the cheat protects it. The relay
is the honest one: it stores what it is given.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import keys.ratchet
from keys.ratchet import Ratchet
from sim.world import replaced
from wire.padding import pad

__all__ = ["CLIENT_CHEATS", "constant_key", "hidden_field", "nonce_reused", "skips_encryption"]

CONSTANT_KEY: Final = bytes(range(32))
"""What `constant_key` encrypts every message under; like the global PIN key, it sits in every copy of such a client."""
CONSTANT_NONCE: Final = bytes(range(24))
HIDDEN_FIELD: Final = b"from=ana@acme.example"
"""21 bytes: a length that takes no body to another size of section 4.4. One that did would be a covert channel that the
verifier cannot see; what a client hides inside of its bodies is an endpoint's matter (docs/controls.md)."""
_TAG_BYTES: Final = 16


@contextlib.contextmanager
def skips_encryption() -> Iterator[None]:
    """Pads, and leaves it at that: the body has the right length, and the text in the clear."""

    def seal(_key: bytes, _associated: bytes, _nonce: bytes, content: bytes) -> bytes:
        return pad(content) + bytes(_TAG_BYTES)

    with replaced(keys.ratchet, "seal_content", seal):
        yield


@contextlib.contextmanager
def constant_key() -> Iterator[None]:
    """A chain that never moves to another message key."""

    def step(chain: bytes) -> tuple[bytes, bytes]:
        return chain, CONSTANT_KEY

    with replaced(keys.ratchet, "chain_step", step):
        yield


@contextlib.contextmanager
def nonce_reused() -> Iterator[None]:
    """A random number generator that gives the same nonce each time, as on a phone that was cloned from an image."""
    encrypt = Ratchet.encrypt

    def with_constant_nonce(ratchet: Ratchet, *arguments: Any, **named: Any) -> bytes:
        entropy = ratchet._entropy
        ratchet._entropy = lambda size: CONSTANT_NONCE if size == len(CONSTANT_NONCE) else entropy(size)
        try:
            return encrypt(ratchet, *arguments, **named)
        finally:
            ratchet._entropy = entropy

    with replaced(Ratchet, "encrypt", with_constant_nonce):
        yield


@contextlib.contextmanager
def hidden_field() -> Iterator[None]:
    """A field behind the ciphertext that no version of the protocol has: it says who sent the envelope."""
    encrypt = Ratchet.encrypt

    def with_field(ratchet: Ratchet, *arguments: Any, **named: Any) -> bytes:
        return encrypt(ratchet, *arguments, **named) + HIDDEN_FIELD

    with replaced(Ratchet, "encrypt", with_field):
        yield


CLIENT_CHEATS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[None]]]] = {
    "skips-encryption": skips_encryption,
    "constant-key": constant_key,
    "nonce-reused": nonce_reused,
    "hidden-field": hidden_field,
}
