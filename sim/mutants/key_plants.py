"""Keys that a relay keeps in memory (relay_keys.py): which, where they are in the image, and what the search must say.

At each place there is one key of each kind: a message key of a waiting envelope, the chain key one step before it, and
a device's X25519 and Ed25519 private keys. The image is read here plainly, key by key; a control of one of these counts
only if the search names each of the four at its place. It then searches only the blocks of the image that hold them:
what it does to a block depends on no other.
"""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from audit import Report
from audit.disclosure import IMAGE
from audit.keysearch import Form, KeyKind, KeySearchSettings
from audit.keysearch.trials import CHAIN_STEPS
from sim.mutants.proofs import CheatFailed, Proof, Scene
from sim.mutants.relay_keys import MASK, OUT_OF_REACH, PLACES
from sim.world import Evidence

__all__ = ["KINDS", "Plants", "TWIN_SEARCH", "far_chain_key_is_held", "key_search_of", "masked_keys", "plants_of"]

KINDS: Final = (KeyKind.MESSAGE, KeyKind.CHAIN, KeyKind.X25519, KeyKind.ED25519)
TWIN_SEARCH: Final = KeySearchSettings(kinds=frozenset({KeyKind.MESSAGE}), workers=1)
"""What the honest relay with its memory image is searched for, whole: the kind that costs least, since the demo waits
for it. `prove all` and `prove keysearch` search an honest relay for every kind."""
_RUN_BYTES: Final = 64
"""How far a run of digits may begin before a key: a hit in a run is told with where the run begins."""
_FORMS: Final = {
    "keys-mid-heap": Form.RAW,
    "keys-in-freed-block": Form.RAW,
    "keys-in-thread-stack": Form.RAW,
    "keys-as-hexadecimal": Form.HEXADECIMAL,
    "keys-as-base64": Form.BASE64,
    "keys-in-zlib": Form.STREAM,
}
_SETS: Final = {"keys-mid-heap": 0, "keys-in-freed-block": 1, "keys-in-thread-stack": 2}
"""Raw keys differ from place to place, so that none is found for another; encoded ones are told by their form."""
_ZLIB_HEADER: Final = b"\x78\x9c"


def _keys_of(evidence: Evidence, name: str) -> dict[KeyKind, bytes]:
    number = _SETS.get(name, 3)
    message_key = evidence.openings[number][3]
    assert isinstance(message_key, bytes)
    device_seed, identity_key = evidence.private_keys[number]
    found = (message_key, evidence.chains[message_key], identity_key, device_seed)
    return dict(zip(KINDS, found, strict=True))


def masked_keys(evidence: Evidence, cheat: str) -> dict[str, object]:
    """What a cheating relay is given."""
    if cheat == OUT_OF_REACH:
        return {"far_chain_key": _masked(far_chain_key(evidence))}
    return {"planted": {name: [_masked(key) for key in _keys_of(evidence, name).values()] for name in PLACES}}


def _masked(key: bytes) -> str:
    return bytes(byte ^ mask for byte, mask in zip(key, MASK, strict=True)).hex()


# ---- where they are


@dataclass(frozen=True)
class Plants:
    """What one cheat keeps.

    Attributes:
        name: the mutant's.
        form: how it keeps them.
        offsets: of each kind, every place in the image; with a form, where the run or stream begins or shortly behind.
    """

    name: str
    form: Form
    offsets: dict[KeyKind, tuple[int, ...]]

    def missed(self, report: Report) -> str:
        """Which kind the search did not name at any of its places; empty if it named all."""
        hits = report.key_coverage.leaks if report.key_coverage else ()
        slack = 0 if self.form in {Form.RAW, Form.STREAM} else _RUN_BYTES
        for kind, offsets in self.offsets.items():
            if not any(
                hit.kind is kind and hit.form == self.form.value and 0 <= at - hit.offset <= slack
                for hit in hits
                for at in offsets
            ):
                return f"the {kind.value} at byte {offsets[0]:,} was not named"
        return ""


def plants_of(scene: Scene, name: str) -> Plants:
    """Find the keys in the image.

    Raises:
        CheatFailed: one of them is not there.
    """
    form, keys = _FORMS[name], _keys_of(scene.evidence, name)
    offsets = dict(zip(keys, _all_places(scene.served.folder / IMAGE, tuple(keys.values()), form), strict=True))
    for kind, places in offsets.items():
        if not places:
            raise CheatFailed(f"memory/image.bin holds no {kind.value} as {form.value}")
    return Plants(name, form, offsets)


@lru_cache(maxsize=8)
def _all_places(path: Path, keys: tuple[bytes, ...], form: Form) -> tuple[tuple[int, ...], ...]:
    """Where each key is; remembered, since the proof, the search and the verdict on it ask for the same."""
    image = path.read_bytes()
    return tuple(tuple(_places(image, key, form)) for key in keys)


def _places(image: bytes, key: bytes, form: Form) -> Iterator[int]:
    if form is Form.STREAM:
        for at in _occurrences(image, _ZLIB_HEADER):
            try:
                inflated = zlib.decompressobj().decompress(image[at : at + 4_096])
            except zlib.error:
                # Two bytes that only look like a header.
                continue
            if key in inflated:
                yield at
        return
    written = {Form.RAW: key, Form.HEXADECIMAL: key.hex().encode(), Form.BASE64: base64.b64encode(key)}
    for at in _occurrences(image, written[form]):
        if form is not Form.RAW or at % 8 == 0:
            yield at


def _occurrences(data: bytes, piece: bytes) -> Iterator[int]:
    at = data.find(piece)
    while at >= 0:
        yield at
        at = data.find(piece, at + 1)


def image_holds_keys(name: str) -> Proof:
    """The proof of one of the places: each key stands in the image, and raw ones nowhere on the disk."""

    def proof(scene: Scene) -> str:
        plants = plants_of(scene, name)
        told = ", ".join(f"{kind.value} at byte {offsets[0]:,}" for kind, offsets in plants.offsets.items())
        return f"memory/image.bin holds, as {plants.form.value}: {told}"

    return proof


def key_search_of(scene: Scene, name: str) -> KeySearchSettings | None:
    """The search for what a mutant keeps: its form, and the blocks that hold it; None if it keeps no keys."""
    if name == OUT_OF_REACH:
        at = scene.read(Path(IMAGE)).find(far_chain_key(scene.evidence))
        return KeySearchSettings(places=frozenset({(IMAGE, at)}), workers=1)
    if name not in PLACES:
        return None
    plants = plants_of(scene, name)
    places = frozenset((IMAGE, at) for offsets in plants.offsets.values() for at in offsets)
    return KeySearchSettings(kinds=frozenset(KINDS), forms=frozenset({plants.form}), places=places, workers=1)


# ---- out of reach


def far_chain_key(evidence: Evidence) -> bytes:
    """The chain key before the first of the messages that were withdrawn: nine steps before the first that waits."""
    return next(iter(evidence.chains.values()))


def far_chain_key_is_held(scene: Scene) -> str:
    """The image holds it, and nine steps lead to the key of a waiting envelope."""
    chain = far_chain_key(scene.evidence)
    image = scene.served.folder / IMAGE
    at = image.read_bytes().find(chain) if image.exists() else -1
    if at < 0:
        raise CheatFailed("memory/image.bin does not hold the chain key")
    message_key = b""
    for _ in range(CHAIN_STEPS + 1):
        both = blake2b(digest_size=64, key=chain, person=b"bp1-chain").digest()
        chain, message_key = both[:32], both[32:]
    if message_key not in {opening[3] for opening in scene.evidence.openings}:
        raise CheatFailed("nine steps do not lead to the key of a waiting envelope")
    return f"memory/image.bin holds at byte {at:,} a chain key that opens a waiting envelope after nine steps"
