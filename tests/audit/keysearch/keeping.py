"""An honest relay whose memory image a test fills, and the search over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from nacl import bindings

from audit.case import open_case
from audit.disclosure import Disclosure
from audit.keysearch import Coverage, KeySearchSettings, search_keys
from audit.material import read_card, read_material
from tests.audit.honest import HonestRelay, Letter, keyed, pack

MEMORY_SECTIONS = frozenset({"memory, heap", "memory, anonymous"})
GAP_BYTES = 64
LEAD_BYTES = 8_192


def searched(relay: HonestRelay, folder: Path, *, items: list[list[Any]] | None = None, **settings: Any) -> Coverage:
    """Disclose, and search the memory image, or what the settings say, in this process."""
    relay.disclose(folder / "disclosure")
    volunteered = [relay.volunteer(items)] if items else []
    options = {"workers": 1, "sections": MEMORY_SECTIONS, **settings}
    with Disclosure(folder / "disclosure") as disclosure:
        case = open_case(disclosure, read_card(relay.card, "card"), read_material(volunteered, [], []))
        try:
            return search_keys(case, KeySearchSettings(**options))
        finally:
            # The store's view is let go so that the mapping can close.
            case.store = None


def chain_before(relay: HonestRelay, steps: int) -> tuple[bytes, Letter]:
    """A chain key, and a letter of which it gives the message key after that many steps; the letter is committed."""
    chain = first = relay.draw(32)
    message_key = b""
    for _ in range(steps):
        both = keyed(chain, "bp1-chain", b"", 64)
        chain, message_key = both[:32], both[32:]
    letter = relay.write(b"said in a chain", message_key=message_key)
    relay.commit(letter)
    return first, letter


def image_with(relay: HonestRelay, *residents: bytes) -> list[int]:
    """Have the relay's memory hold these, each from a multiple of 8 on; returns where."""
    image, places = bytearray(LEAD_BYTES), []
    for resident in residents:
        places.append(len(image))
        image += resident + bytes(-len(resident) % 8 + GAP_BYTES)
    image += bytes(-len(image) % 4_096)
    relay.image = lambda: bytes(image)  # type: ignore[method-assign]
    return places


def add_prekey(relay: HonestRelay) -> tuple[bytes, bytes]:
    """Give the first person a one-time prekey; returns its X25519 private key and its ML-KEM seed."""
    person = relay.people[0]
    secret, seed, prekey_id = relay.draw(32), relay.draw(64), relay.draw(16)
    public = bindings.crypto_scalarmult_base(secret)
    kem = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    signature = person.device_key.sign("one-time-prekey", prekey_id + b"\x03" + public + b"\x06" + kem)
    person.prekeys.append((3, prekey_id, pack([prekey_id, public, kem, signature])))
    return secret, seed
