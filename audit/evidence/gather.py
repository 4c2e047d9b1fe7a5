"""`gather`: judge receipts and disclosures, and make a bundle of evidence for each way in which a relay broke its word.

What is gathered here is a proposal. Each bundle is given to `proof.prove` before it is handed out, as a third party
would, and one that does not convince is not evidence: it is told as a suspicion, with the reason. So a mistake here
frames nobody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.errors import AuditError, EvidenceError
from audit.evidence.bundle import STORE_BYTES_MAX, Bundle, HandedOver, Kind, SignedHeader, encode_bundle
from audit.evidence.judge import MARGIN_S, View, is_proven, judge, verify_receipt
from audit.evidence.proof import Conviction, Shelf, prove
from audit.manifest import Header, Manifest, read_header
from audit.material import ReceiptItem, RelayCard
from audit.merkle import node_hash
from audit.rows import EnvelopeRow

ACCUSATIONS_MAX: Final = 64
"""Bundles made; all contradictions are counted."""
CARRIED_BYTES_MAX: Final = 64 * 1024 * 1024
"""After so much of evidence, further bundles go without the store."""


@dataclass(frozen=True, slots=True)
class Accusation:
    """One way in which the relay broke its word, with the file that shows it."""

    where: str
    bundle: bytes
    conviction: Conviction

    @property
    def name(self) -> str:
        """A file name, of kind and content."""
        return f"{self.conviction.kind.value}-{self.conviction.bundle_sha256.hex()[:12]}.evidence"


@dataclass(slots=True)
class Completeness:
    """What became of every receipt, and what the relay is convicted of."""

    receipts: int = 0
    honoured: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """Receipts that bind the relay to nothing, with the reason."""
    earlier_rows: int = 0
    """Envelopes and tombstones of an earlier disclosure that were followed into this one."""
    accusations: list[Accusation] = field(default_factory=list)
    contradictions: int = 0
    suspicions: list[str] = field(default_factory=list)
    """Contradictions that a third party could not check."""

    @property
    def complete(self) -> bool:
        """Whether nothing was found."""
        return not self.contradictions


def gather(case: Case, earlier: Case | None = None, *, receipts: bool = True) -> Completeness:
    """Judge everything that a case has: its own chain, volunteered receipts, an earlier disclosure.

    Args:
        case: The disclosure, opened with the relay's card and what was volunteered.
        earlier: Another disclosure of the same relay, made before.
        receipts: Whether to judge the volunteered receipts.

    Raises:
        EvidenceError: The disclosure cannot be judged: no card, or no manifest of that relay, or no store.
    """
    sides = [_Side.of(it) for it in (case, earlier) if it is not None]
    shelf = Shelf(side.case.disclosure.files[names.STORE] for side in sides)
    clerk = _Clerk(case, sides[0], sides[1] if len(sides) > 1 else None, receipts, shelf)
    clerk.work()
    return clerk.found


@dataclass(slots=True)
class _Side:
    """A disclosure whose manifest is the relay's, and whose store is the manifest's."""

    case: Case
    card: RelayCard
    manifest: Manifest
    view: View
    handed_over: HandedOver

    @classmethod
    def of(cls, case: Case) -> _Side:
        store = case.store
        if case.card is None or case.manifest is None or store is None:
            problem = next((str(error) for error in case.problems.values()), "card, manifest and store are needed")
            raise EvidenceError("disclosure", f"cannot be judged: {problem}")
        files = case.disclosure.files
        manifest_file, card_file = case.disclosure.small(names.MANIFEST), case.disclosure.small(names.CARD)
        carried = files[names.STORE][:] if len(files[names.STORE]) <= STORE_BYTES_MAX else b""
        view = View(case.headers, case.live, case.tombstones, store.tables["mailboxes"], store.tables["lists"])
        return cls(case, case.card, case.manifest, view, HandedOver(manifest_file, card_file, carried))

    @property
    def without_store(self) -> HandedOver:
        return HandedOver(self.handed_over.manifest, self.handed_over.card)

    def signed_header(self, index: int) -> SignedHeader | None:
        """The header of a commit as it is stored, with its signature."""
        store = self.case.store
        assert store is not None
        rows = store.tables["commits"]
        position = bisect_left(rows, index, key=lambda row: row.seq)
        if position == len(rows) or rows[position].seq != index:
            return None
        return SignedHeader(rows[position].blob("header"), rows[position].blob("signature"))


@dataclass(slots=True)
class _Clerk:
    """Goes through a case once."""

    case: Case
    new: _Side
    old: _Side | None
    receipts: bool
    shelf: Shelf
    found: Completeness = field(default_factory=Completeness)

    def work(self) -> None:
        """Receipts, then the chain that all of them together make, then what the earlier disclosure says."""
        loose: list[tuple[Header, SignedHeader]] = []
        for item in self.case.material.receipts if self.receipts else ():
            header = self._take_receipt(item, f"receipt of {item.who} for envelope {item.envelope_id.hex()[:8]}…")
            if header is not None:
                self.found.receipts += 1
                loose.append((header, SignedHeader(item.header, item.signature)))
        if self.old is not None:
            self._compare_heads(self.old)
            self._follow_rows(self.old)
            self._compare_chains(self.old)
        self._check_chain()
        self._check_loose(loose)
        self._check_date()

    # ------------------------------------------------------------------------------------------------------ receipts

    def _take_receipt(self, item: ReceiptItem, where: str, *, of_the_relay: bool = False) -> Header | None:
        """Judge one receipt and count how it was honoured; return its header if the relay did sign it."""
        assert self.case.key_ring is not None
        card = self.new.card
        try:
            header = verify_receipt(item, self.case.key_ring, card.relay_id, card.partition)
        except AuditError as error:
            self.found.refused.append(f"{where}: {error}")
            return None
        judgement = judge(item, header, self.new.manifest, self.new.view)
        if not of_the_relay:
            self.found.honoured[judgement.how] += 1
        if judgement.kind is not None:
            self._accuse(judgement.kind, f"{where}: {judgement.text}", item)
        return header

    def _accuse(self, kind: Kind, where: str, item: ReceiptItem) -> None:
        new, signed = self.new, SignedHeader(item.header, item.signature)
        if kind is Kind.FORKED:
            stored = new.signed_header(read_header(item.header, "header").index)
            assert stored is not None
            self._propose(where, self._bundle(kind, headers=(signed, stored)))
        elif kind.parts.receipts:
            self._propose(where, self._bundle(kind, receipts=(item,), disclosures=(new.handed_over,)))
        else:
            self._propose(where, self._bundle(kind, headers=(signed,), disclosures=(new.without_store,)))

    # --------------------------------------------------------------------------------------------------------- chain

    def _check_chain(self) -> None:
        """The disclosed headers name each other, and their times do not fall."""
        before: Header | None = None
        for header in self.new.view.headers.values():
            if before is not None and header.index == before.index + 1 and header.previous != before.commit_hash:
                self._two_stored(Kind.UNLINKED, before.index, header.index)
            if before is not None and header.time_ms < before.time_ms:
                self._two_stored(Kind.REVERSED, before.index, header.index)
            before = header

    def _two_stored(self, kind: Kind, first: int, second: int) -> None:
        headers = self.new.signed_header(first), self.new.signed_header(second)
        if headers[0] is not None and headers[1] is not None:
            self._two(kind, (first, headers[0]), (second, headers[1]))

    def _compare_chains(self, old: _Side) -> None:
        """Where both disclosures have a commit, it is the same."""
        for index, header in old.view.headers.items():
            other = self.new.view.headers.get(index)
            if other is None or other.raw == header.raw:
                continue
            first, second = old.signed_header(index), self.new.signed_header(index)
            if first is not None and second is not None:
                self._two(Kind.FORKED, (index, first), (index, second))

    def _check_loose(self, loose: list[tuple[Header, SignedHeader]]) -> None:
        """Headers that holders of receipts have are of one history, with one another and with the disclosed one."""
        by_index: dict[int, tuple[Header, SignedHeader]] = {}
        for header, signed in loose:
            known = by_index.setdefault(header.index, (header, signed))
            if known[0].raw != header.raw:
                self._two(Kind.FORKED, (header.index, known[1]), (header.index, signed))
        latest: tuple[Header, SignedHeader] | None = None
        for index in sorted(by_index):
            header, signed = by_index[index]
            before = by_index.get(index - 1) or self._stored(index - 1)
            if before is not None and header.previous != before[0].commit_hash:
                self._two(Kind.UNLINKED, (index - 1, before[1]), (index, signed))
            after = self._stored(index + 1)
            if after is not None and after[0].previous != header.commit_hash:
                self._two(Kind.UNLINKED, (index, signed), (index + 1, after[1]))
            if latest is not None and latest[0].time_ms > header.time_ms:
                self._two(Kind.REVERSED, (latest[0].index, latest[1]), (index, signed))
            if latest is None or header.time_ms > latest[0].time_ms:
                latest = header, signed

    def _stored(self, index: int) -> tuple[Header, SignedHeader] | None:
        header = self.new.view.headers.get(index)
        signed = self.new.signed_header(index) if header is not None else None
        return None if header is None or signed is None else (header, signed)

    def _two(self, kind: Kind, first: tuple[int, SignedHeader], second: tuple[int, SignedHeader]) -> None:
        where = f"commits {first[0]} and {second[0]}: the relay signed both, and {kind.value} they are"
        self._propose(where, self._bundle(kind, headers=(first[1], second[1])))

    def _check_date(self) -> None:
        """The head is not younger than the disclosure that ends with it."""
        head = self.new.view.headers.get(self.new.manifest.head_index)
        signed = self.new.signed_header(self.new.manifest.head_index)
        if head is None or signed is None:
            return
        for kind, holds in (
            (Kind.DATED_BACK, head.time_ms // 1_000 > self.new.manifest.taken_at + MARGIN_S),
            (Kind.HEAD_FORKED, head.commit_hash != self.new.manifest.head_hash),
        ):
            if holds:
                where = f"head: commit {head.index} and the manifest contradict each other"
                self._propose(where, self._bundle(kind, headers=(signed,), disclosures=(self.new.without_store,)))

    # ------------------------------------------------------------------------------------------------------- earlier

    def _compare_heads(self, old: _Side) -> None:
        first, second = old.manifest, self.new.manifest
        if first.taken_at > second.taken_at:
            raise EvidenceError("earlier disclosure", "was taken after the other one")
        if first.rotations != second.rotations[: len(first.rotations)]:
            if first.rotations[: len(second.rotations)] == second.rotations:
                self._suspect("the earlier disclosure knows a rotation of the relay's key that the later one does not")
            else:
                bundle = self._bundle(Kind.KEYS_FORKED, other_rotations=second.rotations)
                self._propose("rotations: the relay's key was changed in two ways", bundle, first.rotations)
            return
        for kind, holds in (
            (Kind.SHORTENED, first.taken_at < second.taken_at and first.head_index > second.head_index),
            (Kind.HEADS_FORKED, first.head_index == second.head_index and first.head_hash != second.head_hash),
        ):
            if holds:
                parts = (old.without_store, self.new.without_store)
                self._propose("heads of the two disclosures", self._bundle(kind, disclosures=parts))
        header = self.new.view.headers.get(first.head_index)
        signed = self.new.signed_header(first.head_index)
        if header is not None and signed is not None and header.commit_hash != first.head_hash:
            bundle = self._bundle(Kind.HEAD_FORKED, headers=(signed,), disclosures=(old.without_store,))
            self._propose(f"commit {header.index} is not the one that the earlier disclosure ended with", bundle)

    def _follow_rows(self, old: _Side) -> None:
        """Each envelope of the earlier disclosure is a receipt that the relay gave by disclosing it."""
        commits = _Commits(old)
        for row in old.view.live.values():
            item = commits.receipt_of(row)
            if item is not None:
                self.found.earlier_rows += 1
                where = f"envelope {row.envelope_id.hex()[:8]}… of the earlier disclosure"
                self._take_receipt(item, where, of_the_relay=True)
        for key, stone in old.view.tombstones.items():
            if not is_proven(stone):
                continue
            self.found.earlier_rows += 1
            for kind in (Kind.REVIVED, Kind.TOMBSTONE_CHANGED):
                bundle = self._bundle(kind, disclosures=(old.handed_over, self.new.handed_over), subject=key)
                if self._may_be(kind, old, key):
                    self._propose(f"tombstone {key.hex()[:8]}… of the earlier disclosure", bundle)

    def _may_be(self, kind: Kind, old: _Side, key: bytes) -> bool:
        """A cheap look before a bundle with two stores is tried."""
        stone, other = old.view.tombstones[key], self.new.view.tombstones.get(key)
        if kind is Kind.TOMBSTONE_CHANGED:
            due = stone.integer("expiry") <= self.new.manifest.taken_at + MARGIN_S
            return not due and (other is None or other.values != stone.values)
        return other is None

    # ------------------------------------------------------------------------------------------------------- bundles

    def _bundle(
        self,
        kind: Kind,
        *,
        receipts: tuple[ReceiptItem, ...] = (),
        headers: tuple[SignedHeader, ...] = (),
        disclosures: tuple[HandedOver, ...] = (),
        subject: bytes = b"",
        other_rotations: tuple[bytes, ...] = (),
    ) -> Bundle:
        card = self.new.card
        return Bundle(
            kind,
            card.relay_id,
            card.signing_key,
            card.partition,
            self.new.manifest.rotations,
            receipts,
            headers,
            disclosures,
            subject,
            other_rotations,
        )

    def _propose(self, where: str, bundle: Bundle, rotations: tuple[bytes, ...] | None = None) -> None:
        """Hand out a bundle if it convinces a third party."""
        if rotations is not None:
            bundle = replace(bundle, rotations=rotations)
        if sum(len(accusation.bundle) for accusation in self.found.accusations) > CARRIED_BYTES_MAX:
            # Enough copies of the store are in hand: whoever reads the others needs the disclosure.
            bundle = replace(bundle, disclosures=tuple(replace(part, store=b"") for part in bundle.disclosures))
        try:
            data = encode_bundle(bundle)
            if any(accusation.bundle == data for accusation in self.found.accusations):
                return
            if len(self.found.accusations) >= ACCUSATIONS_MAX:
                self.found.contradictions += 1
                return
            conviction = prove(data, self.new.card, stores=self.shelf)
        except AuditError as error:
            if bundle.kind in {Kind.REVIVED, Kind.TOMBSTONE_CHANGED}:
                # Only looked as if it could be: an envelope may come and go between two disclosures.
                return
            self._suspect(f"{where} ({error})")
            return
        self.found.contradictions += 1
        self.found.accusations.append(Accusation(where, data, conviction))

    def _suspect(self, text: str) -> None:
        self.found.contradictions += 1
        self.found.suspicions.append(text)


class _Commits:
    """The commits of a disclosed store: with them a disclosed row amounts to a receipt.

    Args:
        side: The disclosure.
    """

    def __init__(self, side: _Side) -> None:
        store = side.case.store
        assert store is not None
        self._rows = {row.seq: row for row in store.tables["commits"]}
        self._tree: tuple[int, list[list[bytes]]] = (0, [])

    def receipt_of(self, row: EnvelopeRow) -> ReceiptItem | None:
        """The receipt of a row; None if its commit or leaf is not there."""
        commit = self._rows.get(row.commit_index)
        if commit is None or row.leaf >= len(commit.blob("leaves")) // 32:
            return None
        if self._tree[0] != row.commit_index:
            # Rows come in the order of their commits: one tree at a time is enough.
            leaves = commit.blob("leaves")
            self._tree = row.commit_index, levels_of([leaves[i : i + 32] for i in range(0, len(leaves), 32)])
        return ReceiptItem(
            "the relay",
            commit.blob("header"),
            commit.blob("signature"),
            row.mailbox,
            row.envelope_id,
            row.expiry,
            row.number,
            row.leaf,
            path_in(self._tree[1], row.leaf),
            row.body_sha256,
            b"",
        )


def levels_of(leaves: list[bytes]) -> list[list[bytes]]:
    """The tree of RFC 9162 section 2.1.1, level by level: an odd node is carried up as it is."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        levels.append([*above, level[-1]] if len(level) % 2 else above)
    return levels


def path_in(levels: list[list[bytes]], index: int) -> bytes:
    """The inclusion path of RFC 9162 section 2.1.3.1: on each level the sibling, where there is one."""
    path = []
    for level in levels[:-1]:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling])
        index >>= 1
    return b"".join(path)
