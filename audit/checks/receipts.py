"""Each volunteered receipt is honoured (protocol.md sections 5.2, 5.3 and 12.2, item 2).

A receipt binds the relay: until the envelope is acknowledged, withdrawn or expired, it is in the store with that very
body. The receipt's own signature and path are checked first, since one that the relay did not sign binds it to
nothing.
"""

from __future__ import annotations

from audit.case import Case
from audit.checks.envelopes import SKEW_S
from audit.crypto import envelope_id_of, leaf_of
from audit.errors import AuditError, EvidenceError
from audit.manifest import Header, read_header
from audit.material import ReceiptItem
from audit.merkle import verify_inclusion
from audit.outcome import About, Outcome
from audit.schema import REASON_ACKED, REASON_CLOSED, REASON_WITHDRAWN
from audit.store import StoredRow

ABOUT = About(
    "evidence.receipts",
    "each volunteered receipt is honoured",
    "Every envelope that a participant holds the relay's signature for is in the store, body included, or was "
    "acknowledged, withdrawn, "
    "closed or had expired; and the participant's chain of commits is the store's.",
    "Envelopes whose receipts nobody volunteered.",
    "5.2, 5.3, 12.2",
)


def check(case: Case, outcome: Outcome) -> None:
    """Judge each receipt, and count how each was honoured."""
    items = case.material.receipts
    if not items:
        outcome.nothing_to_do("no receipt was volunteered")
        return
    if case.key_ring is None or case.manifest is None or case.store is None:
        outcome.miss("card, manifest and store, to check receipts against")
        return
    counts: dict[str, int] = {}
    for item in items:
        where = f"receipt of {item.who} for envelope {item.envelope_id.hex()[:8]}…"
        try:
            header = _verify(case, item)
        except AuditError as error:
            outcome.miss(f"{where}: cannot be used as evidence ({error})")
            continue
        how = _judge(case, item, header, where, outcome)
        counts[how] = counts.get(how, 0) + 1
    outcome.figures.update({"receipts": len(items), **counts})
    told = ", ".join(f"{count} {how}" for how, count in counts.items())
    outcome.evidence = f"{len(items)} receipts: {told or 'none could be used'}"


def _verify(case: Case, item: ReceiptItem) -> Header:
    """Check that the relay did sign this receipt.

    Raises:
        AuditError: It did not, or the receipt contradicts itself.
    """
    assert case.key_ring is not None
    header = read_header(item.header, "receipt header")
    card = case.card or case.disclosed_card
    if card is not None and (header.relay_id, header.partition) != (card.relay_id, card.partition):
        # A relay signs each partition's chain with one key: beside this one, another's would look forked.
        raise EvidenceError("receipt header", "is another relay's or partition's")
    case.key_ring.verify_header(header, item.signature)
    leaf = leaf_of(item.mailbox, item.envelope_id, item.expiry, item.number, item.body_hash)
    path = [item.path[i : i + 32] for i in range(0, len(item.path), 32)]
    verify_inclusion(leaf, item.leaf, header.leaf_count, path, header.root)
    return header


def _judge(case: Case, item: ReceiptItem, header: Header, where: str, outcome: Outcome) -> str:
    """Return in a word how a receipt was honoured; record a failure if it was not."""
    assert case.manifest is not None
    taken_at = case.manifest.taken_at
    if header.index > case.manifest.head_index:
        made_at, requested_at = header.time_ms // 1000, case.order.requested_at if case.order else 0
        if made_at + SKEW_S < requested_at:
            outcome.fail(
                where,
                f"was given {requested_at - made_at} s before the orderer asked, and is of commit {header.index}, "
                f"which the disclosure does not have: it ends at {case.manifest.head_index}",
            )
            return "broken"
        if made_at >= taken_at:
            if made_at < requested_at:
                outcome.miss(
                    f"{where}: given after taken_at, {requested_at - made_at} s before the orderer asked: either the "
                    "clock of the relay is behind the orderer's, or the disclosure is dated back"
                )
            return "later than the disclosure"
        outcome.fail(
            where,
            f"is of commit {header.index}, which the disclosure does not have: it ends at {case.manifest.head_index}",
        )
        return "broken"
    if not _same_chain(case, header, where, outcome):
        return "broken"
    row = case.live.get((item.mailbox, item.envelope_id))
    if row is not None:
        if row.body_sha256 != item.body_hash:
            outcome.fail(where, f"envelopes row {row.seq} has another body than the one that the relay receipted")
            return "broken"
        if (row.number, row.expiry, row.commit_index, row.leaf) != (item.number, item.expiry, header.index, item.leaf):
            outcome.fail(where, f"envelopes row {row.seq} has another number, expiry or place than the receipt")
            return "broken"
        return "in the store"
    stone = case.tombstone_of(item.mailbox, item.envelope_id)
    if stone is not None:
        return _judge_tombstone(case, item, stone, where, outcome)
    if item.expiry <= taken_at:
        return "expired"
    if item.token and envelope_id_of(item.token) == item.envelope_id:
        # Its holder acknowledged or withdrew it; that the tombstone is gone before its time harms nobody but the
        # relay's word.
        outcome.note(
            f"{where}: acknowledged or withdrawn as its holder says, and the tombstone that should be there is not"
        )
        return "acknowledged or withdrawn"
    outcome.fail(
        where,
        "the relay signed for this envelope, and disclosed neither it, nor an ack, nor a withdrawal, before its expiry",
    )
    return "broken"


def _same_chain(case: Case, header: Header, where: str, outcome: Outcome) -> bool:
    """The commit of the receipt is the commit of the store, or was pruned."""
    stored = case.headers.get(header.index)
    if stored is not None:
        if stored.commit_hash == header.commit_hash:
            return True
        outcome.fail(where, f"the relay signed two different commits {header.index}: its chain is forked")
        return False
    if case.headers and header.index > min(case.headers):
        outcome.fail(where, f"commit {header.index} is missing from the middle of the chain")
        return False
    return True


def _judge_tombstone(case: Case, item: ReceiptItem, stone: StoredRow, where: str, outcome: Outcome) -> str:
    reason = stone.integer("reason")
    if reason in {REASON_ACKED, REASON_WITHDRAWN} and case.proves_erasure(stone, item.mailbox):
        return "acknowledged or withdrawn"
    if reason == REASON_CLOSED and _is_closed(case, item.mailbox):
        return "closed with its mailbox"
    outcome.fail(where, f"a tombstone says reason {reason}, and nothing in the disclosure bears that out")
    return "broken"


def _is_closed(case: Case, mailbox: bytes) -> bool:
    assert case.store is not None
    return any(row.blob("mailbox") == mailbox and row.integer("closed") == 1 for row in case.store.tables["mailboxes"])
