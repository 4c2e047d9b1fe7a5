"""Proof that a cheat worked: each function finds the leak in the disclosure by itself, without the verifier.

A control whose cheat leaves nothing to find shows nothing when it is caught. So the bytes are read here, plainly, and
what was found is told in a line; `CheatFailed` says that there was nothing.
"""

import base64
import contextlib
import sqlite3
import tomllib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from relay.core.mailboxes import tombstone_key
from sim.historical import GLOBAL_PIN_KEY, read_message
from sim.mutants.client_side import HIDDEN_FIELD
from sim.world import Evidence, Served
from wire.card import RelayCard
from wire.codec import decode
from wire.envelope import envelope_id_of
from wire.errors import BlindpostError
from wire.identity import SignedList, verify_signed_list

__all__ = ["CheatFailed", "Proof", "Scene"]

_STORE: Final = Path("store", "store.sqlite")
_LOG: Final = Path("log", "relay.log")
_CONFIG: Final = Path("config", "relay.toml")
_IMAGE: Final = Path("memory", "image.bin")


class CheatFailed(BlindpostError):
    """The cheat left nothing to find: the control shows nothing."""


@dataclass(frozen=True)
class Scene:
    """A disclosure that was cheated with, and what the people of its world know."""

    served: Served
    evidence: Evidence

    def read(self, path: Path) -> bytes:
        """A file of the disclosure."""
        return (self.served.folder / path).read_bytes()

    @property
    def text(self) -> str:
        """A text that somebody sent."""
        return self.evidence.canaries[-1].text

    @property
    def device_seed(self) -> bytes:
        """A device's private key."""
        return _device_seed(self.evidence)

    @contextlib.contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """The disclosed store, opened to be read."""
        address = f"file:{self.served.folder / _STORE}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            yield connection

    def bodies(self) -> list[bytes]:
        """The bodies of all rows."""
        with self.store() as db:
            return [body for (body,) in db.execute("SELECT body FROM envelopes ORDER BY seq")]


Proof = Callable[[Scene], str]


def _device_seed(evidence: Evidence) -> bytes:
    return next(iter(evidence.secrets.values()))[0][1]


def _must(found: object, what: str) -> str:
    if not found:
        raise CheatFailed(f"not so: {what}")
    return what


def _offset(data: bytes, needle: bytes, what: str) -> str:
    at = data.find(needle)
    return _must(at >= 0, f"{what} at byte {at:,}")


# ---- texts


def log_holds(scene: Scene) -> str:
    """The text stands in the log."""
    return _offset(scene.read(_LOG), scene.text.encode(), "log/relay.log holds the text")


def log_holds_base64(scene: Scene) -> str:
    """The last word of the log decodes to the text."""
    last = scene.read(_LOG).rsplit(b"id=", 1)[-1].split()[0]
    return _must(scene.text.encode() in base64.b64decode(last), "the id of the log's last line decodes to the text")


def log_numbers_spell(scene: Scene) -> str:
    """The counts of refusals, one after the other, are the text."""
    counts = [int(line.rsplit(b"=", 1)[1]) for line in scene.read(_LOG).splitlines() if b" refused code=6 " in line]
    data = b"".join(count.to_bytes((count.bit_length() + 7) // 8, "big") for count in counts)
    return _must(scene.text.encode() in data, f"{len(counts)} counts in log/relay.log spell the texts")


def seqs_spell(scene: Scene) -> str:
    """The row numbers of mailboxes are the beginning of the text."""
    with scene.store() as db:
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM mailboxes ORDER BY seq")]
    data = b"".join((seq & 0xFFFFFFFFFF).to_bytes(5, "big") for seq in seqs)
    return _must(scene.text.encode().startswith(data), f"{len(seqs)} row numbers spell {len(data)} bytes of the text")


def store_holds_pieces(scene: Scene) -> str:
    """Pieces of the text are nonces, and nowhere does it stand as a whole."""
    text = scene.text.encode()
    _must(text not in scene.read(_STORE), "store/store.sqlite does not hold it as a whole")
    with scene.store() as db:
        nonces = [nonce.rstrip(b"\0") for (nonce,) in db.execute("SELECT nonce FROM used_tokens")]
    pieces = sum(nonce in text for nonce in nonces)
    return _must(pieces * 12 >= len(text), f"{pieces} nonces of used activations are pieces of the text")


def prekey_inflates_to_text(scene: Scene) -> str:
    """A prekey inflates to the texts."""
    with scene.store() as db:
        records = [record for (record,) in db.execute("SELECT record FROM prekeys WHERE kind = 3")]
    inflated = b""
    for record in records:
        with contextlib.suppress(zlib.error):
            inflated += zlib.decompressobj(-15).decompress(record)
    return _must(scene.text.encode() in inflated, "a one-time prekey inflates to the texts")


def image_holds(scene: Scene) -> str:
    """The text stands in the memory image, and nowhere on the disk."""
    for path in (_LOG, _STORE, _CONFIG):
        _must(scene.text.encode() not in scene.read(path), f"{path} is free of it")
    return _offset(scene.read(_IMAGE), scene.text.encode(), "memory/image.bin holds the text")


def store_inflates_to_text(scene: Scene) -> str:
    """The cheat's table inflates to the texts."""
    with scene.store() as db:
        (value,) = db.execute("SELECT value FROM cache").fetchone()
    return _must(scene.text.encode() in zlib.decompress(value), "the table cache inflates to the texts")


def store_holds_utf16(scene: Scene) -> str:
    """No row has it, and the file does."""
    with scene.store() as db:
        _must(db.execute("SELECT count(*) FROM relay").fetchone()[0] == 3, "the row is deleted")
        (pages,) = db.execute("PRAGMA freelist_count").fetchone()
    found = _offset(scene.read(_STORE), scene.text.encode("utf-16-le"), "store.sqlite holds the text as UTF-16")
    return _must(pages, f"{found}, among {pages} free pages")


def store_holds_second_copy(scene: Scene) -> str:
    """The file has the bytes of a body twice, and one row has them."""
    parts = [body[256:320] for body in scene.bodies()]
    data = scene.read(_STORE)
    twice = sum(data.count(part) > 1 for part in parts)
    return _must(twice and len(set(parts)) == len(parts), f"{twice} bodies stand in store.sqlite a second time")


def rows_hold_text(scene: Scene) -> str:
    """Bodies have texts in the clear."""
    texts = [canary.text.encode() for canary in scene.evidence.canaries]
    count = sum(any(text in body for text in texts) for body in scene.bodies())
    return _must(count, f"{count} bodies hold the text in the clear")


def pin_key_opens(scene: Scene) -> str:
    """The key of any handset reads what was meant for another."""
    texts = [read_message(body, GLOBAL_PIN_KEY).payload.decode() for body in scene.bodies()]
    return _must(scene.text in texts, f"one handset's key reads all {len(texts)} messages")


# ---- keys


def log_holds_device_seed(scene: Scene) -> str:
    """The key stands in the log."""
    return _offset(scene.read(_LOG), scene.device_seed.hex().encode(), "log/relay.log holds the key")


def config_holds_device_seed(scene: Scene) -> str:
    """The key stands in the configuration."""
    return _offset(scene.read(_CONFIG), scene.device_seed.hex().encode(), "config/relay.toml holds the key")


def image_holds_device_seed(scene: Scene) -> str:
    """The key stands in the memory image."""
    return _offset(scene.read(_IMAGE), scene.device_seed, "memory/image.bin holds the key")


def store_holds_message_key(scene: Scene) -> str:
    """A message key stands in the store."""
    key = scene.evidence.openings[0][3]
    assert isinstance(key, bytes)
    return _offset(scene.read(_STORE), key, "store.sqlite holds a message key")


def rows_share_commitment(scene: Scene) -> str:
    """Bodies have one key commitment."""
    (_, count), *_ = Counter(body[16:48] for body in scene.bodies()).most_common(1)
    return _must(count > 1, f"{count} bodies are under one key")


def rows_share_nonce(scene: Scene) -> str:
    """Bodies have one nonce."""
    (_, count), *_ = Counter(body[48:72] for body in scene.bodies()).most_common(1)
    return _must(count > 1, f"{count} bodies have one nonce")


# ---- what should not be there


def columns_differ(scene: Scene) -> str:
    """The column is there and filled."""
    with scene.store() as db:
        (sender,) = db.execute("SELECT sender FROM envelopes LIMIT 1").fetchone()
    return _must("@" in sender, f"envelopes.sender names {sender}")


def rows_end_with_field(scene: Scene) -> str:
    """Bodies end with the field."""
    count = sum(body.endswith(HIDDEN_FIELD) for body in scene.bodies())
    return _must(count, f"{count} bodies end with the field {HIDDEN_FIELD.decode()!r}")


def file_is_not_named(scene: Scene) -> str:
    """The file is there, and the manifest does not name it."""
    extra = scene.served.folder / "store" / "index.bin"
    named = b"store/index.bin" in scene.read(Path("manifest.msgpack"))
    return _must(
        extra.is_file() and not named, f"store/index.bin, {extra.stat().st_size:,} bytes, is not in the manifest"
    )


def log_is_not_the_signed_one(scene: Scene) -> str:
    """The log's hash is not in the manifest."""
    digest = sha256(scene.read(_LOG)).digest()
    return _must(digest not in scene.read(Path("manifest.msgpack")), "the log's SHA-256 is not in the manifest")


def module_is_listed(scene: Scene) -> str:
    """The manifest lists the module."""
    return _must(b"keys.ratchet" in scene.read(Path("manifest.msgpack")), "the relay has loaded keys.ratchet")


def date_is_before_the_order(scene: Scene) -> str:
    """The manifest's date is long before the moment at which it was asked for."""
    manifest, _, _ = decode(tuple[bytes, bytes, bytes], scene.read(Path("manifest.msgpack")), "manifest")
    taken_at = decode(list[Any], manifest, "manifest")[2]
    asked_at = tomllib.loads((scene.served.order or b"").decode())["requested_at"]
    return _must(taken_at + 3_000 < asked_at, f"dated {asked_at - taken_at} s before it was asked for")


def device_is_unsigned(scene: Scene) -> str:
    """The newest list does not verify, and has a device more than its account has."""
    with scene.store() as db:
        (stored,) = db.execute("SELECT signed_list FROM lists ORDER BY seq DESC LIMIT 1").fetchone()
    signed = decode(SignedList, stored, "signed list")
    devices: list[Any] = decode(list[Any], signed.list, "device list")[4]
    try:
        verify_signed_list(signed)
    except BlindpostError:
        return _must(len(devices) > 1, f"a list with {len(devices)} devices that its account did not sign")
    raise CheatFailed("the list verifies")


# ---- receipts


def _receipts(scene: Scene) -> dict[tuple[bytes, bytes], bytes]:
    """(mailbox, envelope id) to body hash, of every receipt that people hold."""
    items: list[Any] = [item for held in scene.evidence.receipts.values() for item in held]
    return {(item[3], item[4]): item[9] for item in items}


def _rows(scene: Scene) -> dict[tuple[bytes, bytes], bytes]:
    with scene.store() as db:
        rows = db.execute("SELECT mailbox, envelope_id, body FROM envelopes").fetchall()
    return {(mailbox, envelope_id): sha256(body).digest() for mailbox, envelope_id, body in rows}


def _expected(scene: Scene) -> dict[tuple[bytes, bytes], bytes]:
    """What the relay has receipted and nobody has acknowledged: the rows that the openings name."""
    receipts = _receipts(scene)
    items: list[Any] = scene.evidence.openings
    return {(item[1], item[2]): receipts[item[1], item[2]] for item in items}


def receipted_row_is_gone(scene: Scene) -> str:
    """A receipt that nobody acknowledged names a row that is not there."""
    gone = _expected(scene).keys() - _rows(scene).keys()
    return _must(gone, f"{len(gone)} of {len(_expected(scene))} receipted envelopes are not in the store")


def receipted_body_differs(scene: Scene) -> str:
    """A row has another body than its receipt."""
    rows = _rows(scene)
    other = [name for name, digest in _expected(scene).items() if name in rows and rows[name] != digest]
    return _must(other, f"{len(other)} rows have another body than the relay receipted")


def tombstones_are_gone(scene: Scene) -> str:
    """Somebody holds a receipt of an envelope that is neither there nor tombstoned, and no tombstone is left at all."""
    with scene.store() as db:
        (stones,) = db.execute("SELECT count(*) FROM tombstones").fetchone()
    gone = _receipts(scene).keys() - _rows(scene).keys()
    return _must(gone and not stones, f"{len(gone)} receipted envelopes are gone, and there is no tombstone")


def tombstone_has_another_token(scene: Scene) -> str:
    """A tombstone's t does not lead to its key."""
    with scene.store() as db:
        stones = db.execute("SELECT key, mailbox, token FROM tombstones WHERE reason = 1").fetchall()
    false = [key for key, mailbox, token in stones if tombstone_key(mailbox, envelope_id_of(token)) != key]
    return _must(false, f"{len(false)} of {len(stones)} tombstones have a t that is not their envelope's")


def receipted_row_expired_early(scene: Scene) -> str:
    """A receipted envelope is gone without a tombstone, days before its expiry."""
    gone = _expected(scene).keys() - _rows(scene).keys()
    items: list[Any] = [item for held in scene.evidence.receipts.values() for item in held]
    expiries = [item[5] for item in items if (item[3], item[4]) in gone]
    asked_at = tomllib.loads((scene.served.order or b"").decode())["requested_at"]
    left_s = min(expiries, default=0) - asked_at
    return _must(left_s > 86_400, f"{len(gone)} envelopes are gone {left_s // 86_400} days before they end")


def earlier_chain_differs(scene: Scene) -> str:
    """The two disclosures have another commit under one index."""
    earlier = scene.served.earlier
    _must(earlier is not None, "there is an earlier disclosure")
    chains = []
    for folder in (earlier, scene.served.folder):
        address = f"file:{Path(str(folder)) / _STORE}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            chains.append(dict(db.execute("SELECT idx, header FROM commits")))
    other = [index for index, header in chains[0].items() if chains[1].get(index, header) != header]
    return _must(other, f"commit {min(other, default=0)} is another one in the second disclosure")


def chain_is_shorter(scene: Scene) -> str:
    """The store ends before a commit that somebody holds a receipt of."""
    with scene.store() as db:
        (head,) = db.execute("SELECT max(idx) FROM commits").fetchone()
    return _must(receipted_row_is_gone(scene), f"the store ends with commit {head}; {receipted_row_is_gone(scene)}")


def manifest_is_not_the_cards(scene: Scene) -> str:
    """The manifest names another signing key than the card, and no rotation leads there."""
    _, key, _ = decode(tuple[bytes, bytes, bytes], scene.read(Path("manifest.msgpack")), "manifest")
    card = RelayCard.from_toml(scene.served.card.decode())
    return _must(
        key != card.signing_key, f"signed by {key.hex()[:16]}…, the card's key is {card.signing_key.hex()[:16]}…"
    )
