"""Each volunteered receipt is honoured (protocol.md sections 5.2, 5.3 and 12.2, item 2).

A receipt binds the relay: until the envelope is acknowledged, withdrawn or expired, it is in the store with that very
body. The receipt's own signature and path are checked first, since one that the relay did not sign binds it to
nothing.
"""

from __future__ import annotations

from audit.case import Case
from audit.errors import AuditError
from audit.evidence.judge import MARGIN_S, View, judge, verify_receipt
from audit.manifest import Header
from audit.material import ReceiptItem
from audit.outcome import About, Outcome

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
    card = case.card or case.disclosed_card
    tables = case.store.tables
    view = View(case.headers, case.live, case.tombstones, tables["mailboxes"], tables["lists"])
    counts: dict[str, int] = {}
    for item in items:
        where = f"receipt of {item.who} for envelope {item.envelope_id.hex()[:8]}…"
        try:
            header = verify_receipt(item, case.key_ring, *((card.relay_id, card.partition) if card else (None, None)))
        except AuditError as error:
            outcome.miss(f"{where}: cannot be used as evidence ({error})")
            continue
        how = _judge(case, item, header, view, where, outcome)
        counts[how] = counts.get(how, 0) + 1
    outcome.figures.update({"receipts": len(items), **counts})
    told = ", ".join(f"{count} {how}" for how, count in counts.items())
    outcome.evidence = f"{len(items)} receipts: {told or 'none could be used'}"


def _judge(case: Case, item: ReceiptItem, header: Header, view: View, where: str, outcome: Outcome) -> str:
    """Return in a word how a receipt was honoured; record a failure if it was not."""
    assert case.manifest is not None
    later = header.index > case.manifest.head_index
    if later and (how := _by_the_orderers_clock(case, header, where, outcome)):
        return how
    judgement = judge(item, header, case.manifest, view)
    if judgement.kind is not None:
        outcome.fail(where, judgement.text)
    elif judgement.text:
        # That the tombstone is gone before its time harms nobody but the relay's word.
        outcome.note(f"{where}: {judgement.text}")
    return judgement.how


def _by_the_orderers_clock(case: Case, header: Header, where: str, outcome: Outcome) -> str:
    """A commit after the head may be older than the order: only the orderer can say so, and it is his word."""
    assert case.manifest is not None
    made_at, requested_at = header.time_ms // 1000, case.order.requested_at if case.order else 0
    if made_at + MARGIN_S < requested_at:
        outcome.fail(
            where,
            f"was given {requested_at - made_at} s before the orderer asked, and is of commit {header.index}, "
            f"which the disclosure does not have: it ends at {case.manifest.head_index}",
        )
        return "broken"
    if case.manifest.taken_at <= made_at < requested_at:
        outcome.miss(
            f"{where}: given after taken_at, {requested_at - made_at} s before the orderer asked: either the "
            "clock of the relay is behind the orderer's, or the disclosure is dated back"
        )
    return ""
