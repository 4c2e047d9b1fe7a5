"""The public report of a relay's orders as a folder, and its check against the log.

    DIR/report.html     for people; no script, no resource
    DIR/requests.csv    in the transparency-aggregator's columns
    DIR/github.csv      in GitHub's
    DIR/period.toml     from when to when, and the log and tree that it was made from

All four follow from the log (audit/order_report.py): whoever has a mirror makes them again and compares bytes.
"""

import tomllib
from html import escape
from pathlib import Path
from typing import Final

from audit.material import RelayCard
from audit.order_log import LoggedOrder, OrderLog, verify_log
from audit.order_report import aggregator_csv, complied, day_of, disclosed, github_csv, kind_of, orders_of
from blindpost.files import read_bounded
from blindpost.proving.page import page
from wire.errors import FormatError

__all__ = ["check_report", "files_of"]

_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_PERIOD_NAME: Final = "period.toml"
_TIME_S_MAX: Final = 2**33


def files_of(log: OrderLog, from_s: int, to_s: int) -> dict[str, bytes]:
    """The report's files, by name.

    Args:
        log: the verified log.
        from_s: beginning of the first day, Unix time in seconds.
        to_s: beginning of the last day.
    """
    orders = orders_of(log, from_s, to_s)
    period = f'origin = "{log.origin}"\nsize = {log.size}\nroot = "{log.root.hex()}"\nfrom = {from_s}\nto = {to_s}\n'
    return {
        "report.html": _page(log, orders, from_s, to_s).encode(),
        "requests.csv": aggregator_csv(orders, log.origin, from_s, to_s),
        "github.csv": github_csv(orders),
        _PERIOD_NAME: period.encode(),
    }


def check_report(folder: Path, mirror: Path, card: RelayCard) -> list[str]:
    """What in a report does not follow from the log; empty if all does.

    Args:
        folder: the report.
        mirror: the log's mirror.
        card: the relay's.

    Raises:
        FormatError: period.toml is none.
        OSError: a file cannot be read.
    """
    size, root, from_s, to_s = _period(read_bounded(folder / _PERIOD_NAME, _PERIOD_NAME, 4_096))
    log = verify_log(mirror, card, size=size)
    if log.findings:
        return [f"report: the log of {size} leaves does not hold: {log.findings[0]}"]
    if log.root_at(size) != root:
        return [f"report: it was made from another tree of {size} leaves"]
    log.size, log.root = size, root
    return [
        f"report: {name} is not what the log says"
        for name, wanted in files_of(log, from_s, to_s).items()
        if read_bounded(folder / name, name, _FILE_BYTES_MAX) != wanted
    ]


def _period(data: bytes) -> tuple[int, bytes, int, int]:
    try:
        values = tomllib.loads(data.decode())
        size, root = values["size"], bytes.fromhex(values["root"])
        from_s, to_s = values["from"], values["to"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FormatError(_PERIOD_NAME, "does not name size, root, from and to") from None
    for number in (size, from_s, to_s):
        if type(number) is not int or not 0 <= number <= _TIME_S_MAX:
            raise FormatError(_PERIOD_NAME, "has a number out of range", _TIME_S_MAX)
    return size, root, from_s, to_s


def _page(log: OrderLog, orders: list[LoggedOrder], from_s: int, to_s: int) -> str:
    sealed = sum(order.sealed and not order.opened for order in orders)
    handed_over = sum(map(disclosed, orders))
    sentence = (
        f"{day_of(from_s)} to {day_of(to_s)}: {len(orders)} orders, {sum(map(complied, orders))} complied with in some "
        f"part, {handed_over} with something handed over, {sealed} sealed."
    )
    steps = [step for step in log.exits if from_s <= step.logged_at < to_s + 86_400]
    body = [
        "<h2>Orders</h2>",
        _table(
            ("no", "logged", "kind", "law of", "issuer", "legal basis", "state", "outcome"),
            [
                (
                    str(order.number),
                    day_of(order.logged_at),
                    kind_of(order),
                    order.jurisdiction or "sealed",
                    order.issuer or f"sealed until {day_of(order.secret_until)}",
                    order.legal_basis or "sealed",
                    _state(order),
                    order.outcome or ("sealed" if order.sealed else "not answered yet"),
                )
                for order in orders
            ],
        ),
        "<h2>What was answered</h2>",
        *(
            f"<h3>Order {order.number}</h3><p>{escape(order.text)}</p>"
            + (f"<p>Given: {escape(', '.join(order.given))}</p>" if order.given else "")
            for order in orders
            if order.text
        ),
        "<h2>Leaving</h2>",
        *(
            f"<p>{day_of(step.logged_at)}, {escape(step.jurisdiction)}, {escape(step.step)}: {escape(step.text)}</p>"
            for step in steps
        ),
        *([] if steps else ["<p>No jurisdiction was left in this time.</p>"]),
        "<h2>How to check this page</h2>",
        f"<p>It is made from the log <code>{escape(log.origin)}</code> of {log.size} leaves with root "
        f"<code>{log.root.hex()}</code>, and from nothing else. With a mirror and the relay's card: "
        "<code>blindpost log verify MIRROR --relay-card CARD --report DIR</code> makes it again and compares bytes. "
        "Whom an order is about is not in the log. Complied and handed over do not mean that anything was readable: "
        "an outcome <em>ciphertext</em> was not. Not shown: orders that were never logged.</p>",
    ]
    return page("Transparency report", f"{len(orders)} orders", "void" if sealed else "holds", sentence, body)


def _state(order: LoggedOrder) -> str:
    """Where an order stands; of a preservation also until when it holds, or when it ended."""
    if order.sealed and not order.opened:
        return "sealed"
    if order.state == "open" and order.capturing_from:
        return f"captured until {day_of(order.deadline)}"
    if order.state == "released":
        return f"released {day_of(order.changes[-1][1])}"
    return f"{order.state} until {day_of(order.until)}" if order.state == "honoured" and order.until else order.state


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "<p>No order was logged in this time.</p>"
    cells = "".join(f'<th style="overflow-wrap:normal">{escape(name)}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f'<td style="overflow-wrap:normal">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
