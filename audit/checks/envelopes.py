"""Every row is strictly an envelope (protocol.md sections 4.4, 5.1 and 9)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from audit import disclosure as names
from audit.case import Case
from audit.checks.schema import report_unreadable_store
from audit.manifest import Header
from audit.outcome import About, Outcome
from audit.store import EnvelopeRow, Store, StoredRow

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
SAMPLE_BYTES: Final = 4096
RANDOM_ROWS_MAX: Final = 50_000
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
            "bodies, bytes": sum(row.body_bytes for row in store.envelopes),
            "different sizes": len({row.body_bytes for row in store.envelopes}),
        }
    )
    outcome.evidence = (
        f"{len(store.envelopes):,} envelopes, {outcome.figures['bodies, bytes']:,} bytes of bodies, "
        "all key commitments and nonces different"
        if not outcome.finding_count
        else f"{len(store.envelopes):,} envelopes"
    )


def _row(row: EnvelopeRow) -> str:
    return f"envelopes row {row.seq}"


def _check_unique(case: Case, outcome: Outcome) -> None:
    assert case.store is not None
    properties: tuple[tuple[str, Callable[[EnvelopeRow], bytes]], ...] = (
        ("key commitment", lambda row: row.commitment),
        ("nonce", lambda row: row.nonce),
        ("mailbox and envelope id", lambda row: row.mailbox + row.envelope_id),
    )
    for name, value_of in properties:
        counts = Counter(value_of(row) for row in case.store.envelopes)
        repeated = {value for value, count in counts.items() if count > 1}
        first: dict[bytes, int] = {}
        for row in case.store.envelopes if repeated else []:
            value = value_of(row)
            if value in first:
                outcome.fail(
                    _row(row), f"has the {name} of row {first[value]}: a key used again is no secret of one message"
                )
            elif value in repeated:
                first[value] = row.seq
    for row in case.store.envelopes:
        if case.tombstone_of(row.mailbox, row.envelope_id):
            outcome.fail(_row(row), "is said to be erased by a tombstone, and is still here")


def _check_expiry(case: Case, outcome: Outcome) -> None:
    assert case.store is not None
    past = uneven = 0
    for row in case.store.envelopes:
        header = case.headers.get(row.commit_index)
        problem = expiry_problem(row.expiry, header)
        if problem:
            outcome.fail(_row(row), problem)
        past += case.taken_at is not None and row.expiry <= case.taken_at
        uneven += row.expiry % HOUR_S != 0
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
    arrivals: dict[bytes, list[tuple[int, int, int, str]]] = defaultdict(list)
    for row in case.store.envelopes:
        arrivals[row.mailbox].append((row.number, row.commit_index, row.leaf, _row(row)))
    for stone in case.store.tables["tombstones"]:
        arrivals[stone.blob("mailbox")].append(
            (
                stone.integer("number"),
                stone.integer("commit_index"),
                stone.integer("leaf"),
                f"tombstones row {stone.seq}",
            )
        )
    for items in arrivals.values():
        items.sort()
        for before, after in pairwise(items):
            if after[0] == before[0]:
                outcome.fail(after[3], f"has number {after[0]}, as {before[3]} of the same mailbox")
            elif after[1:3] <= before[1:3]:
                outcome.fail(after[3], f"has a higher number than {before[3]}, and an earlier place in the commits")
        if items[0][0] < 1:
            outcome.fail(items[0][3], "has number 0; numbers begin at 1")


def _check_counts(case: Case, outcome: Outcome) -> None:
    """Row numbers follow the order of the commits, and neither they nor numbers of mailboxes exceed what was committed.

    Free numbers would be room for eight bytes of anything in each row.
    """
    assert case.store is not None
    for before, after in pairwise(case.store.envelopes):
        if (after.commit_index, after.leaf) <= (before.commit_index, before.leaf):
            outcome.fail(_row(after), f"stands behind row {before.seq}, and has an earlier place in the commits")
    if 1 not in case.headers:
        outcome.note("how high numbers may be: the first commits are pruned, or there are none")
        return
    committed = sum(header.leaf_count for header in case.headers.values())
    given = numbers_given(case.store)
    if given > committed:
        outcome.fail("mailboxes", f"have given {given} numbers, for {committed} envelopes that were ever committed")
    tables: tuple[tuple[str, Sequence[EnvelopeRow | StoredRow]], ...] = (
        ("envelopes", case.store.envelopes),
        ("tombstones", case.store.tables["tombstones"]),
    )
    for table, rows in tables:
        highest = max((row.seq for row in rows), default=0)
        if highest > committed:
            outcome.fail(f"{table} row {highest}", f"only {committed} envelopes were ever committed")


def numbers_given(store: Store) -> int:
    """How many envelopes the mailboxes of a store have ever had, by the numbers that they have given."""
    highest = {row.blob("mailbox"): row.integer("newest") for row in store.tables["mailboxes"]}
    for mailbox, number in (
        *((row.mailbox, row.number) for row in store.envelopes),
        *((row.blob("mailbox"), row.integer("number")) for row in store.tables["tombstones"]),
    ):
        highest[mailbox] = max(highest.get(mailbox, 0), number)
    return sum(highest.values())


def _check_randomness(case: Case, outcome: Outcome) -> None:
    """A body that is not evenly distributed over byte values is no ciphertext."""
    assert case.store is not None
    highest = 0.0
    for row in case.store.envelopes[:RANDOM_ROWS_MAX]:
        body = case.store.body(row)
        size = len(body)
        # Of a long body every nth byte: a part that is plaintext is in such a sample in the same proportion.
        statistic = chi_square(body[:: max(1, size // SAMPLE_BYTES)])
        highest = max(highest, statistic)
        if statistic > CHI_SQUARE_MAX:
            outcome.fail(
                _row(row), f"its body does not look like ciphertext: chi-square {statistic:,.0f} over 255 degrees"
            )
    if len(case.store.envelopes) > RANDOM_ROWS_MAX:
        outcome.note(
            f"the look of {len(case.store.envelopes) - RANDOM_ROWS_MAX} bodies behind the first {RANDOM_ROWS_MAX}"
        )
    outcome.figures["highest chi-square"] = round(highest)


def chi_square(data: bytes) -> float:
    """Pearson's statistic of the counts of byte values against equal counts."""
    squares = sum(data.count(value) ** 2 for value in range(256))
    return squares * 256 / len(data) - len(data)
