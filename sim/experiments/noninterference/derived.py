"""The functions of bodies that a relay's behaviour may show, computed here once more from the bodies alone.

A field of what a relay does is one of two kinds. Either it must be the same in every world, to the byte. Or it is
declared here: then its value must be *the* declared function of the bodies that were handed in, in each world, and what
is compared between worlds is which function of which body it is.

    body            the very body that was submitted for that mailbox and envelope id
    commit header   relay id, partition, index, time and leaf count as they are; root = Merkle root over the leaves of
                    the rows; previous = hash of the header before (protocol.md section 5.2)
    signature       Ed25519 of the relay's key over that header, which is deterministic: the very 64 bytes
    leaves, path    the leaf hashes in their order; the inclusion path, which leads from the leaf to the root
    sealed frame    what the link's key opens; its commands are compared, its length and counter too

The hashes are those of audit/, which shares no code with the relay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from nacl.bindings import crypto_secretbox_open, crypto_sign
from nacl.exceptions import CryptoError

from audit.crypto import hash32, label, leaf_of
from audit.errors import ProofError
from audit.merkle import node_hash, root_of, verify_inclusion
from relay.core.events import Batch, CommitRow, EnvelopeRow
from sim.experiments.noninterference.trace import Observation
from wire.codec import decode
from wire.commands import Delivery, Receipts, decode_relay_commands
from wire.errors import BlindpostError
from wire.limits import HASH_BYTES
from wire.link import FRAME, link_id_of
from wire.receipt import CommitHeader
from wire.signing import SigningKey

__all__ = ["DECLARED", "Derived", "Leaf", "Underived", "World"]

DECLARED: Final[Mapping[str, str]] = {
    "body": "the body that was submitted",
    "root": "Merkle root over the leaf hashes of the commit",
    "previous": "hash of the commit header before",
    "header": "commit header with that root and that hash",
    "signature": "Ed25519 signature of the relay over that header",
    "leaves": "leaf hashes of the commit",
    "path": "inclusion path of the leaf",
    "node": "node of the Merkle tree of the commit",
    "body hash": "SHA-256 of the body",
    "commit hash": "hash of the commit header",
}

_COUNTER: Final = slice(9, 17)
_FRAME_HEAD_BYTES: Final = 17


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that is what a declared function gives: which one, and of what."""

    function: str
    of: Any


@dataclass(frozen=True, slots=True)
class Underived:
    """A value in a declared field that is not what the function gives."""

    function: str
    value: Any


Leaf = tuple[str, Any]
"""A field's path and its value, `Derived` where it is declared."""


@dataclass(frozen=True)
class _Commit:
    header: bytes
    signature: bytes
    leaves: tuple[bytes, ...]
    root: bytes


class World:
    """One run's bodies and what follows from them. Feed it the observations of that run in their order.

    Args:
        bodies: by mailbox and envelope id, every body that was handed in under it, in a fixed order.
        link_keys: by link id, the key under which the relay seals.
        signing_key: the relay's.
    """

    def __init__(
        self,
        bodies: Mapping[tuple[bytes, bytes], tuple[bytes, ...]],
        link_keys: Mapping[bytes, bytes],
        signing_key: SigningKey,
    ) -> None:
        self._bodies = bodies
        self._link_keys = link_keys
        self._secret = signing_key.seed + signing_key.public
        self._staged: dict[int, _Commit] = {}
        self._commits: dict[int, _Commit] = {}
        self._stagings = 0
        self._envelope_of_row: dict[int, tuple[bytes, bytes]] = {}
        self._known: dict[bytes, Derived] = {}
        for (mailbox, envelope_id), variants in bodies.items():
            for variant, body in enumerate(variants):
                of = (mailbox, envelope_id, variant)
                self._known[body] = Derived("body", of)
                self._known[sha256(body).digest()] = Derived("body hash", of)

    # ---- one observation, field by field

    def leaves(self, observation: Observation) -> Iterator[Leaf]:
        """Yield every field of an observation."""
        kind, value = observation.kind, observation.value
        if kind == "take_batch" and value is not None:
            self._stage(value)
        elif kind == "stored" and value is not None:
            # A staged commit is durable: the next header names it.
            self._commits[value] = self._staged[value]
        if kind == "sent":
            yield from self._packet(*value)
        elif kind == "read":
            for at, (seq, body) in enumerate(value):
                yield f"[{at}].seq", seq
                yield f"[{at}].body", body if body is None else self._body(self._envelope_of_row.get(seq), body)
        elif kind == "memory":
            yield from ((path, self._tagged(held)) for path, held in value)
        else:
            yield from self._fields("", value)

    def _fields(self, path: str, value: Any) -> Iterator[Leaf]:
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            yield path, value
        elif isinstance(value, EnvelopeRow):
            yield from _named(path, value, "body")
            yield f"{path}.body", self._body((value.mailbox, value.envelope_id), value.body)
        elif isinstance(value, CommitRow):
            yield f"{path}.idx", value.idx
            yield from self._header(f"{path}.header", value.header)
            commit = self._commit_of(value.idx)
            yield (
                f"{path}.signature",
                _must("signature", value.idx, value.signature, commit.signature if commit else None),
            )
            leaves = b"".join(commit.leaves) if commit else None
            yield f"{path}.leaves", _must("leaves", value.idx, value.leaves, leaves)
        elif isinstance(value, Receipts):
            yield from self._receipts(path, value)
        elif isinstance(value, Delivery):
            yield f"{path}.mailbox", value.mailbox
            for at, item in enumerate(value.envelopes):
                yield from _named(f"{path}.envelopes[{at}]", item, "body")
                yield f"{path}.envelopes[{at}].body", self._body((value.mailbox, item.envelope_id), item.body)
        elif isinstance(value, dict):
            for key, held in value.items():
                yield from self._fields(f"{path}.{key}", held)
        elif isinstance(value, (Struct, Batch)) or hasattr(value, "_fields"):
            yield f"{path}:type", type(value).__name__
            for name in _names(value):
                yield from self._fields(f"{path}.{name}", getattr(value, name))
        elif isinstance(value, (list, tuple)):
            yield f"{path}:count", len(value)
            for at, held in enumerate(value):
                yield from self._fields(f"{path}[{at}]", held)
        else:
            raise TypeError(f"an observation holds a {type(value).__name__}, which nobody compares")

    # ---- declared functions

    def _body(self, envelope: tuple[bytes, bytes] | None, body: bytes) -> Derived | Underived:
        for variant, submitted in enumerate(self._bodies.get(envelope, ()) if envelope else ()):
            if body == submitted:
                return Derived("body", variant)
        return Underived("body", body)

    def _stage(self, batch: Batch) -> None:
        for row in batch.envelopes:
            self._envelope_of_row[row.seq] = (row.mailbox, row.envelope_id)
        if batch.commit is None:
            return
        leaves = []
        for row in batch.envelopes:
            tag = self._body((row.mailbox, row.envelope_id), row.body)
            # A body that nobody submitted has no leaf of ours, so that header and signature do not pass either.
            body = row.body if isinstance(tag, Derived) else b""
            leaves.append(leaf_of(row.mailbox, row.envelope_id, row.expiry, row.number, sha256(body).digest()))
        root = root_of(leaves)
        header = batch.commit.header
        signature = crypto_sign(label("commit") + header, self._secret)[:64]
        commit = self._staged[batch.commit.idx] = _Commit(header, signature, tuple(leaves), root)
        self._stagings += 1
        of = (batch.commit.idx, self._stagings)
        self._known[header] = Derived("header", of)
        self._known[signature] = Derived("signature", of)
        self._known[hash32("commit-hash", header)] = Derived("commit hash", of)
        self._known[b"".join(leaves)] = Derived("leaves", of)
        self._know_tree(of, commit)

    def _know_tree(self, of: Any, commit: _Commit) -> None:
        level, height = list(commit.leaves), 0
        while True:
            for at, node in enumerate(level):
                self._known.setdefault(node, Derived("node", (of, height, at)))
            if len(level) == 1:
                return
            odd = level[-1:] if len(level) % 2 else []
            level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)] + odd
            height += 1

    def _commit_of(self, index: int) -> _Commit | None:
        return self._staged.get(index) or self._commits.get(index)

    def _header(self, path: str, header: bytes) -> Iterator[Leaf]:
        """A commit header, field by field: root and previous are declared, all else is compared as it is."""
        try:
            parsed = decode(CommitHeader, header, "commit header")
        except BlindpostError:
            yield path, Underived("header", header)
            return
        commit = self._commit_of(parsed.index)
        before = self._commits.get(parsed.index - 1)
        yield from _named(path, parsed, "root", "previous")
        yield f"{path}.root", _must("root", parsed.index, parsed.root, commit.root if commit else None)
        previous = hash32("commit-hash", before.header) if before else bytes(HASH_BYTES) if parsed.index == 1 else None
        yield f"{path}.previous", _must("previous", parsed.index, parsed.previous, previous)

    def _receipts(self, path: str, receipts: Receipts) -> Iterator[Leaf]:
        yield from self._header(f"{path}.header", receipts.header)
        index = decode(CommitHeader, receipts.header, "commit header").index
        commit = self._commits.get(index)
        yield f"{path}.header:bytes", _must("header", index, receipts.header, commit.header if commit else None)
        yield f"{path}.signature", _must("signature", index, receipts.signature, commit.signature if commit else None)
        for at, entry in enumerate(receipts.entries):
            yield from _named(f"{path}.entries[{at}]", entry, "path")
            yield f"{path}.entries[{at}].path", self._path(index, commit, entry.leaf, entry.path)

    @staticmethod
    def _path(index: int, commit: _Commit | None, leaf: int, path: bytes) -> Derived | Underived:
        steps = [path[start : start + HASH_BYTES] for start in range(0, len(path), HASH_BYTES)]
        if commit is None or leaf >= len(commit.leaves):
            return Underived("path", path)
        try:
            verify_inclusion(commit.leaves[leaf], leaf, len(commit.leaves), steps, commit.root)
        except ProofError:
            return Underived("path", path)
        return Derived("path", (index, leaf))

    # ---- frames and memory

    def _packet(self, tag: bytes, packet: bytes) -> Iterator[Leaf]:
        yield ".tag", tag
        yield ".bytes", len(packet)
        if packet[0] != FRAME:
            yield ".packet", packet
            return
        link_id = link_id_of(packet)
        yield ".link_id", link_id
        yield ".counter", packet[_COUNTER]
        try:
            nonce = packet[_COUNTER] + bytes(16)
            plain = crypto_secretbox_open(packet[_FRAME_HEAD_BYTES:], nonce, self._link_keys[link_id])
            commands = decode_relay_commands(plain)
        except (KeyError, CryptoError, ValueError, BlindpostError):
            yield ".sealed", Underived("sealed frame", packet)
            return
        for at, command in enumerate(commands):
            yield f".commands[{at}]:type", type(command).__name__
            yield from self._fields(f".commands[{at}]", command)

    def _tagged(self, value: Any) -> Any:
        """A value of the memory image: which function of a body it is, or itself."""
        if type(value) is not bytes or len(value) < HASH_BYTES:
            return value
        known = self._known.get(value)
        if known is not None:
            return known
        if len(value) % HASH_BYTES == 0 and len(value) > HASH_BYTES:
            nodes = [self._known.get(value[at : at + HASH_BYTES]) for at in range(0, len(value), HASH_BYTES)]
            if all(node is not None for node in nodes):
                return Derived("nodes", tuple(nodes))
        return value


def _must(function: str, of: Any, value: bytes, wanted: bytes | None) -> Derived | Underived:
    return Derived(function, of) if wanted is not None and value == wanted else Underived(function, value)


def _names(value: Any) -> tuple[str, ...]:
    names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None)
    return tuple(names if names is not None else type(value).__dataclass_fields__)


def _named(path: str, value: Any, *but: str) -> Iterator[Leaf]:
    """The fields of a record that are plain, but for some."""
    for name in _names(value):
        if name not in but:
            yield f"{path}.{name}", getattr(value, name)
