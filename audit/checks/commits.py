"""The chain of commits: signed, unbroken, and each envelope is the one that was receipted (protocol.md sections 5.2
and 9).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.checks.envelopes import HOUR_S, SKEW_S, expiry_problem
from audit.checks.schema import report_unreadable_store
from audit.crypto import leaf_of
from audit.errors import SignatureError
from audit.manifest import ZERO_HASH, Header
from audit.merkle import root_of
from audit.outcome import About, Outcome
from audit.schema import REASON_ACKED, REASON_CLOSED, REASON_WITHDRAWN
from audit.store import StoredRow

ABOUT = About(
    "store.commits",
    "the chain of commits is signed and unbroken, and every leaf is accounted for",
    "Each live envelope is, body included, the one that the relay receipted; each leaf is a live envelope, a "
    "tombstone, or old "
    "enough to have expired; t behind an ack or withdrawal leads to its tombstone.",
    "That the relay shows the same chain to everybody: compare receipts. A leaf that could have expired proves "
    "nothing.",
    "5.2, 5.3, 9",
)
LEAVES_SHOWN: Final = 10


def check(case: Case, outcome: Outcome) -> None:
    """Check headers, then the leaves against rows and tombstones."""
    store = case.store
    if store is None:
        report_unreadable_store(case, outcome)
        return
    rows = store.tables["commits"]
    for row in rows:
        if row.seq not in case.headers:
            outcome.fail(f"commit {row.seq}", str(case.problems.get(f"commit {row.seq}", "malformed")))
    _check_chain(case, outcome, rows)
    used = _Leaves({row.seq: len(row.blob("leaves")) // 32 for row in rows})
    _check_live(case, outcome, used)
    _check_tombstones(case, outcome, used)
    _check_leaves(case, outcome, used)
    outcome.figures.update(
        {
            "commits": len(rows),
            "leaves": sum(header.leaf_count for header in case.headers.values()),
            "live envelopes": len(store.envelopes),
            "tombstones": len(store.tables["tombstones"]),
        }
    )
    outcome.evidence = (
        f"{len(rows):,} commits, {outcome.figures['leaves']:,} leaves: {len(store.envelopes):,} live, "
        f"{len(store.tables['tombstones']):,} tombstones, {outcome.figures['leaves expired or unknown']:,} "
        "expired or unknown"
    )


def _check_chain(case: Case, outcome: Outcome, rows: Sequence[StoredRow]) -> None:
    """Headers: index, name, time, link to the one before, root, signature; and the head of the manifest."""
    before: Header | None = None
    for row in rows:
        where = f"commit {row.seq}"
        header = case.headers.get(row.seq)
        if header is None:
            before = None
            continue
        if header.index != row.seq:
            outcome.fail(where, f"its header has index {header.index}")
        card = case.card or case.disclosed_card
        if card is not None and (header.relay_id, header.partition) != (card.relay_id, card.partition):
            outcome.fail(where, "its header is another relay's or partition's")
        _check_link(before, header, outcome, where)
        _check_root(header, row, outcome, where)
        if case.taken_at is not None and header.time_ms // 1000 > case.taken_at + SKEW_S:
            outcome.fail(where, "was made after the disclosure was taken")
        if case.key_ring is None:
            outcome.miss("the relay's keys: signatures of commits could not be checked")
        else:
            try:
                case.key_ring.verify_header(header, row.blob("signature"))
            except SignatureError as error:
                outcome.fail(where, error.problem)
        before = header
    _check_head(case, outcome, rows)
    _check_rotated(case, outcome)


def _check_link(before: Header | None, header: Header, outcome: Outcome, where: str) -> None:
    if before is None:
        if header.index == 1 and header.previous != ZERO_HASH:
            outcome.fail(where, "names a commit before the first")
        elif header.index > 1:
            outcome.note(f"commits before {header.index}: pruned, as section 9 allows, so nothing here links to them")
        return
    if header.index != before.index + 1:
        outcome.fail(where, f"follows commit {before.index}: commits between them are missing")
    elif header.previous != before.commit_hash:
        outcome.fail(where, "does not name the hash of the commit before it: the chain is forked or rewritten")
    if header.time_ms < before.time_ms:
        outcome.fail(where, "is earlier than the commit before it")


def _check_root(header: Header, row: StoredRow, outcome: Outcome, where: str) -> None:
    leaves = row.blob("leaves")
    if len(leaves) != 32 * header.leaf_count:
        outcome.fail(where, f"{len(leaves)} bytes of leaves for a count of {header.leaf_count}")
        return
    if root_of([leaves[i : i + 32] for i in range(0, len(leaves), 32)]) != header.root:
        outcome.fail(where, "its leaves do not make its root")


def _check_head(case: Case, outcome: Outcome, rows: Sequence[StoredRow]) -> None:
    manifest = case.manifest
    if manifest is None:
        return
    if rows:
        last = case.headers.get(rows[-1].seq)
        if last is not None and (last.index, last.commit_hash) != (manifest.head_index, manifest.head_hash):
            outcome.fail(
                "head",
                f"the manifest's is commit {manifest.head_index}, the store ends with another commit {last.index}",
            )
    elif manifest.head_index:
        outcome.note(f"commits up to {manifest.head_index}: all pruned")
    elif manifest.head_hash != ZERO_HASH:
        outcome.fail("head", "no commit was made, and the manifest names one")


def _check_rotated(case: Case, outcome: Outcome) -> None:
    for period in case.key_ring.periods if case.key_ring else ():
        if case.taken_at is not None and period.ended_s > case.taken_at + SKEW_S:
            outcome.fail("rotations", f"one is of {period.ended_s}, after the disclosure was taken")
        header = case.headers.get(period.last_index) if period.last_index else None
        if header is not None and header.commit_hash != period.last_hash:
            outcome.fail(f"commit {header.index}", "is not the one that the key's rotation names as the old key's last")


def _check_live(case: Case, outcome: Outcome, used: _Leaves) -> None:
    """Each live row's leaf is recomputed from its very body; a swapped body shows here."""
    assert case.store is not None
    leaves = {row.seq: row.blob("leaves") for row in case.store.tables["commits"]}
    for row in case.store.envelopes:
        where = f"envelopes row {row.seq}"
        commit = leaves.get(row.commit_index)
        if commit is None:
            outcome.fail(where, f"its commit {row.commit_index} is not in the store")
            continue
        _use(used, row.commit_index, row.leaf, where, outcome)
        leaf = leaf_of(row.mailbox, row.envelope_id, row.expiry, row.number, row.body_sha256)
        if commit[32 * row.leaf : 32 * row.leaf + 32] != leaf:
            outcome.fail(
                where,
                f"is not what leaf {row.leaf} of commit {row.commit_index} was signed for: body or fields were swapped",
            )


def _check_tombstones(case: Case, outcome: Outcome, used: _Leaves) -> None:
    assert case.store is not None
    counts = {index: header.leaf_count for index, header in case.headers.items()}
    by_reason = dict.fromkeys((REASON_ACKED, REASON_WITHDRAWN, REASON_CLOSED), 0)
    for stone in case.store.tables["tombstones"]:
        where = f"tombstones row {stone.seq}"
        reason, token = stone.integer("reason"), stone.blob("token")
        place = stone.integer("commit_index"), stone.integer("leaf")
        if reason not in by_reason:
            outcome.fail(where, f"reason {reason} is unknown")
            continue
        by_reason[reason] += 1
        if reason in {REASON_ACKED, REASON_WITHDRAWN}:
            if not case.proves_erasure(stone, stone.blob("mailbox")):
                outcome.fail(where, "its t does not lead to its key: nobody acknowledged or withdrew this envelope")
        elif token:
            outcome.fail(where, f"reason {reason} has no t, and {len(token)} bytes stand there")
        if place[0] not in counts:
            outcome.fail(where, f"its commit {place[0]} is not in the store")
        elif case.kept.get(stone.blob("key"), place) != place:
            outcome.fail(where, "has another place in the commits than the preserved envelope that it is of")
        elif place[1] >= counts[place[0]]:
            outcome.fail(where, f"its commit {place[0]} has no leaf {place[1]}")
        elif stone.blob("key") not in case.kept:
            _use(used, *place, where, outcome)
        header = case.headers.get(place[0])
        problem = expiry_problem(stone.integer("expiry"), header)
        if problem:
            outcome.fail(where, problem)
    outcome.figures.update(
        {
            "acked": by_reason[REASON_ACKED],
            "withdrawn": by_reason[REASON_WITHDRAWN],
            "mailbox closed": by_reason[REASON_CLOSED],
        }
    )


class _Leaves:
    """Which row claims which leaf: 8 bytes a leaf. Envelopes have positive numbers, tombstones negative ones."""

    def __init__(self, counts: dict[int, int]) -> None:
        # As many as are really there: a header may claim 2^32 of them.
        self._claims = {index: array("q", bytes(8 * count)) for index, count in counts.items()}

    def claim(self, index: int, leaf: int, seq: int) -> int:
        """Claim a leaf; return who had claimed it, or 0."""
        claims = self._claims.get(index)
        if claims is None or not 0 <= leaf < len(claims):
            # There is no such leaf, which is found where leaves are compared.
            return 0
        before, claims[leaf] = claims[leaf], seq
        return before

    def unclaimed(self, index: int, count: int) -> list[int]:
        """Which of a commit's first leaves nobody claims."""
        return [leaf for leaf, seq in enumerate(self._claims[index][:count]) if not seq]


def _use(used: _Leaves, index: int, leaf: int, where: str, outcome: Outcome) -> None:
    table, _, seq = where.rpartition(" row ")
    before = used.claim(index, leaf, int(seq) if table == "envelopes" else -int(seq))
    if before:
        other = f"envelopes row {before}" if before > 0 else f"tombstones row {-before}"
        outcome.fail(where, f"claims leaf {leaf} of commit {index}, as {other} does")


def _check_leaves(case: Case, outcome: Outcome, used: _Leaves) -> None:
    """A leaf that neither a row nor a tombstone explains can only have expired.

    Senders round expiries up to full hours (section 5.1), so a leaf cannot have expired if no full hour has passed
    between its commit and the disclosure. An older one may have: only its receipt can tell (check
    volunteered.receipts).
    """
    assert case.store is not None
    unknown = 0
    for row in case.store.tables["commits"]:
        index, header = row.seq, case.headers.get(row.seq)
        if header is None:
            continue
        # The leaves that are really there: a header may claim 2^32 of them.
        stored = min(header.leaf_count, len(row.blob("leaves")) // 32)
        missing = used.unclaimed(index, stored)
        unknown += len(missing)
        if missing and case.taken_at is not None and not _hour_between(header.time_ms // 1000, case.taken_at):
            shown = ", ".join(str(leaf) for leaf in missing[:LEAVES_SHOWN])
            outcome.fail(
                f"commit {index}",
                f"{len(missing)} of its leaves ({shown}) are in {names.STORE} neither as envelope nor as tombstone, "
                "and cannot have expired yet: envelopes were left out",
            )
    outcome.figures["leaves expired or unknown"] = unknown
    if unknown:
        outcome.note(
            f"{unknown} leaves are neither live nor tombstoned; that they expired is the relay's word, unless a "
            "receipt says otherwise"
        )


def _hour_between(committed_s: int, taken_s: int) -> bool:
    return (taken_s + SKEW_S) // HOUR_S > (committed_s - SKEW_S) // HOUR_S
