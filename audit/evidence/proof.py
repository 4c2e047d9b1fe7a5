"""`prove`: what one bundle convicts a relay of, trusting nobody but the card that the reader holds.

Every signature is checked against the card's key and the rotations from it, every file against the hash in a manifest,
and the contradiction itself is found again here. A bundle that was forged, altered or cut is refused, whatever it
says. What signatures cannot tell is printed as a condition: a memory image hands over the key that it was taken with,
so that what this key signed may be the relay's or that of whoever has the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from audit import disclosure as names
from audit.crypto import envelope_id_of, relay_id_of, tombstone_key_of, verify
from audit.errors import AuditError, EvidenceError
from audit.evidence.bundle import Bundle, HandedOver, Kind, SignedHeader, decode_bundle
from audit.evidence.judge import MARGIN_S, View, is_proven, judge, time_of, verify_receipt
from audit.file_view import sha256_of
from audit.manifest import Header, KeyRing, Manifest, build_key_ring, read_header, read_manifest
from audit.material import RelayCard, read_card
from audit.rows import Bytes
from audit.store import StoredRow, read_store

_TOMBSTONE_FIELDS: Final = ("mailbox", "expiry", "commit_index", "leaf", "number", "reason", "token")


@dataclass(frozen=True, slots=True)
class Conviction:
    """What a bundle shows.

    Attributes:
        kind: Of what the relay is convicted.
        statement: The same in words, with the signed facts.
        conditions: What it rests on beside signatures, each a reason why the relay might not be the one; none is best.
        relay_id: The relay.
        bundle_sha256: The file, so that two readers know that they speak of the same.
    """

    kind: Kind
    statement: tuple[str, ...]
    conditions: tuple[str, ...]
    relay_id: bytes
    bundle_sha256: bytes


def prove(
    data: bytes,
    card: RelayCard,
    *,
    stores: Iterable[Bytes] | Shelf = (),
    rotations: tuple[bytes, ...] | None = None,
) -> Conviction:
    """Check a bundle of evidence.

    Args:
        data: The file.
        card: The relay's card, as the reader has it.
        stores: Store files that the reader has, for evidence that does not carry them; they are found by their hash.
            A shelf, if many bundles speak of them.
        rotations: The relay's rotations as the reader knows them from elsewhere, if so.

    Raises:
        AuditError: The bundle does not show what it says; nobody is convicted.
    """
    bundle = decode_bundle(data)
    _check_card(bundle, card)
    ring = build_key_ring(card.signing_key, card.relay_id, _known_rotations(bundle, rotations))
    court = _Court(bundle, card, ring, stores if isinstance(stores, Shelf) else Shelf(stores))
    statement = court.hear()
    if bundle.rotations and rotations is None:
        court.doubts.append(
            f"it rests on {len(bundle.rotations)} rotations of the relay's key as this file gives them. Whoever took a "
            "memory image had the key of that time, and could have made another rotation: compare them with those that "
            "the relay's devices know"
        )
    return Conviction(
        bundle.kind, statement, tuple(dict.fromkeys(court.doubts)), card.relay_id, hashlib.sha256(data).digest()
    )


def _check_card(bundle: Bundle, card: RelayCard) -> None:
    if (bundle.relay_id, bundle.signing_key, bundle.partition) != (card.relay_id, card.signing_key, card.partition):
        raise EvidenceError("card", "the evidence is against another relay, or another partition, than the card's")
    if relay_id_of(card.signing_key) != card.relay_id:
        raise EvidenceError("card", "relay_id is not the hash of signing_key")


def _known_rotations(bundle: Bundle, known: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
    """The longer of the bundle's rotations and the reader's, of which one must begin with the other."""
    if known is None:
        return bundle.rotations
    shorter, longer = sorted((bundle.rotations, known), key=len)
    if longer[: len(shorter)] != shorter:
        raise EvidenceError(
            "rotations", "are not those that you know: somebody who had an old key of the relay made another one"
        )
    return longer


@dataclass(frozen=True, slots=True)
class _Opened:
    """A disclosure of which manifest and card have been checked, and the store where there is one."""

    manifest: Manifest
    view: View | None


class Shelf:
    """Store files that are at hand, each hashed and read once, however many bundles speak of it.

    Args:
        stores: The files.
    """

    def __init__(self, stores: Iterable[Bytes] = ()) -> None:
        self._files = {sha256_of(store): store for store in stores}
        self._read: dict[bytes, tuple[View, int]] = {}

    def open(self, sha256: bytes, carried: bytes = b"") -> tuple[View, int]:
        """The store of that hash, and its partition.

        Args:
            sha256: What the relay signed for.
            carried: The file as a bundle has it; empty: it must be at hand.

        Raises:
            AuditError: It is not there, is another file, or cannot be read as a store.
        """
        data: Bytes | None = memoryview(carried) if carried else self._files.get(sha256)
        if data is None:
            raise EvidenceError(
                names.STORE,
                f"is not carried by this evidence: give the disclosure whose store has SHA-256 {sha256.hex()}",
            )
        if carried and sha256_of(data) != sha256:
            raise EvidenceError(names.STORE, "is not the file that the relay signed for")
        if sha256 not in self._read:
            self._read[sha256] = _read_view(data)
        return self._read[sha256]


def _read_view(data: Bytes) -> tuple[View, int]:
    store = read_store(data)
    if store.schema_problems:
        # Rows of other tables would not be read, and an envelope in them would look as if it were not there.
        raise EvidenceError(names.STORE, f"has not the tables of section 9: {store.schema_problems[0]}")
    partition = [row.blob("value") for row in store.tables["relay"] if row.text("name") == "partition"]
    if len(partition) != 1:
        raise EvidenceError(names.STORE, "does not say which partition's it is")
    return View.of(store), int.from_bytes(partition[0], "big")


@dataclass(slots=True)
class _Court:
    """Hears one bundle."""

    bundle: Bundle
    card: RelayCard
    ring: KeyRing
    shelf: Shelf
    doubts: list[str] = field(default_factory=list)

    def hear(self) -> tuple[str, ...]:
        """Open every part, then find the contradiction.

        Raises:
            AuditError: There is none, or a part is not what it must be.
        """
        bundle = self.bundle
        opened = [self._disclosure(part) for part in bundle.disclosures]
        headers = [self._header(part) for part in bundle.headers]
        heads = [(it.manifest.head_index, it.manifest.head_hash) for it in opened]
        if bundle.receipts:
            receipt = bundle.receipts[0]
            header = verify_receipt(receipt, self.ring, self.card.relay_id, self.card.partition)
            view = opened[0].view
            assert view is not None
            judgement = judge(receipt, header, opened[0].manifest, view)
            if judgement.kind is not bundle.kind:
                raise EvidenceError("evidence", f"this receipt convicts nobody of that: {judgement.how}")
            self._doubt_header(header, heads, opened)
            return (
                f"The relay signed commit {header.index} at {time_of(header.time_ms // 1000)}, and with it that until "
                f"{time_of(receipt.expiry)} it holds envelope {receipt.envelope_id.hex()} of mailbox "
                f"{receipt.mailbox.hex()}, number {receipt.number}, with a body of SHA-256 {receipt.body_hash.hex()}.",
                f"It signed on {time_of(opened[0].manifest.taken_at)} that the store that it handed over is its own.",
                f"In that store: {judgement.text}.",
            )
        for header in headers:
            self._doubt_header(header, heads, opened)
        if headers and opened:
            return _header_against_head(bundle.kind, headers[0], opened[0].manifest)
        if headers:
            return _two_headers(bundle.kind, *headers)
        if opened:
            first, second = opened
            if bundle.subject:
                return _tombstone(bundle.kind, bundle.subject, first, second)
            return _two_heads(bundle.kind, first.manifest, second.manifest)
        return self._two_chains_of_keys()

    def _header(self, part: SignedHeader) -> Header:
        header = read_header(part.header, "header")
        if (header.relay_id, header.partition) != (self.card.relay_id, self.card.partition):
            raise EvidenceError("header", "is another relay's or partition's")
        self.ring.verify_header(header, part.signature)
        return header

    def _disclosure(self, part: HandedOver) -> _Opened:
        manifest = read_manifest(part.manifest)
        count = len(manifest.rotations)
        if manifest.rotations != self.bundle.rotations[:count]:
            raise EvidenceError("manifest", "its rotations are not those of the evidence")
        if manifest.relay_id != self.card.relay_id or manifest.signing_key != self.ring.periods[count].key:
            raise EvidenceError("manifest", "is not signed by the key that the rotations lead to")
        verify(manifest.signing_key, "disclosure", manifest.signed, manifest.signature)
        files = {file.path: file for file in manifest.files}
        if len(files) != len(manifest.files):
            raise EvidenceError("manifest", "names a file twice")
        _check_named(files.get(names.CARD), part.card)
        disclosed = read_card(part.card, names.CARD)
        if (disclosed.relay_id, disclosed.partition) != (self.card.relay_id, self.card.partition):
            raise EvidenceError(names.CARD, "the disclosure is another partition's")
        if names.IMAGE in files:
            self.doubts.append(
                f"the disclosure of {time_of(manifest.taken_at)} has a memory image, and with it the key that signed "
                "it: it convicts the relay, or whoever took that image"
            )
        if count < len(self.ring.periods) - 1:
            self.doubts.append(
                f"the key that signed the disclosure of {time_of(manifest.taken_at)} was retired later: it convicts "
                "the relay, or whoever had that key by a memory image"
            )
        return _Opened(manifest, self._view(part.store, manifest) if self.bundle.kind.parts.stores else None)

    def _view(self, carried: bytes, manifest: Manifest) -> View:
        named = next((file for file in manifest.files if file.path == names.STORE), None)
        if named is None:
            raise EvidenceError(names.STORE, "the manifest does not name it")
        view, partition = self.shelf.open(named.sha256, carried)
        if partition != self.card.partition:
            raise EvidenceError(names.STORE, "is another partition's")
        return view

    def _doubt_header(self, header: Header, heads: list[tuple[int, bytes]], opened: list[_Opened]) -> None:
        """A header under a retired key counts by itself only if what the relay signed later leads to it."""
        period = next(p for p in self.ring.periods if p.last_index is None or header.index <= p.last_index)
        if period.last_index is None:
            return
        anchored = (header.index, header.commit_hash) in [(period.last_index, period.last_hash), *heads]
        for it in opened:
            stored = it.view.headers.get(header.index) if it.view else None
            anchored = anchored or (stored is not None and stored.raw == header.raw)
        if not anchored:
            self.doubts.append(
                f"commit {header.index} is signed by a key that was retired after commit {period.last_index}: it "
                "convicts the relay, or whoever had that key by a memory image"
            )

    def _two_chains_of_keys(self) -> tuple[str, ...]:
        first, second = self.bundle.rotations, self.bundle.other_rotations
        other = build_key_ring(self.card.signing_key, self.card.relay_id, second)
        at = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
        if at is None:
            raise EvidenceError("rotations", "the one chain of keys goes on with the other")
        self.doubts.append(
            f"key {at + 1} of the relay has been retired: it convicts the relay, or whoever had that key by a memory "
            "image, and made a rotation of his own"
        )
        return (
            f"Key {at + 1} of the relay, {self.ring.periods[at].key.hex()}, signed two different rotations: to "
            f"{self.ring.periods[at + 1].key.hex()} after commit {self.ring.periods[at].last_index}, and to "
            f"{other.periods[at + 1].key.hex()} after commit {other.periods[at].last_index}.",
        )


def _check_named(named: object, data: bytes) -> None:
    if getattr(named, "sha256", None) != hashlib.sha256(data).digest():
        raise EvidenceError(names.CARD, "is not the file that the relay signed for")


def _said(header: Header) -> str:
    return f"commit {header.index} of {time_of(header.time_ms // 1000)} with hash {header.commit_hash.hex()}"


def _two_headers(kind: Kind, first: Header, second: Header) -> tuple[str, ...]:
    """Two headers that no one history holds both."""
    both = f"The relay signed {_said(first)}, and {_said(second)}."
    if kind is Kind.FORKED and first.index == second.index and first.raw != second.raw:
        return (both, "One index has one commit: it keeps two histories.")
    if kind is Kind.UNLINKED and second.index == first.index + 1 and second.previous != first.commit_hash:
        return (both, f"The second names {second.previous.hex()} as the one before: it keeps two histories.")
    if kind is Kind.REVERSED and first.index < second.index and first.time_ms > second.time_ms:
        return (both, "The later commit has the earlier time: one of the two is dated falsely.")
    raise EvidenceError("headers", "do not contradict each other in this way")


def _header_against_head(kind: Kind, header: Header, manifest: Manifest) -> tuple[str, ...]:
    """A header against the head and date of a manifest."""
    handed = (
        f"It signed a disclosure of {time_of(manifest.taken_at)} that ends with commit {manifest.head_index}, hash "
        f"{manifest.head_hash.hex()}."
    )
    signed = f"The relay signed {_said(header)}."
    if kind is Kind.TRUNCATED and header.index > manifest.head_index and header.time_ms < 1_000 * manifest.taken_at:
        return (signed, handed, "The commit was made before the disclosure, which leaves it out.")
    if kind is Kind.HEAD_FORKED and header.index == manifest.head_index and header.commit_hash != manifest.head_hash:
        return (signed, handed, "One index has one commit: it keeps two histories.")
    late_s = header.time_ms // 1_000 - manifest.taken_at
    if kind is Kind.DATED_BACK and header.index <= manifest.head_index and late_s > MARGIN_S:
        return (signed, handed, f"The disclosure holds a commit {late_s} s younger than itself: it is dated back.")
    raise EvidenceError("header and manifest", "do not contradict each other in this way")


def _two_heads(kind: Kind, first: Manifest, second: Manifest) -> tuple[str, ...]:
    """The heads and dates of two manifests."""
    told = tuple(
        f"The relay signed a disclosure of {time_of(it.taken_at)} that ends with commit {it.head_index}, hash "
        f"{it.head_hash.hex()}."
        for it in (first, second)
    )
    if kind is Kind.HEADS_FORKED and first.head_index == second.head_index and first.head_hash != second.head_hash:
        return (*told, "One index has one commit: it keeps two histories.")
    if kind is Kind.SHORTENED and first.taken_at < second.taken_at and first.head_index > second.head_index:
        return (*told, "The later disclosure ends before the earlier one: commits were taken out of the history.")
    raise EvidenceError("manifests", "do not contradict each other in this way")


def _tombstone(kind: Kind, key: bytes, first: _Opened, second: _Opened) -> tuple[str, ...]:
    """A tombstone of the earlier disclosure, and what the later one has in its place."""
    assert first.view is not None
    assert second.view is not None
    stone = first.view.tombstones.get(key)
    if stone is None or not is_proven(stone):
        raise EvidenceError("tombstone", "the earlier disclosure has none with this key and its t")
    if first.manifest.taken_at > second.manifest.taken_at:
        raise EvidenceError("disclosures", "the earlier one comes first")
    told = (
        f"The relay disclosed on {time_of(first.manifest.taken_at)} that envelope {_id_of(stone).hex()} was "
        "acknowledged or withdrawn, with the t that only its recipient and sender knew, and so erased.",
        f"It disclosed its store again on {time_of(second.manifest.taken_at)}.",
    )
    row = second.view.live.get((stone.blob("mailbox"), _id_of(stone)))
    same = row is not None and (row.commit_index, row.leaf) == (stone.integer("commit_index"), stone.integer("leaf"))
    if kind is Kind.REVIVED and same:
        return (*told, "There the envelope is again, body and all: it was not erased.")
    if kind is Kind.TOMBSTONE_CHANGED and not same and _is_changed(stone, second):
        return (
            *told,
            f"There the tombstone is gone or another one, before its expiry at {time_of(stone.integer('expiry'))}.",
        )
    raise EvidenceError("tombstone", "the later disclosure does not contradict it in this way")


def _id_of(stone: StoredRow) -> bytes:
    return envelope_id_of(stone.blob("token"))


def _is_changed(stone: StoredRow, second: _Opened) -> bool:
    """Whether a tombstone that must still be there is gone or differs."""
    assert second.view is not None
    if stone.integer("expiry") <= second.manifest.taken_at + MARGIN_S:
        return False
    other = second.view.tombstones.get(tombstone_key_of(stone.blob("mailbox"), _id_of(stone)))
    return other is None or any(other.values[name] != stone.values[name] for name in _TOMBSTONE_FIELDS)


def refusal_of(error: AuditError) -> str:
    """Why a bundle was refused, in a line."""
    return str(error)
