"""The store has exactly the tables of protocol.md section 9."""

from __future__ import annotations

from audit import disclosure as names
from audit.case import Case
from audit.errors import BoundError, UnreadableError
from audit.outcome import About, Outcome
from audit.schema import TABLES

ABOUT = About(
    "store.schema",
    "the store has the protocol's tables and columns, and no other",
    "There is no column, table, index, view or trigger in which something else could be kept.",
    "What stands in the columns: the checks that follow look at that.",
    "9",
)


def check(case: Case, outcome: Outcome) -> None:
    """Compare statement by statement."""
    if case.store is None:
        report_unreadable_store(case, outcome)
        return
    for problem in case.store.schema_problems:
        outcome.fail(names.STORE, problem)
    columns = sum(len(columns) + 1 for columns in TABLES.values())
    outcome.figures.update(
        {"tables": len(case.store.schema), "tables expected": len(TABLES), "columns expected": columns}
    )
    outcome.evidence = f"{len(case.store.schema)} statements compared, letter by letter"


def report_unreadable_store(case: Case, outcome: Outcome) -> None:
    """Say why there is no store to look at: one that is there but malformed is a finding, one that is not there is
    missing.
    """
    problem = case.problems.get("store")
    if problem is None:
        outcome.miss(names.STORE)
    elif isinstance(problem, (BoundError, UnreadableError)):
        outcome.miss(f"a store that was read to its end ({problem})")
    elif outcome.about.check_id == "bytes.accounted":
        outcome.fail(names.STORE, f"cannot be read as a store ({problem}), so nothing in it is explained")
    else:
        outcome.miss(f"a store that can be read ({problem})")
