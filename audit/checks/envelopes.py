"""Every row is strictly an envelope (protocol.md sections 4.4, 5.1 and 9)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from audit import disclosure as names
from audit.case import Case
from audit.checks.schema import report_unreadable_store
from audit.equal_values import as_values, repeated, sort_keys
from audit.manifest import Header
from audit.outcome import About, Outcome
from audit.rows import Words
from audit.store import Store

ABOUT = About(
    "store.envelopes",
    "every row is an envelope and nothing more",
    "Each field has its size, each body a size of section 4.4 and the look of random bytes; no key commitment, "
    "nonce, id or "
    "number occurs twice, which a client with a constant key could not keep up. Rows and numbers are "
    "counted as envelopes came, so that they hold nothing else.",
    "That a body is encrypted under a key that the relay does not have: openings, searches and receipts speak to that.",
    "4.4, 5, 9",
)
HOUR_S: Final = 3600
RETENTION_S: Final = 30 * 86_400
SKEW_S: Final = 300
CHI_SQUARE_MAX: Final = 700.0
"""For 255 degrees of freedom the mean is 255 and the deviation 22.6, so random bytes come nowhere near; ASCII text of
400 bytes gives some 5,000, base64 1,200."""


def check(case: Case, outcome: Outcome) -> None:
    """Check rows one by one, then against one another."""
    store = case.store
    if store is None:
        report_unreadable_store(case, outcome)
        return
    for problem in store.row_problems:
        outcome.fail(names.STORE, problem)
    outcome.finding_count += store.row_problem_count - len(store.row_problems)
    _check_unique(case, outcome)
    _check_expiry(case, outcome)
    _check_numbers(case, outcome)
    _check_counts(case, outcome)
    _check_randomness(case, outcome)
    outcome.figures.update(
        {
            "envelopes": len(store.envelopes),
            "bodies, bytes": int(store.envelopes.integers("body_bytes").sum()),
            "different sizes": store.envelopes.different("body_bytes"),
        }
    )
    outcome.evidence = (
        f"{len(store.envelopes):,} envelopes, {outcome.figures['bodies, bytes']:,} bytes of bodies, "
        "all key commitments and nonces different"
        if not outcome.finding_count
        else f"{len(store.envelopes):,} envelopes"
    )


def _row(seq: int) -> str:
    return f"envelopes row {seq}"


def _check_unique(case: Case, outcome: Outcome) -> None:
    assert case.store is not None
    rows = case.store.envelopes
    if not len(rows):
        return
    both = np.concatenate((_bytes_of(rows.mailboxes()), _bytes_of(rows.ids())), axis=1)
    for name, values in (
        ("key commitment", rows.commitments()),
        ("nonce", rows.nonces()),
        ("mailbox and envelope id", as_values(both)),
    ):
        first: dict[bytes, int] = {}
        for position in repeated(values):
            value, seq = values[position].tobytes(), rows[position].seq
            if value in first:
                outcome.fail(
                    _row(seq), f"has the {name} of row {first[value]}: a key used again is no secret of one message"
                )
            first.setdefault(value, seq)
    if case.store.tables["tombstones"]:
        for row in rows:
            if row.mailbox not in case.preserved and case.tombstone_of(row.mailbox, row.envelope_id):
                outcome.fail(_row(row.seq), "is said to be erased by a tombstone, and is still here")


def _bytes_of(values: NDArray[np.void]) -> NDArray[np.uint8]:
    return values.view(np.uint8).reshape(len(values), -1)


def _check_expiry(case: Case, outcome: Outcome) -> None:
    assert case.store is not None
    rows = case.store.envelopes
    expiries, commits = rows.integers("expiry"), rows.integers("commit_index")
    if len(rows):
        # Most envelopes share commit and expiry with many others: each pair is judged once.
        pairs, place = np.unique(np.column_stack((expiries, commits)), axis=0, return_inverse=True)
        wrong = np.array(
            [expiry_problem(expiry, case.headers.get(commit)) is not None for expiry, commit in pairs.tolist()]
        )
        for position in np.flatnonzero(wrong[place.reshape(-1)]).tolist():
            row = rows[position]
            outcome.fail(_row(row.seq), expiry_problem(row.expiry, case.headers.get(row.commit_index)) or "")
    if case.preserved:
        outcome.note(
            f"{len(case.preserved)} mailboxes are preserved by order, and hold {len(case.kept)} envelopes that were "
            "acknowledged or withdrawn: compare with the public log"
        )
        outcome.figures.update({"preserved mailboxes": len(case.preserved), "kept though acknowledged": len(case.kept)})
    past = int((expiries <= case.taken_at).sum()) if case.taken_at is not None else 0
    uneven = int((expiries % HOUR_S != 0).sum())
    if past:
        outcome.note(f"{past} envelopes are past their expiry and not yet erased")
    if uneven:
        outcome.note(f"{uneven} expiries are no full hour: their senders told the relay more than they had to")
    outcome.figures.update({"past their expiry": past, "expiry not a full hour": uneven})


def expiry_problem(expiry: int, header: Header | None) -> str | None:
    """What is wrong with an expiry beside the time of its commit (section 1.7), if that time is known."""
    if header is None:
        return None
    committed_s = header.time_ms // 1000
    if expiry > committed_s + RETENTION_S + SKEW_S:
        return f"its expiry {expiry} lies more than 30 days after its commit"
    if expiry < committed_s - SKEW_S:
        return f"its expiry {expiry} lies before its commit"
    return None


def _check_numbers(case: Case, outcome: Outcome) -> None:
    """Numbers are unique in a mailbox and rise with the order of arrival, tombstones included."""
    assert case.store is not None
    rows, stones = case.store.envelopes, case.store.tables["tombstones"]
    mailboxes = sort_keys(np.concatenate((rows.mailboxes(), stones.blobs("mailbox"))))
    numbers, commits, leaves = (
        np.concatenate((rows.integers(column), stones.integers(column)))
        for column in ("number", "commit_index", "leaf")
    )
    order = np.lexsort((leaves, commits, numbers, mailboxes))
    before, after = order[:-1], order[1:]
    same = mailboxes[before] == mailboxes[after]
    if case.kept:
        # An envelope and its own tombstone, one behind the other: checks/commits.py holds their places together.
        waiting = len(rows)
        same &= ~np.array(
            [
                one < waiting <= other and stones[other - waiting].blob("key") in case.kept
                for one, other in zip(before.tolist(), after.tolist(), strict=True)
            ],
            dtype=bool,
        )
    earlier = (commits[after] < commits[before]) | (
        (commits[after] == commits[before]) & (leaves[after] <= leaves[before])
    )
    for place in np.flatnonzero(same & ((numbers[before] == numbers[after]) | earlier)).tolist():
        one, other = int(before[place]), int(after[place])
        if numbers[one] == numbers[other]:
            outcome.fail(
                _arrival(case.store, other),
                f"has number {numbers[other]}, as {_arrival(case.store, one)} of the same mailbox",
            )
        else:
            outcome.fail(
                _arrival(case.store, other),
                f"has a higher number than {_arrival(case.store, one)}, and an earlier place in the commits",
            )
    first = np.ones(len(order), dtype=bool)
    first[1:] = ~same
    for position in order[first & (numbers[order] < 1)].tolist():
        outcome.fail(_arrival(case.store, position), "has number 0; numbers begin at 1")


def _not_after(commits: Words, leaves: Words, other_commits: Words, other_leaves: Words) -> NDArray[np.bool_]:
    """Where a place in the commits is not behind another one."""
    behind: NDArray[np.bool_] = (commits < other_commits) | ((commits == other_commits) & (leaves <= other_leaves))
    return behind


def _arrival(store: Store, position: int) -> str:
    """The row at a position, tombstones counted on behind envelopes."""
    count = len(store.envelopes)
    if position < count:
        return _row(store.envelopes[position].seq)
    return f"tombstones row {store.tables['tombstones'][position - count].seq}"


def _check_counts(case: Case, outcome: Outcome) -> None:
    """Row numbers follow the order of the commits, and neither they nor numbers of mailboxes exceed what was committed.

    Free numbers would be room for eight bytes of anything in each row.
    """
    assert case.store is not None
    rows = case.store.envelopes
    commits, leaves, seqs = (rows.integers(column) for column in ("commit_index", "leaf", "seq"))
    earlier = _not_after(commits[1:], leaves[1:], commits[:-1], leaves[:-1])
    for at in np.flatnonzero(earlier).tolist():
        outcome.fail(_row(seqs[at + 1]), f"stands behind row {seqs[at]}, and has an earlier place in the commits")
    if 1 not in case.headers:
        outcome.note("how high numbers may be: the first commits are pruned, or there are none")
        return
    committed = sum(header.leaf_count for header in case.headers.values())
    given = numbers_given(case.store)
    if given > committed:
        outcome.fail("mailboxes", f"have given {given} numbers, for {committed} envelopes that were ever committed")
    for table, numbers in (("envelopes", seqs), ("tombstones", case.store.tables["tombstones"].seqs())):
        highest = int(numbers.max(initial=0))
        if highest > committed:
            outcome.fail(f"{table} row {highest}", f"only {committed} envelopes were ever committed")


def numbers_given(store: Store) -> int:
    """How many envelopes the mailboxes of a store have ever had, by the numbers that they have given."""
    mailboxes, rows, stones = store.tables["mailboxes"], store.envelopes, store.tables["tombstones"]
    keys = sort_keys(np.concatenate((mailboxes.blobs("mailbox"), rows.mailboxes(), stones.blobs("mailbox"))))
    if not len(keys):
        return 0
    highest = np.zeros(int(keys.max()) + 1, dtype=np.int64)
    numbers = (mailboxes.integers("newest"), rows.integers("number"), stones.integers("number"))
    np.maximum.at(highest, keys, np.concatenate(numbers))
    # Python's own sum: a hostile store's numbers may overflow 64 bits.
    return sum(highest.tolist())


def _check_randomness(case: Case, outcome: Outcome) -> None:
    """A body that is not evenly distributed over byte values is no ciphertext."""
    assert case.store is not None
    unevenness = case.store.envelopes.unevenness()
    for position in np.flatnonzero(unevenness > CHI_SQUARE_MAX).tolist():
        outcome.fail(
            _row(case.store.envelopes[position].seq),
            f"its body does not look like ciphertext: chi-square {unevenness[position]:,.0f} over 255 degrees",
        )
    outcome.figures["highest chi-square"] = round(float(unevenness.max(initial=0.0)))
