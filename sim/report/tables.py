"""CSV for researchers: one row an hour, one an order, one an assertion. The same run gives the same bytes."""

import csv
import datetime
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sim.engine.ledger import COLUMNS
from sim.engine.outcome import Outcome
from sim.orders.clerk import Received

__all__ = ["assertions_csv", "hours_csv", "orders_csv", "write_tables"]

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


def time_text(unix_s: int) -> str:
    """RFC 3339 of a moment, UTC."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).strftime(_TIME)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def hours_csv(outcome: Outcome) -> str:
    """One row an hour: what was sent, receipted, delivered, refused, and what waits."""
    places = [one.name for one in outcome.scenario.jurisdiction]
    rows = [
        [
            time_text(hour.begins_s),
            *(getattr(hour, column) for column in COLUMNS[1:]),
            *outcome.states_at(hour.begins_s),
        ]
        for hour in outcome.ledger.hours
    ]
    return _csv(["hour", *COLUMNS[1:], *(f"service {place}" for place in places)], rows)


def orders_csv(outcome: Outcome) -> str:
    """One row an order, with its answer and what its disclosure showed."""
    head = (
        *("id", "served", "kind", "jurisdiction", "issuer", "basis", "deadline", "withdrawn", "sealed", "person"),
        *("answer", "verdict", "contents_read", "checks_failed", "bytes_handed_over", "held"),
        *("number", "leaf", "answer_leaf", "log_leaves", "log_root"),
    )
    rows = []
    for served in outcome.served:
        order, disclosed = served.order, served.disclosed
        deadline = order.extension[-1].deadline if order.extension else order.deadline
        rows.append(
            [
                order.id,
                time_text(served.at_s),
                order.kind,
                order.jurisdiction,
                order.issuer,
                order.basis,
                deadline or "",
                order.withdrawn or "",
                int(order.sealed),
                served.person,
                served.answer.value,
                disclosed.verdict if disclosed else "",
                disclosed.messages_read if disclosed else "",
                " ".join(disclosed.failed) if disclosed else "",
                disclosed.bytes_handed_over if disclosed else "",
                "; ".join(f"{name}: {value}" for name, value in served.held.items()),
                *_logged(served.filed),
            ]
        )
    return _csv(head, rows)


def _logged(filed: Received | None) -> list[object]:
    """Number on the docket, leaf, leaf of the answer, and the log then; empty where there is none."""
    if filed is None or filed.leaf is None:
        return [""] * 5
    reading = (filed.reading.size, filed.reading.root) if filed.reading is not None else ("", "")
    return [filed.number, filed.leaf, "" if filed.answer_leaf is None else filed.answer_leaf, *reading]


def assertions_csv(outcome: Outcome) -> str:
    """One row an assertion."""
    head = ("check", "about", "held", "found")
    return _csv(head, ([one.check, one.about, int(one.held), one.found] for one in outcome.checks))


def write_tables(outcome: Outcome, folder: Path) -> None:
    """Write hours.csv, orders.csv and assertions.csv."""
    tables = {"hours": hours_csv, "orders": orders_csv, "assertions": assertions_csv}
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(table(outcome), encoding="utf-8", newline="")
