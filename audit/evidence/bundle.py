"""The file that carries evidence against a relay to a third party (protocol.md section 14).

    ["blindpost/v1/evidence", kind, [relay_id, signing_key, partition], [rotation, …], [receipt, …],
     [[header, signature], …], [[manifest file, card file, store file or empty], …], subject, [rotation, …]]

Everything in it is what the relay signed, or follows from that by hashes; nothing in it is the word of whoever made the
file. Each kind of evidence needs certain parts and takes no others, so that a bundle has one form. Rules: canonical
MessagePack, bounded sizes, no secrets: an ack token is never part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final

from audit import decoder
from audit.errors import DecodeError
from audit.manifest import MANIFEST_BYTES_MAX, ROTATIONS_MAX
from audit.material import CARD_BYTES_MAX, ReceiptItem

MAGIC: Final = "blindpost/v1/evidence"
BUNDLE_BYTES_MAX: Final = 64 * 1024 * 1024
STORE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A larger store is not carried along: the manifest names its hash, and the reader brings the disclosure."""
_ROTATION_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Parts:
    """How many parts of each sort a kind of evidence has."""

    receipts: int = 0
    headers: int = 0
    disclosures: int = 0
    stores: bool = False
    subject: bool = False
    other_rotations: bool = False


@unique
class Kind(Enum):
    """What a relay is convicted of."""

    FORKED = "forked"
    UNLINKED = "unlinked"
    REVERSED = "time-reversed"
    TRUNCATED = "truncated"
    HEAD_FORKED = "head-forked"
    DATED_BACK = "dated-back"
    SHORTENED = "shortened"
    HEADS_FORKED = "heads-forked"
    COMMIT_LEFT_OUT = "commit-left-out"
    HIDDEN = "hidden"
    SWAPPED = "swapped"
    INVENTED_ACK = "invented-ack"
    INVENTED_CLOSURE = "invented-closure"
    REVIVED = "revived"
    TOMBSTONE_CHANGED = "tombstone-changed"
    KEYS_FORKED = "keys-forked"

    @property
    def parts(self) -> Parts:
        """What a bundle of this kind is made of."""
        return _PARTS[self]


_TWO_HEADERS: Final = Parts(headers=2)
_ONE_DISCLOSURE: Final = Parts(headers=1, disclosures=1)
_TWO_DISCLOSURES: Final = Parts(disclosures=2)
_OF_AN_ENVELOPE: Final = Parts(receipts=1, disclosures=1, stores=True)
_OF_A_TOMBSTONE: Final = Parts(disclosures=2, stores=True, subject=True)
_PARTS: Final = {
    Kind.FORKED: _TWO_HEADERS,
    Kind.UNLINKED: _TWO_HEADERS,
    Kind.REVERSED: _TWO_HEADERS,
    Kind.TRUNCATED: _ONE_DISCLOSURE,
    Kind.HEAD_FORKED: _ONE_DISCLOSURE,
    Kind.DATED_BACK: _ONE_DISCLOSURE,
    Kind.SHORTENED: _TWO_DISCLOSURES,
    Kind.HEADS_FORKED: _TWO_DISCLOSURES,
    Kind.COMMIT_LEFT_OUT: _OF_AN_ENVELOPE,
    Kind.HIDDEN: _OF_AN_ENVELOPE,
    Kind.SWAPPED: _OF_AN_ENVELOPE,
    Kind.INVENTED_ACK: _OF_AN_ENVELOPE,
    Kind.INVENTED_CLOSURE: _OF_AN_ENVELOPE,
    Kind.REVIVED: _OF_A_TOMBSTONE,
    Kind.TOMBSTONE_CHANGED: _OF_A_TOMBSTONE,
    Kind.KEYS_FORKED: Parts(other_rotations=True),
}


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A commit header as the relay signed it."""

    header: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a bundle holds of a disclosure: the manifest file, the card that it names, and the store or nothing."""

    manifest: bytes
    card: bytes
    store: bytes = b""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One accusation and what it rests on."""

    kind: Kind
    relay_id: bytes
    signing_key: bytes
    partition: int
    rotations: tuple[bytes, ...] = ()
    receipts: tuple[ReceiptItem, ...] = ()
    headers: tuple[SignedHeader, ...] = ()
    disclosures: tuple[HandedOver, ...] = ()
    subject: bytes = b""
    other_rotations: tuple[bytes, ...] = ()


def encode_bundle(bundle: Bundle) -> bytes:
    """The file of a bundle."""
    receipts = [
        [it.header, it.signature, it.mailbox, it.envelope_id, it.expiry, it.number, it.leaf, it.path, it.body_hash]
        for it in bundle.receipts
    ]
    return decoder.encode(
        [
            MAGIC,
            bundle.kind.value,
            [bundle.relay_id, bundle.signing_key, bundle.partition],
            list(bundle.rotations),
            receipts,
            [[it.header, it.signature] for it in bundle.headers],
            [[it.manifest, it.card, it.store] for it in bundle.disclosures],
            bundle.subject,
            list(bundle.other_rotations),
        ],
        "evidence",
    )


def decode_bundle(data: bytes) -> Bundle:
    """Read a bundle, of which nothing has been checked but its form.

    Raises:
        DecodeError: It is none, or has other parts than its kind.
    """
    fields = decoder.array(decoder.decode(data, "evidence", BUNDLE_BYTES_MAX), "evidence", 9)
    if fields[0] != MAGIC:
        raise DecodeError("evidence", "is no file of evidence")
    name = decoder.text(fields[1], "kind", 64)
    kind = next((kind for kind in Kind if kind.value == name), None)
    if kind is None:
        raise DecodeError("kind", "is unknown")
    relay_id, signing_key, partition = decoder.array(fields[2], "card", 3)
    bundle = Bundle(
        kind,
        decoder.binary(relay_id, "relay_id", 16),
        decoder.binary(signing_key, "signing_key", 32),
        decoder.integer(partition, "partition", 0, 65_535),
        _rotations(fields[3]),
        tuple(_receipt(item) for item in decoder.array(fields[4], "receipts", length_max=2)),
        tuple(_header(item) for item in decoder.array(fields[5], "headers", length_max=2)),
        tuple(_handed_over(item) for item in decoder.array(fields[6], "disclosures", length_max=2)),
        decoder.binary(fields[7], "subject", length_max=16),
        _rotations(fields[8]),
    )
    _check_parts(bundle)
    return bundle


def _check_parts(bundle: Bundle) -> None:
    parts = bundle.kind.parts
    counts = (
        ("receipts", len(bundle.receipts), parts.receipts),
        ("headers", len(bundle.headers), parts.headers),
        ("disclosures", len(bundle.disclosures), parts.disclosures),
        ("subject", len(bundle.subject), 16 * parts.subject),
    )
    for name, found, wanted in counts:
        if found != wanted:
            raise DecodeError(name, f"evidence of kind {bundle.kind.value} has {wanted}, this has {found}")
    if bool(bundle.other_rotations) != parts.other_rotations:
        raise DecodeError("other rotations", f"do not fit evidence of kind {bundle.kind.value}")
    if any(it.store for it in bundle.disclosures) and not parts.stores:
        raise DecodeError("store", f"is no part of evidence of kind {bundle.kind.value}")


def _rotations(value: Any) -> tuple[bytes, ...]:
    items = decoder.array(value, "rotations", length_max=ROTATIONS_MAX)
    return tuple(decoder.binary(item, "rotation", length_max=_ROTATION_BYTES_MAX) for item in items)


def _receipt(value: Any) -> ReceiptItem:
    header, signature, mailbox, envelope_id, expiry, number, leaf, path, body_hash = decoder.array(value, "receipt", 9)
    path = decoder.binary(path, "path", length_max=64 * 32)
    if len(path) % 32:
        raise DecodeError("path", "must be whole hashes of 32 bytes")
    return ReceiptItem(
        "a holder",
        decoder.binary(header, "header", length_max=160),
        decoder.binary(signature, "signature", 64),
        decoder.binary(mailbox, "mailbox", 16),
        decoder.binary(envelope_id, "envelope id", 16),
        decoder.integer(expiry, "expiry"),
        decoder.integer(number, "number"),
        decoder.integer(leaf, "leaf", 0, 2**32 - 1),
        path,
        decoder.binary(body_hash, "body hash", 32),
        b"",
    )


def _header(value: Any) -> SignedHeader:
    header, signature = decoder.array(value, "header", 2)
    return SignedHeader(decoder.binary(header, "header", length_max=160), decoder.binary(signature, "signature", 64))


def _handed_over(value: Any) -> HandedOver:
    manifest, card, store = decoder.array(value, "disclosure", 3)
    return HandedOver(
        decoder.binary(manifest, "manifest file", length_max=MANIFEST_BYTES_MAX),
        decoder.binary(card, "card file", length_max=CARD_BYTES_MAX),
        decoder.binary(store, "store file", length_max=STORE_BYTES_MAX),
    )
