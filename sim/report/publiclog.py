"""The relay's public log on the page of a run: what stood in it when, and where each order is in it."""

from collections.abc import Iterator
from html import escape

from relay.logkey import LOG_FOLDER
from sim.orders.captured import Captured
from sim.orders.clerk import Received
from sim.orders.policy import Answer
from sim.orders.reading import LogReading, PublicLog
from sim.report.tables import time_text

__all__ = ["log_section", "where_logged"]


def log_section(log: PublicLog, transparency: str) -> Iterator[str]:
    """The section.

    Args:
        log: of the run.
        transparency: where the report lies that was made from it; empty: nowhere.
    """
    yield "<h2>The public log</h2>"
    if log.holds:
        word = '<span class="held">It holds</span>: each time it was read, the tree before was its beginning'
        yield f"<p>{word}. It has {_count(log.served, 'order')} and {_count(log.answered, 'answer')}.</p>"
    else:
        yield f'<p class="fails">It does not hold: {escape("; ".join([*log.findings, *log.gaps]))}</p>'
    link = (
        f' <a href="{escape(transparency)}">The transparency report</a> is made from the log alone.'
        if transparency
        else ""
    )
    yield (
        f"<p>{link} The log lies in <code>{LOG_FOLDER}/</code>, as a web server would hand it out; to check it: "
        f"<code>blindpost log verify {LOG_FOLDER} --relay-card relay-card.toml</code></p>"
    )
    yield '<table><tr><th>read on</th><th>after</th><th class="n">leaves</th><th>root</th><th></th></tr>'
    for reading in log.readings:
        yield _row(reading)
    yield "</table>"


def _row(reading: LogReading) -> str:
    word, style = ("holds", "held") if reading.holds else ("FAILS", "fails")
    return (
        f"<tr><td>{time_text(reading.at_s)[:16].replace('T', ' ')}</td><td>{escape(reading.after)}</td>"
        f'<td class="n">{reading.size}</td><td><code title="{reading.root}">{reading.root[:16]}…</code></td>'
        f'<td class="{style}">{word}</td></tr>'
    )


def where_logged(filed: Received) -> str:
    """Where an order stands in the log, in a sentence."""
    if filed.leaf is None:
        return "Not an order to the relay: it is not on the docket, nor in the log."
    place = f"Order {filed.number} on the docket, leaf {filed.leaf} of the public log"
    if filed.answer_leaf is None:
        place += "; it is not answered yet" + ("" if filed.answer is Answer.PROVIDED else ", since it is contested")
    else:
        place += f", answered in leaf {filed.answer_leaf}"
    if filed.reading is None:
        return f"{place}."
    size = _count(filed.reading.size, "leaf", "leaves")
    return f"{place}; the log had {size} then, with root {filed.reading.root[:16]}…"


def captured_paragraph(order_id: str, captured: Captured) -> str:
    """What was recorded as it passed, and how much of that could be read."""
    style = "fails" if captured.read else "held"
    colour = {"BLIND": "held", "NOT BLIND": "fails"}.get(captured.verdict, "")
    why = ", ".join(captured.failed or captured.missing)
    lost = f", {captured.lost:,} events lost" if captured.lost else ""
    gaps = f", interrupted {_count(captured.gaps, 'time')}" if captured.gaps else ""
    return (
        f"<p>Captured from {time_text(captured.from_s)} to {time_text(captured.to_s)}: "
        f"{_count(captured.events, 'event')} of {_count(captured.mailboxes, 'mailbox', 'mailboxes')}, "
        f"{_count(captured.envelopes, 'envelope')} that came in, {captured.body_bytes:,} bytes of bodies{lost}{gaps}. "
        f'Of the bodies of {_count(captured.bodies, "envelope")}, <span class="{style}">{captured.read:,} could be read'
        f'</span>. Verdict of the file: <span class="{colour}">{captured.verdict}</span>{f" ({why})" if why else ""}. '
        f'<a href="orders/{escape(order_id)}/{escape(captured.path.name)}">the file</a></p>'
    )


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
