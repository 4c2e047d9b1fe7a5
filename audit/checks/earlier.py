"""Two disclosures of one relay are consistent (protocol.md sections 2.2, 2.6, 5 and 9).

The chain of commits goes on where it was; keys change by cross-signed rotations; what the relay disclosed first binds
it as a receipt does: each envelope is still there, or was acknowledged, withdrawn, closed or has expired. Rows that the
protocol keeps for good are still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from audit.case import Case
from audit.errors import EvidenceError
from audit.evidence.gather import gather
from audit.outcome import About, Outcome
from audit.store import Store, StoredRow

ABOUT = About(
    "history.earlier",
    "the disclosure continues an earlier one",
    "Nothing that the relay had disclosed before was rewritten, taken out or brought back; its keys changed as the "
    "protocol says.",
    "What came and went between the two disclosures, unless somebody holds its receipt.",
    "2, 5, 9",
)
_FOR_GOOD: Final = {
    "lists": ("account", "version", "signed_list"),
    "tenants": ("domain", "admin_key"),
    "rotations": ("record",),
    "mailboxes": ("mailbox", "device_key", "account", "enrolled_day"),
}
"""Tables whose rows stay, and the columns that never change."""


def check(case: Case, outcome: Outcome) -> None:
    """Compare with the earlier disclosure that was given."""
    earlier = case.earlier
    assert earlier is not None
    try:
        found = gather(case, earlier, receipts=False)
    except EvidenceError as error:
        outcome.miss(f"{error.where}: {error.problem}")
        return
    for accusation in found.accusations:
        conditions = "".join(f" ({condition})" for condition in accusation.conviction.conditions)
        outcome.fail(accusation.where, f"{accusation.conviction.statement[-1]}{conditions}")
    for suspicion in found.suspicions:
        outcome.fail("earlier disclosure", suspicion)
    assert case.store is not None
    assert earlier.store is not None
    _check_kept(earlier.store, case.store, outcome)
    assert case.manifest is not None
    assert earlier.manifest is not None
    outcome.figures.update(
        {
            "commits since": max(0, case.manifest.head_index - earlier.manifest.head_index),
            "rows followed": found.earlier_rows,
            "rotations since": len(case.manifest.rotations) - len(earlier.manifest.rotations),
        }
    )
    outcome.evidence = (
        f"{found.earlier_rows:,} envelopes and tombstones of the earlier disclosure followed, "
        f"{outcome.figures['commits since']:,} commits since"
    )


def _check_kept(before: Store, now: Store, outcome: Outcome) -> None:
    for table, columns in _FOR_GOOD.items():
        rows = {row.seq: row for row in now.tables[table]}
        gone = [row.seq for row in before.tables[table] if not _is_kept(row, rows.get(row.seq), columns)]
        if gone:
            outcome.fail(f"{table} row {gone[0]}", f"{len(gone)} rows of the earlier disclosure are gone or others")
    closed = {row.seq for row in before.tables["mailboxes"] if row.integer("closed")}
    reopened = [row.seq for row in now.tables["mailboxes"] if row.seq in closed and not row.integer("closed")]
    if reopened:
        outcome.fail(f"mailboxes row {reopened[0]}", "was closed in the earlier disclosure, and is open again")


def _is_kept(before: StoredRow, now: StoredRow | None, columns: Iterable[str]) -> bool:
    return now is not None and all(before.values[column] == now.values[column] for column in columns)
