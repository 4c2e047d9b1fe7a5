"""What the relay did see, in numbers (protocol.md section 9; claims.md calls it L).

The first part is generated from `schema.TABLES`, so no column can be left out. The second derives what those columns
say together: how many accounts, devices and companies, which sizes, when. Blind does not mean that nothing is seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from audit.case import Case
from audit.schema import SEQ_TELLS, TABLES
from audit.store import ColumnFigures, Store

SIZES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LeakageRow:
    """A column: how many values, how many different, from what to what."""

    table: str
    column: str
    tells: str
    values: int
    different: int
    extent: str


@dataclass(frozen=True, slots=True)
class Leakage:
    """The whole table."""

    columns: tuple[LeakageRow, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


def leakage_of(case: Case) -> Leakage:
    """Build the table from the store; empty if there is none."""
    store = case.store
    if store is None:
        return Leakage()
    rows = []
    for table, columns in TABLES.items():
        count = len(store.envelopes) if table == "envelopes" else len(store.tables[table])
        key = "idx" if table == "commits" else "seq"
        rows.append(LeakageRow(table, key, SEQ_TELLS[table], count, count, ""))
        for column in columns:
            figures = store.figures(table, column)
            rows.append(
                LeakageRow(
                    table,
                    column.name,
                    column.tells,
                    figures.count,
                    figures.different,
                    _extent(figures, column.kind),
                )
            )
    sizes = Counter(store.envelopes.integers("body_bytes").tolist())
    return Leakage(tuple(rows), tuple(_facts(case, store)), tuple(sorted(sizes.items())))


def _extent(figures: ColumnFigures, kind: str) -> str:
    if figures.low is None:
        return ""
    unit = "" if kind == "INTEGER" else " bytes"
    return f"{figures.low}{unit}" if figures.low == figures.high else f"{figures.low} to {figures.high}{unit}"


def _facts(case: Case, store: Store) -> list[tuple[str, str]]:
    mailboxes = store.tables["mailboxes"]
    accounts = {row.text("account") for row in mailboxes}
    stones = Counter(row.integer("reason") for row in store.tables["tombstones"])
    one_time = sum(row.integer("kind") == 3 for row in store.tables["prekeys"])
    facts = [
        ("companies (tenants)", f"{len(store.tables['tenants'])}"),
        ("accounts, by address", f"{len(accounts)}"),
        ("devices and their mailboxes", f"{len(mailboxes)}, {sum(row.integer('closed') for row in mailboxes)} closed"),
        ("envelopes waiting", f"{len(store.envelopes):,} in {store.envelopes.different('mailbox')} mailboxes"),
        ("their padded sizes", f"{store.envelopes.different('body_bytes')} different"),
        ("tombstones", f"{stones[1]} acked, {stones[2]} withdrawn, {stones[4]} of closed mailboxes"),
        ("one-time prekeys left", f"{one_time}"),
        ("activations used", f"{len(store.tables['used_tokens'])}"),
    ]
    headers = list(case.headers.values())
    if headers:
        times = [header.time_ms // 1000 for header in headers]
        facts.append(("commits, each with its time", f"{len(headers):,}, {_shown(min(times))} to {_shown(max(times))}"))
    facts.append(
        (
            "on its links, not in the store",
            "which device hands over and fetches, when, and how much: sender and recipient meet there",
        )
    )
    return facts


def _shown(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        # A time that no calendar has is shown as the number that it is.
        return str(time_s)
