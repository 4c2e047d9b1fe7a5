"""The timeline of a run on one page: orders and answers, service, traffic, what waits, faults, and what leaks.

One HTML file without scripts and without anything fetched from elsewhere; pictures are SVG in it. All texts of a
scenario are escaped. The same run gives the same bytes.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Final

from sim.engine.ledger import Hour
from sim.engine.outcome import Outcome, ServedOrder
from sim.orders.service import SERVED
from sim.report.publiclog import captured_paragraph, log_section, where_logged
from sim.report.summary import LIMITS
from sim.report.tables import time_text

__all__ = ["timeline_html"]

_WIDTH: Final = 1_080
_LEFT: Final = 120
_RIGHT: Final = 20
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_COLUMNS_MAX: Final = 360
"""So many columns of a plot at most: several hours share one."""
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #d6dae1; --paper: #fff; --card: #f6f7f9;
--served: #2e8b57; --ending: #d9a400; --ended: #7a7f88; --blocked: #c0392b; --one: #2f6fb5; --two: #d9822b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b2; --line: #3a4250; --paper: #14181f;
--card: #1d232d; --one: #6ea8e8; --two: #f0a860; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0.1em; } h2 { margin-top: 1.8em; } .soft { color: var(--soft); }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } table { border-collapse: collapse; width: 100%; } td, th { text-align: left;
padding: 0.25em 0.8em 0.25em 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { white-space: nowrap; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.held { color: var(--served); }
.fails { color: var(--blocked); font-weight: 600; } .cards { display: flex; flex-wrap: wrap; gap: 0.8em; }
code { font-size: 0.85em; overflow-wrap: anywhere; }
.card { background: var(--card); padding: 0.6em 1em; border-radius: 6px; } .card b { display: block; font-size: 1.3em; }
"""


def timeline_html(outcome: Outcome, transparency: str = "") -> str:
    """The page; `transparency` is where the report from the public log lies, empty if there is none."""
    return "\n".join(_page(outcome, transparency)) + "\n"


def _page(outcome: Outcome, transparency: str) -> Iterator[str]:
    scenario = outcome.scenario
    title = escape(scenario.title or scenario.name)
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{title}</h1>"
    yield (
        f'<p class="soft">{escape(scenario.name)}, {scenario.start} to {scenario.end}, seed {outcome.seed}, '
        f"crypto {outcome.crypto}, protection {escape(scenario.relay.protection)}</p>"
    )
    if scenario.description:
        yield f"<p>{escape(scenario.description.strip())}</p>"
    yield from _figures(outcome)
    yield "<h2>Orders, answers, service</h2>"
    yield from _lanes(outcome)
    yield from _table_of_happenings(outcome)
    yield "<h2>Traffic, and what waits at the relay</h2>"
    yield from _plots(outcome)
    yield "<h2>What was answered, and what there was to find</h2>"
    for served in outcome.served:
        yield from _handed_over(served)
    if not outcome.served:
        yield "<p>No order was served.</p>"
    yield from log_section(outcome.log, transparency)
    yield "<h2>Assertions</h2>"
    yield from _assertions(outcome)
    yield "<h2>Faults</h2>"
    yield from _faults(outcome)
    yield "<h2>What this does not show</h2><ul>"
    for limit in LIMITS[outcome.crypto]:
        yield f"<li>{escape(limit)}</li>"
    yield "</ul>"
    if scenario.sources:
        yield "<h2>Sources</h2><ul>"
        for source in scenario.sources:
            yield f"<li>{escape(source)}</li>"
        yield "</ul>"
    yield "</body></html>"


def _figures(outcome: Outcome) -> Iterator[str]:
    ledger = outcome.ledger
    figures = (
        ("people", outcome.people),
        ("devices", outcome.devices),
        ("messages written", ledger.messages),
        ("envelopes receipted", ledger.total("receipted")),
        ("messages shown", ledger.total("shown")),
        ("most that waited", ledger.backlog_most),
        ("receipted and lost", outcome.lost),
    )
    yield '<div class="cards">'
    for name, value in figures:
        yield f'<div class="card"><b>{value:,}</b>{name}</div>'
    yield "</div>"


# ---- the lanes


class _Scale:
    """From moments to places on the picture."""

    def __init__(self, outcome: Outcome) -> None:
        self.begins_s = outcome.scenario.start.unix_s
        self.ends_s = outcome.scenario.end.unix_s

    def x(self, at_s: float) -> float:
        part = (at_s - self.begins_s) / (self.ends_s - self.begins_s)
        return round(_LEFT + _PLOT * min(1.0, max(0.0, part)), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """About ten dates."""
        days = (self.ends_s - self.begins_s) / 86_400
        step_s = 86_400 * max(1, round(days / 10))
        first_s = -(-self.begins_s // 86_400) * 86_400
        return [
            (self.x(at_s), datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%d %b"))
            for at_s in range(first_s, self.ends_s + 1, step_s)
        ]


def _axis(scale: _Scale, top: float, bottom: float) -> Iterator[str]:
    for x, text in scale.ticks():
        yield f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="var(--line)"/>'
        yield f'<text class="soft" x="{x}" y="{bottom + 15}" text-anchor="middle">{text}</text>'


def _lanes(outcome: Outcome) -> Iterator[str]:
    scale = _Scale(outcome)
    places = [one.name for one in outcome.scenario.jurisdiction]
    height = 34 * len(places) + 26
    label = "Service and orders of each jurisdiction over the days of the run"
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">'
    yield from _axis(scale, 4, height - 22)
    for row, place in enumerate(places):
        top = 8 + 34 * row
        yield f'<text x="0" y="{top + 14}">{escape(place[:16])}</text>'
        begins, state = scale.begins_s, SERVED
        changes = [change for change in outcome.changes if change.jurisdiction == place]
        for at_s, following in [*((change.at_s, change.state) for change in changes), (scale.ends_s, "")]:
            left, right = scale.x(begins), scale.x(at_s)
            yield (
                f'<rect x="{left}" y="{top + 4}" width="{round(right - left, 1)}" height="12" rx="2" '
                f'fill="var(--{state})"><title>{escape(place)}: {state} from {time_text(begins)}</title></rect>'
            )
            begins, state = at_s, following
        for served in outcome.served:
            if served.order.jurisdiction == place:
                yield _mark(scale, served, top)
    yield "</svg>"
    keys = (
        f'<span style="color:var(--{state})">■</span> {state}' for state in ("served", "ending", "ended", "blocked")
    )
    yield f'<p class="soft">{" &nbsp; ".join(keys)} &nbsp; ● an order, by its answer</p>'


def _mark(scale: _Scale, served: ServedOrder, top: float) -> str:
    x = scale.x(served.at_s)
    words = f"{served.order.issuer}: {served.order.kind}, {served.answer.value}"
    return (
        f'<circle cx="{x}" cy="{top + 10}" r="6" fill="var(--paper)" stroke="var(--ink)" stroke-width="2.5">'
        f"<title>{escape(words)}</title></circle>"
    )


def _table_of_happenings(outcome: Outcome) -> Iterator[str]:
    yield "<table><tr><th>date</th><th>where</th><th>what</th><th></th></tr>"
    for one in outcome.happenings:
        date = time_text(one.at_s)[:10]
        yield (
            f"<tr><td>{date}</td><td>{escape(one.jurisdiction)}</td><td>{one.what}</td><td>{escape(one.text)}</td></tr>"
        )
    yield "</table>"


# ---- the plots


def _plots(outcome: Outcome) -> Iterator[str]:
    hours = outcome.ledger.hours
    scale = _Scale(outcome)
    yield from _plot(scale, hours, "messages an hour", "--one", lambda hour: hour.sent, mean=True)
    yield from _plot(scale, hours, "envelopes waiting", "--two", lambda hour: hour.backlog, mean=False)
    yield from _plot(scale, hours, "devices off the net", "--ended", lambda hour: hour.offline, mean=False)
    yield from _plot(scale, hours, "refusals an hour", "--blocked", lambda hour: hour.refused, mean=True)


def _plot(
    scale: _Scale, hours: Sequence[Hour], name: str, colour: str, value: Callable[[Hour], int], *, mean: bool
) -> Iterator[str]:
    """One plot; several hours of a column are their mean, or the most of them."""
    shown = [hour for hour in hours if hour.begins_s < scale.ends_s]
    each = -(-len(shown) // _COLUMNS_MAX)
    points: list[tuple[float, float]] = []
    for start in range(0, len(shown), each):
        part = [value(hour) for hour in shown[start : start + each]]
        points.append((scale.x(shown[start].begins_s), sum(part) / len(part) if mean else max(part)))
    most = max((point for _x, point in points), default=0) or 1
    height, bottom, room = 120, 92, 80
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(name)} over the run">'
    yield from _axis(scale, bottom - room, bottom)
    yield f'<text x="0" y="30">{escape(name)}</text><text class="soft" x="0" y="48">most {most:,.0f}</text>'
    ends = f"{scale.x(scale.ends_s)},{bottom}"
    steps = []
    for at, (x, point) in enumerate(points):
        y = round(bottom - room * point / most, 1)
        following = points[at + 1][0] if at + 1 < len(points) else scale.x(scale.ends_s)
        steps.append(f"{x},{y} {following},{y}")
    path = f"{_LEFT},{bottom} {' '.join(steps)} {ends}"
    yield f'<polygon points="{path}" fill="var({colour})" fill-opacity="0.55" stroke="var({colour})"/>'
    yield "</svg>"


# ---- the rest


def _handed_over(served: ServedOrder) -> Iterator[str]:
    order, disclosed = served.order, served.disclosed
    whom = f", about {escape(served.person)}" if served.person else ""
    yield f"<h3>{escape(order.id)}: {order.kind}{whom}</h3>"
    basis = f" ({escape(order.basis)})" if order.basis else ""
    yield f"<p>{time_text(served.at_s)}, {escape(order.issuer)}{basis}. Answer: <b>{served.answer.value}</b>.</p>"
    if served.filed is not None:
        yield f"<p>{escape(where_logged(served.filed))}</p>"
    if served.said:
        yield f"<blockquote>{escape(served.said)}</blockquote>"
    held = ", ".join(f"{escape(name)} {value}" for name, value in served.held.items())
    yield f"<p>Held at that moment: {held}.</p>"
    if served.captured is not None:
        yield captured_paragraph(order.id, served.captured)
    if disclosed is None:
        return
    is_given = served.filed is not None and served.filed.evidence == disclosed.evidence
    what = "Handed over was a disclosure" if is_given else "Not handed over; what a seizure would find: a disclosure"
    colour = "held" if disclosed.verdict == "BLIND" else "fails"
    yield (
        f'<p>{what} of {disclosed.bytes_handed_over:,} bytes. Verdict: <span class="{colour}">{disclosed.verdict}'
        f"</span>, {disclosed.messages_read} contents read. "
        f'<a href="orders/{escape(order.id)}/audit.html">the audit</a></p>'
    )
    yield "<details><summary>what it gives away (the declared leakage)</summary><table>"
    yield "<tr><th>table</th><th>column</th><th>tells</th><th>values</th></tr>"
    for table, column, tells, values in disclosed.leakage:
        if values:
            yield (
                f"<tr><td>{escape(table)}</td><td>{escape(column)}</td><td>{escape(tells)}</td>"
                f'<td class="n">{values:,}</td></tr>'
            )
    yield "</table></details>"


def _assertions(outcome: Outcome) -> Iterator[str]:
    yield "<table><tr><th></th><th>check</th><th>about</th><th>found</th></tr>"
    for one in outcome.checks:
        word, style = ("holds", "held") if one.held else ("FAILS", "fails")
        yield (
            f'<tr><td class="{style}">{word}</td><td>{one.check}</td><td>{escape(one.about)}</td>'
            f"<td>{escape(one.found)}</td></tr>"
        )
    yield "</table>"


def _faults(outcome: Outcome) -> Iterator[str]:
    happened = {kind: count for kind, count in outcome.faults.items() if count}
    if not happened:
        yield "<p>None happened.</p>"
        return
    yield "<table><tr><th>kind</th><th>times</th></tr>"
    for kind, count in happened.items():
        yield f'<tr><td>{kind}</td><td class="n">{count:,}</td></tr>'
    yield "</table>"
