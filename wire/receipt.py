"""Commit headers and receipts (protocol.md section 5.2).

The relay signs once a commit, over a header that holds the Merkle root of the commit's leaves; a receipt is that
header, its signature, and the inclusion path of one leaf. A receipt is evidence: whoever holds it can convict a relay
that lost, hid or changed the envelope.
"""

from hashlib import sha256
from typing import Annotated, NamedTuple

from msgspec import Meta

from wire.codec import U16, U32, U64, Hash, Id, Positive, PositiveU32, Record, Signature, decode
from wire.envelope import Envelope
from wire.hashing import hash32, label
from wire.limits import HASH_BYTES, PATH_HASHES_MAX
from wire.merkle import verify_path
from wire.signing import verify

__all__ = ["CommitHeader", "Path", "Receipt", "commit_hash", "leaf_hash", "verify_header", "verify_receipt"]

Path = Annotated[bytes, Meta(max_length=PATH_HASHES_MAX * HASH_BYTES)]

_LEAF_PREFIX = b"\0" + label("leaf")


class CommitHeader(Record, frozen=True):
    """What the relay signs for one durable commit; `time_ms` is Unix time in milliseconds."""

    relay_id: Id
    partition: U16
    index: Positive
    time_ms: U64
    leaf_count: PositiveU32
    root: Hash
    previous: Hash


class Receipt(NamedTuple):
    """Evidence that the relay stored one envelope durably."""

    header: bytes
    signature: bytes
    mailbox: bytes
    envelope_id: bytes
    expiry: int
    number: int
    leaf: int
    path: bytes
    body_hash: bytes


class ReceiptEntry(Record, frozen=True):
    """One envelope of a commit, as the `receipts` command names it: which submit, which place in it."""

    ref: U32
    position: U16
    number: Positive
    leaf: U32
    path: Path


class SignedHeader(Record, frozen=True):
    """A header's very bytes with their signature, for files that keep receipts."""

    header: Annotated[bytes, Meta(min_length=1, max_length=256)]
    signature: Signature


def leaf_hash(mailbox: bytes, envelope_id: bytes, expiry: int, number: int, body_hash: bytes) -> bytes:
    """The Merkle leaf of an envelope; `body_hash` is SHA-256 of the body."""
    return sha256(
        _LEAF_PREFIX + mailbox + envelope_id + expiry.to_bytes(8, "big") + number.to_bytes(8, "big") + body_hash
    ).digest()


def commit_hash(header: bytes) -> bytes:
    """The hash by which the next header names this one."""
    return hash32("commit-hash", header)


def verify_header(relay_key: bytes, header: bytes, signature: bytes) -> CommitHeader:
    """The header, once its form and signature are verified.

    Args:
        relay_key: the relay's signing key of that time (from its card, by its rotations).
        header: the very bytes.
        signature: 64 bytes.

    Raises:
        FormatError: not a well-formed header.
        SignatureError: that key did not sign it.
    """
    parsed = decode(CommitHeader, header, "commit header")
    verify(relay_key, "commit", header, signature)
    return parsed


def verify_receipt(relay_key: bytes, receipt: Receipt) -> CommitHeader:
    """The commit header of a receipt, once signature and inclusion are verified.

    Raises:
        FormatError: not well formed.
        SignatureError: the relay did not sign it, or the leaf is not under its root.
    """
    header = verify_header(relay_key, receipt.header, receipt.signature)
    leaf = leaf_hash(receipt.mailbox, receipt.envelope_id, receipt.expiry, receipt.number, receipt.body_hash)
    verify_path(leaf, receipt.leaf, header.leaf_count, receipt.path, header.root)
    return header


def receipt_of(envelope: Envelope, header: bytes, signature: bytes, entry: ReceiptEntry) -> Receipt:
    """Put together what the relay sent and what was submitted; to be verified next."""
    return Receipt(
        header,
        signature,
        envelope.mailbox,
        envelope.envelope_id,
        envelope.expiry,
        entry.number,
        entry.leaf,
        entry.path,
        sha256(envelope.body).digest(),
    )
