"""Cheats that nobody can see who looks at a disclosure: the limits of the claim, run so that they are no mere words.

Each is a real leak, read here from what it leaves behind, and the verifier finds the relay BLIND all the same. The
relay's cheats run in a process of their own (relay_unseen.py), the clients' replace one function of the real client.
docs/controls.md shows this list to readers; docs/claims.md says what it means.
"""

import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import replace
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

import client.outbox
from client.content import Content, encode_content
from client.outbox import Outbox
from keys.ratchet import Ratchet
from sim.mutants.catalogue import Side
from sim.mutants.key_plants import far_chain_key_is_held
from sim.mutants.outside import arrived
from sim.mutants.proofs import CheatFailed, Proof, Scene
from sim.world import replaced
from wire.envelope import FIRST_OVERHEAD_BYTES, ORDINARY_OVERHEAD_BYTES, envelope_id_of
from wire.limits import BODY_BYTES_MAX, ID_BYTES, SEALED_STEP_BYTES, SEALED_STEPS_MAX
from wire.padding import padded_length, padme_lengths

__all__ = ["KEPT_ELSEWHERE", "UNSEEN", "UNSEEN_CLIENT_CHEATS", "Unseen"]

_MASK: Final = bytes.fromhex("8f1c6a3be05d924713ac77de20f9481b65d3520eb9c40a7f3866e1950b7cda2f")
"""What the clients' accomplice knows: without it the bytes look as random as they should be."""
KEPT_ELSEWHERE: Final = "what a relay made up its mail with, on another machine"
_SIZES: Final = padme_lengths(BODY_BYTES_MAX)
_DIGITS: Final = 2
_NONCE: Final = slice(48, 72)


@dataclass(frozen=True)
class Unseen:
    """One cheat that no check can be asked to catch.

    Attributes:
        name: as in relay_unseen.py or in `UNSEEN_CLIENT_CHEATS`.
        side: who cheats.
        cheat: what it does.
        stands_for: the real case behind it.
        why: why a disclosure cannot show it, and what could.
        proof: reads the leak, or raises `CheatFailed`.
    """

    name: str
    side: Side
    cheat: str
    stands_for: str
    why: str
    proof: Proof


# ---- clients that cheat: what they hide is masked, for an accomplice at the relay


def _masked(data: bytes) -> bytes:
    return bytes(byte ^ mask for byte, mask in zip(data, _MASK, strict=False))


@contextlib.contextmanager
def text_in_nonces() -> Iterator[None]:
    """The nonce of each body is the end of its text, masked."""
    encrypt = Ratchet.encrypt

    def with_told_nonce(ratchet: Ratchet, content: bytes, *arguments: Any, **named: Any) -> bytes:
        entropy = ratchet._entropy
        ratchet._entropy = lambda size: _masked(content[-size:]) if size == 24 else entropy(size)
        try:
            return encrypt(ratchet, content, *arguments, **named)
        finally:
            ratchet._entropy = entropy

    with replaced(Ratchet, "encrypt", with_told_nonce):
        yield


@contextlib.contextmanager
def key_in_ids() -> Iterator[None]:
    """Ack tokens are tried until the id of the envelope begins with two bytes of the device's private key, masked."""
    plan = Outbox._plan_device
    drawn: Counter[bytes] = Counter()

    def with_tried_tokens(outbox: Outbox, *arguments: Any) -> None:
        state = outbox._state
        draw, seed = state.random, state.keys.signing.seed

        def tried(size: int) -> bytes:
            if size != ID_BYTES:
                return draw(size)
            wanted = _piece(seed, drawn[seed])
            drawn[seed] += 1
            while envelope_id_of(token := draw(size))[:2] != wanted:
                pass
            return token

        state.random = tried
        try:
            plan(outbox, *arguments)
        finally:
            state.random = draw

    with replaced(Outbox, "_plan_device", with_tried_tokens):
        yield


def _piece(seed: bytes, at: int) -> bytes:
    start = 2 * at % len(seed)
    return bytes(a ^ b for a, b in zip(seed[start : start + 2], _MASK[start : start + 2], strict=True))


@contextlib.contextmanager
def digits_in_padding() -> Iterator[None]:
    """Spaces behind each text, until the padded size is the one whose place in the list of sizes is its last digits."""

    def stretched(content: Content) -> bytes:
        if not (digits := _last_digits(content.payload)):
            return encode_content(content)
        encoded = encode_content(content)
        while _SIZES.index(padded_length(len(encoded))) % 10**_DIGITS != int(digits):
            content = replace(content, payload=content.payload + b" " * 8)
            encoded = encode_content(content)
        return encoded

    with replaced(client.outbox, "encode_content", stretched):
        yield


def _last_digits(text: bytes) -> bytes:
    """The last digits of a text of the world, which ends with a number and a full stop."""
    digits = text.rstrip()[-1 - _DIGITS : -1]
    return digits if digits.isdigit() else b""


UNSEEN_CLIENT_CHEATS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[None]]]] = {
    "text-in-nonces": text_in_nonces,
    "key-in-ids": key_in_ids,
    "digits-in-padding": digits_in_padding,
}


# ---- reading what they leaked


def _must(found: object, what: str) -> str:
    if not found:
        raise CheatFailed(f"not so: {what}")
    return what


def _chats(scene: Scene) -> list[bytes]:
    """The texts that travelled as chats: all canaries but the first, which was a mail."""
    return [canary.text.encode() for canary in scene.evidence.canaries[1:]]


def resolver_was_told(scene: Scene) -> str:
    """The labels of each query, in hexadecimal, are a text."""
    told = set()
    for query in arrived(scene.served.folder.parent):
        labels, at = b"", 12
        while size := query[at]:
            labels += query[at + 1 : at + 1 + size]
            at += 1 + size
        told.add(bytes.fromhex(labels.decode()))
    texts = {canary.text.encode() for canary in scene.evidence.canaries}
    return _must(told and told == texts, f"{len(told)} names that a resolver was asked for spell the texts")


def other_machine_has_bodies(scene: Scene) -> str:
    """What arrived is the bodies, one after the other."""
    copy, bodies = b"".join(arrived(scene.served.folder.parent)), b"".join(scene.bodies())
    return _must(bodies and copy == bodies, f"{len(bodies):,} bytes of bodies lie on another machine")


def mail_was_made_up(scene: Scene) -> str:
    """One body opens with a key that no device ever had, and is a text."""
    key = sha256(KEPT_ELSEWHERE.encode()).digest()
    found = []
    for body in scene.bodies():
        with contextlib.suppress(CryptoError):
            found.append(crypto_aead_xchacha20poly1305_ietf_decrypt(body, None, bytes(24), key).rstrip(b"\0"))
    return _must(scene.text.encode() in found, f"{len(found)} envelope that nobody sent holds a text")


def link_counts_spell(scene: Scene) -> str:
    """The numbers of links, two bytes each, are a text."""
    numbers = [int(line.rpartition(b"=")[2]) for line in _log(scene) if b" linked links=" in line]
    data = b"".join(number.to_bytes(2, "big") for number in numbers)
    return _must(scene.text.encode() in data.replace(b"\0", b""), f"{len(numbers)} numbers of links spell a text")


def times_spell(scene: Scene) -> str:
    """The seconds between equal lines, as bits, begin a text."""
    last = _log(scene)[-65:]
    seconds = [int(line[17:19]) for line in last]
    bits = "".join("1" if after != before else "0" for before, after in itertools.pairwise(seconds))
    data = int(bits or "0", 2).to_bytes(8, "big")
    return _must(scene.text.encode().startswith(data), "the seconds of 65 lines spell the beginning of a text")


def nonces_end_texts(scene: Scene) -> str:
    """Each nonce of a chat's body, unmasked, is the end of its text."""
    found = {_masked(body[_NONCE]) for body in scene.bodies()}
    ended = sum(any(text.endswith(end) for end in found) for text in _chats(scene))
    return _must(ended == len(_chats(scene)), f"the nonces of {ended} bodies are the ends of their texts")


def ids_spell_keys(scene: Scene) -> str:
    """Each id begins with two masked bytes of a private key."""
    seeds = [seed for secrets in scene.evidence.secrets.values() for _, seed in secrets]
    pieces = {_piece(seed, at) for seed in seeds for at in range(16)}
    with scene.store() as db:
        ids = _ids(db)
    found = sum(envelope_id[:2] in pieces for envelope_id in ids)
    return _must(ids and found == len(ids), f"{found} envelope ids begin with bytes of a device's private key")


def _ids(db: sqlite3.Connection) -> list[bytes]:
    return [envelope_id for (envelope_id,) in db.execute("SELECT envelope_id FROM envelopes ORDER BY seq")]


def sizes_spell_digits(scene: Scene) -> str:
    """The place of each body's size in the list of sizes is the last digits of a text."""
    overheads = [ORDINARY_OVERHEAD_BYTES]
    overheads += [FIRST_OVERHEAD_BYTES + SEALED_STEP_BYTES * steps for steps in range(1, SEALED_STEPS_MAX + 1)]
    places = [
        {_SIZES.index(size) % 10**_DIGITS for overhead in overheads if (size := len(body) - overhead) in _SIZES}
        for body in scene.bodies()
    ]
    texts = _chats(scene)
    told = _told(texts, places)
    return _must(told == len(texts), f"the sizes of {told} bodies are the last two digits of their texts")


def _told(texts: Sequence[bytes], places: Sequence[set[int]]) -> int:
    return sum(any(int(_last_digits(text)) in places_of_body for places_of_body in places) for text in texts)


def _log(scene: Scene) -> list[bytes]:
    return (scene.served.folder / "log" / "relay.log").read_bytes().splitlines()


UNSEEN: Final = (
    Unseen(
        "dns-lookups",
        Side.RELAY,
        "looks up names whose labels are the texts, at a resolver that others read",
        "malware and data loss over DNS, which passes most firewalls",
        "nothing of it is in what is handed over; a capture of all that leaves the machine would show it",
        resolver_was_told,
    ),
    Unseen(
        "copy-elsewhere",
        Side.RELAY,
        "sends each body to another machine before it is erased here",
        "a lawful-access copy at the next provider; ciphertext that waits for a key",
        "a disclosure is of one machine; that the copy opens nothing is what C1, C3 and C4 say of it",
        other_machine_has_bodies,
    ),
    Unseen(
        "made-up-mail",
        Side.RELAY,
        "commits an envelope that nobody sent, whose body is a text under a key that it keeps elsewhere",
        "a server that encrypts to itself what it was told to keep",
        "ciphertext under any key looks the same; nobody holds its receipt; only its recipient can find it strange",
        mail_was_made_up,
    ),
    Unseen(
        "links-in-log",
        Side.RELAY,
        "writes a text into its log as numbers of links, two bytes a line",
        "a covert channel in statistics",
        "any number up to 65,535 may be true; docs/verifier.md says how much room such numbers are",
        link_counts_spell,
    ),
    Unseen(
        "times-in-log",
        Side.RELAY,
        "writes a text into the seconds at which it writes lines, a bit a line",
        "a timing channel",
        "an honest relay writes at any second as well; only the clock of somebody who watches it work would tell",
        times_spell,
    ),
    Unseen(
        "chain-key-out-of-reach",
        Side.MEMORY,
        "holds a chain key nine steps before the first message that still waits",
        "a session key that was taken long before the messages that it opens",
        "the search steps each candidate 8 times; each step more costs as much again for every window",
        far_chain_key_is_held,
    ),
    Unseen(
        "text-in-nonces",
        Side.CLIENT,
        "puts the end of each text in the place of the nonce, masked for an accomplice",
        "the access field of the Clipper chip (1993), hidden",
        "masked bytes look like random ones; an endpoint's matter",
        nonces_end_texts,
    ),
    Unseen(
        "key-in-ids",
        Side.CLIENT,
        "tries tokens until the envelope's id begins with two bytes of its private key, masked",
        "subliminal channels in signatures and identifiers (Simmons, 1984)",
        "ids are hashes and look random; an endpoint's matter",
        ids_spell_keys,
    ),
    Unseen(
        "digits-in-padding",
        Side.CLIENT,
        "puts spaces behind a text until its padded size stands for two of its digits",
        "traffic that was shaped to carry a mark, as watermarks in anonymity networks",
        "padded sizes are declared leakage, and every one of them is allowed; an endpoint's matter",
        sizes_spell_digits,
    ),
)
