"""The leaves of the transparency log: what stands in it, as bytes (protocol.md section 15).

A leaf is canonical MessagePack `[type, logged_at, …]`. Type numbers are open: a reader skips a type that it does not
know (`UnknownLeaf`) and never refuses it, so that key directory changes can follow. No leaf names a person: whom an
order is about is a commitment, H(32-byte nonce ‖ name), which the operator opens to that person or a court. A sealed
leaf is a commitment to the whole leaf that would stand there; that it exists is never sealed.

Rules: `logged_at` never falls; an order is numbered from 0 without gaps; what refers to an order or a leaf comes after
it. Those that read a whole log check that (audit/tlog.py); here is one leaf at a time.
"""

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final, TypeAlias, get_args

import msgspec
from msgspec import Meta

from wire.codec import U64, Hash, Id, Key, Record, Signature, decode, encode
from wire.errors import FormatError, SignatureError
from wire.limits import HASH_BYTES, ROTATIONS_MAX
from wire.rotation import Rotation, follow_rotations
from wire.signing import SigningKey, verify
from wire.tiles import ENTRY_BYTES_MAX

__all__ = [
    "NOBODY",
    "NONCE_BYTES",
    "AnswerLeaf",
    "ChangeLeaf",
    "ExitLeaf",
    "KeyChangeLeaf",
    "Leaf",
    "LogBegins",
    "Nonce",
    "OpeningLeaf",
    "OrderLeaf",
    "SealedLeaf",
    "UnknownLeaf",
    "begin_log",
    "change_key",
    "check_exit",
    "check_key_change",
    "check_opening",
    "commitment",
    "preserved_until",
    "read_leaf",
    "sign_exit",
    "verify_begins",
]

NONCE_BYTES: Final = 32
NOBODY: Final = bytes(HASH_BYTES)
"""In the place of a commitment or a hash where there is nothing to commit to."""

_UNTIL: Final = re.compile(r"until ([0-9]{4}-[0-9]{2}-[0-9]{2})")

Word = Annotated[str, Meta(min_length=1, max_length=32)]
Line = Annotated[str, Meta(min_length=1, max_length=200)]
Prose = Annotated[str, Meta(min_length=1, max_length=8_000)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]


class LogBegins(Record, frozen=True, tag=1):
    """The log's first leaf: which relay it is of, and its key, signed by the relay's signing key of that time."""

    logged_at: U64
    relay_id: Id
    origin: Line
    log_key: Key
    first_key: Key
    rotations: Annotated[tuple[Rotation, ...], Meta(max_length=ROTATIONS_MAX)]
    signature: Signature


class OrderLeaf(Record, frozen=True, tag=2):
    """An order as it was received; `subject` commits to whom it is about."""

    logged_at: U64
    number: U64
    kind: Word
    issuer: Line
    jurisdiction: Country
    legal_basis: Line
    received_at: U64
    deadline: U64
    scope: Word
    subject: Hash
    secret_until: U64


class AnswerLeaf(Record, frozen=True, tag=3):
    """What was answered.

    `state` is honoured or refused, `given` names the columns that were handed over, and `evidence` is the SHA-256 of
    the record, or of the disclosure's manifest.
    """

    logged_at: U64
    number: U64
    state: Word
    outcome: Word
    text: Prose
    given: Annotated[tuple[Line, ...], Meta(max_length=256)]
    evidence: Hash


class SealedLeaf(Record, frozen=True, tag=4):
    """H(nonce ‖ leaf) of an order, of its answer or of a change that would tell what is asked, until `secret_until`."""

    logged_at: U64
    number: U64
    what: Word
    commitment: Hash
    secret_until: U64


class OpeningLeaf(Record, frozen=True, tag=5):
    """What stood behind the sealed leaf at `index`."""

    logged_at: U64
    index: U64
    nonce: Nonce
    text: Annotated[bytes, Meta(min_length=1, max_length=ENTRY_BYTES_MAX - 128)]


class ChangeLeaf(Record, frozen=True, tag=6):
    """An order was extended, appealed, withdrawn, is being captured, or a preservation ended.

    `deadline` is the one from then on; of a capture it is the day on which that ends.
    """

    logged_at: U64
    number: U64
    change: Word
    deadline: U64


class ExitLeaf(Record, frozen=True, tag=7):
    """The relay announces, moves, takes back or completes its leaving of a jurisdiction; signed by the relay's key."""

    logged_at: U64
    jurisdiction: Country
    step: Word
    ends_at: U64
    text: Prose
    rotations: Annotated[tuple[Rotation, ...], Meta(max_length=ROTATIONS_MAX)]
    signature: Signature


class KeyChangeLeaf(Record, frozen=True, tag=8):
    """The log's key changes; checkpoints of trees with this leaf are signed by the new key. Signed by both."""

    logged_at: U64
    old_key: Key
    new_key: Key
    old_signature: Signature
    new_signature: Signature


class UnknownLeaf(Record, frozen=True):
    """A leaf of a type that this program does not know."""

    kind: U64
    logged_at: U64


_Known: TypeAlias = (
    LogBegins | OrderLeaf | AnswerLeaf | SealedLeaf | OpeningLeaf | ChangeLeaf | ExitLeaf | KeyChangeLeaf
)
Leaf: TypeAlias = _Known | UnknownLeaf
_KNOWN: Final = frozenset(kind.__struct_config__.tag for kind in get_args(_Known))


def read_leaf(data: bytes) -> Leaf:
    """Read one leaf.

    Raises:
        FormatError: no leaf at all, or not as its type says. A type that is unknown is no error.
    """
    if len(data) > ENTRY_BYTES_MAX:
        raise FormatError("leaf", f"has {len(data)} bytes", ENTRY_BYTES_MAX)
    head = decode(list[msgspec.Raw], data, "leaf") if data[:1] else []
    if len(head) < 2:
        raise FormatError("leaf", "is no array of a type, a time and more")
    kind, logged_at = decode(U64, bytes(head[0]), "leaf type"), decode(U64, bytes(head[1]), "leaf time")
    if kind not in _KNOWN:
        return UnknownLeaf(kind, logged_at)
    leaf: Leaf = decode(_Known, data, "leaf")
    return leaf


def commitment(nonce: bytes, text: bytes) -> bytes:
    """SHA-256(nonce ‖ text).

    Raises:
        FormatError: the nonce has not 32 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise FormatError("nonce", f"has {len(nonce)} bytes", NONCE_BYTES)
    return sha256(nonce + text).digest()


def check_opening(sealed: SealedLeaf, opening: OpeningLeaf) -> Leaf:
    """The leaf behind a sealed one.

    Raises:
        SignatureError: the opening is of something else than was sealed.
        FormatError: no order, answer or change of that number was behind it.
    """
    if commitment(opening.nonce, opening.text) != sealed.commitment:
        raise SignatureError("opening of a sealed leaf")
    leaf = read_leaf(opening.text)
    wanted = {"order": OrderLeaf, "answer": AnswerLeaf, "change": ChangeLeaf}.get(sealed.what, OrderLeaf)
    if not isinstance(leaf, OrderLeaf | AnswerLeaf | ChangeLeaf) or (type(leaf), leaf.number) != (
        wanted,
        sealed.number,
    ):
        raise FormatError("opening", f"is no {sealed.what} of that number")
    return leaf


def preserved_until(answer: AnswerLeaf) -> int:
    """Until when an answer to a preservation says that it holds: the beginning of the day of `until YYYY-MM-DD`.

    Returns:
        Unix time in seconds; 0: nothing is preserved by it.

    Raises:
        FormatError: something is, and the answer names no day or several.
    """
    if (answer.state, answer.outcome) != ("honoured", "given"):
        return 0
    days = _UNTIL.findall(answer.text)
    try:
        (day,) = days
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise FormatError("answer text", "does not name the one day until which it preserves") from None


def begin_log(
    now_s: int,
    relay_id: bytes,
    origin: str,
    log_key: bytes,
    first_key: bytes,
    rotations: tuple[Rotation, ...],
    signer: SigningKey,
) -> LogBegins:
    """Make the first leaf; `signer` is the relay's present signing key, which `rotations` lead to from the card's."""
    unsigned = LogBegins(now_s, relay_id, origin, log_key, first_key, rotations, bytes(64))
    return msgspec.structs.replace(unsigned, signature=signer.sign("log-begins", encode(unsigned)))


def verify_begins(leaf: LogBegins, card_key: bytes) -> bytes:
    """Check the first leaf by the relay's card; return the log's first key.

    Args:
        leaf: the first leaf.
        card_key: the signing key on the card, 32 bytes.

    Raises:
        FormatError: it is another relay's.
        SignatureError: the relay has not signed it.
    """
    if leaf.first_key != card_key:
        raise FormatError("log", "is of another relay than the card")
    chain = follow_rotations(card_key, leaf.rotations)
    key = chain[-1].new_key if chain else card_key
    verify(key, "log-begins", encode(msgspec.structs.replace(leaf, signature=bytes(64))), leaf.signature)
    return leaf.log_key


def sign_exit(
    now_s: int,
    jurisdiction: str,
    step: str,
    ends_s: int,
    text: str,
    rotations: tuple[Rotation, ...],
    signer: SigningKey,
) -> ExitLeaf:
    """Make a step of leaving a jurisdiction: `announced`, `extended`, `cancelled` or `completed`.

    `signer` is the relay's present signing key, which `rotations` lead to from the card's.
    """
    unsigned = ExitLeaf(now_s, jurisdiction, step, ends_s, text, rotations, bytes(64))
    return msgspec.structs.replace(unsigned, signature=signer.sign("exit", encode(unsigned)))


def check_exit(leaf: ExitLeaf, card_key: bytes) -> None:
    """Check that the relay of a card has signed it.

    Raises:
        FormatError: the rotations do not lead from the card's key.
        SignatureError: it has not.
    """
    chain = follow_rotations(card_key, leaf.rotations)
    key = chain[-1].new_key if chain else card_key
    verify(key, "exit", encode(msgspec.structs.replace(leaf, signature=bytes(64))), leaf.signature)


def change_key(now_s: int, old: SigningKey, new: SigningKey) -> KeyChangeLeaf:
    """Make a change of the log's key."""
    unsigned = KeyChangeLeaf(now_s, old.public, new.public, bytes(64), bytes(64))
    data = encode(unsigned)
    return msgspec.structs.replace(
        unsigned, old_signature=old.sign("log-key", data), new_signature=new.sign("log-key", data)
    )


def check_key_change(leaf: KeyChangeLeaf, current: bytes) -> bytes:
    """Check a change of the log's key; return the new one.

    Raises:
        FormatError: it does not follow the present key.
        SignatureError: one of the two has not signed.
    """
    if leaf.old_key != current:
        raise FormatError("log key change", "does not follow the key before it")
    data = encode(msgspec.structs.replace(leaf, old_signature=bytes(64), new_signature=bytes(64)))
    verify(leaf.old_key, "log-key", data, leaf.old_signature)
    verify(leaf.new_key, "log-key", data, leaf.new_signature)
    return leaf.new_key
