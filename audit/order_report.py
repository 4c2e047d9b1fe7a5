"""The public report of orders, from the verified log alone: the same log and period give the same bytes to everybody.

Two tables of CSV: GitHub's (`year,type,count_requests_received,count_disclosed`, github/transparency) and the one into
which the transparency-aggregator merges companies' reports (qut-dmrc/transparency-aggregator). An order counts in the
period in which it was logged. An order whose text is sealed counts as `sealed`, without country and issuer.

'Disclosed' and 'complied' mean that something was handed over or done; that it was readable they do not say: `reason`
names the outcome.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from audit.order_log import LoggedOrder, OrderLog

GITHUB_COLUMNS: Final = ("year", "type", "count_requests_received", "count_disclosed")
AGGREGATOR_COLUMNS: Final = (
    "report_start",
    "report_end",
    "platform",
    "property",
    "country",
    "request_type",
    "request_subtype",
    "num_requests",
    "num_accounts_specified",
    "num_requests_complied",
    "num_accounts_complied",
    "agency",
    "reason",
)
PLATFORM: Final = "Blindpost"
DAY_S: Final = 86_400


def orders_of(log: OrderLog, from_s: int, to_s: int) -> list[LoggedOrder]:
    """The orders logged from the beginning of one day to the end of another."""
    return [order for order in log.orders if from_s <= order.logged_at < to_s + DAY_S]


def kind_of(order: LoggedOrder) -> str:
    """Its kind, or that it is sealed."""
    return order.kind or "sealed"


def complied(order: LoggedOrder) -> bool:
    """Whether something was handed over, or what was asked was done."""
    return order.outcome in {"given", "ciphertext"}


def disclosed(order: LoggedOrder) -> bool:
    """Whether bytes were handed over."""
    return any(order.evidence)


def github_csv(orders: list[LoggedOrder]) -> bytes:
    """GitHub's table."""
    received: Counter[tuple[str, str]] = Counter()
    handed_over: Counter[tuple[str, str]] = Counter()
    for order in orders:
        key = day_of(order.logged_at)[:4], kind_of(order)
        received[key] += 1
        handed_over[key] += disclosed(order)
    rows = [(*key, received[key], handed_over[key]) for key in sorted(received)]
    return _csv(GITHUB_COLUMNS, rows)


def aggregator_csv(orders: list[LoggedOrder], origin: str, from_s: int, to_s: int) -> bytes:
    """The transparency-aggregator's table."""
    groups: defaultdict[tuple[str, ...], list[LoggedOrder]] = defaultdict(list)
    for order in orders:
        reason = order.outcome or ("sealed" if order.sealed else order.state)
        groups[order.jurisdiction, kind_of(order), order.scope, order.issuer, reason].append(order)
    rows = []
    for (country, kind, scope, agency, reason), group in sorted(groups.items()):
        people = [order for order in group if order.scope in {"account", "mailbox"}]
        rows.append(
            (
                day_of(from_s),
                day_of(to_s),
                PLATFORM,
                origin,
                country,
                kind,
                scope,
                len(group),
                len(people),
                sum(map(complied, group)),
                sum(map(complied, people)),
                agency,
                reason,
            )
        )
    return _csv(AGGREGATOR_COLUMNS, rows)


def day_of(time_s: int) -> str:
    """A day, UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")


def _csv(columns: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_harmless(cell) for cell in row])
    return text.getvalue().encode()


def _harmless(cell: str | int) -> str | int:
    """A spreadsheet would run what begins like a formula, and the texts are an issuer's own words."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
