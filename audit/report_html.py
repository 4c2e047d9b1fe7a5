"""The report as one HTML page for people: no script, no external resource, legible on a telephone and on paper.

The page says the verdict, what was shown and what was not, and draws its evidence as inline SVG. Everything that came
from a disclosure or a volunteer is escaped here, whatever it was before; the page's own policy forbids it to load
anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from audit.outcome import Outcome, Status
from audit.report_keysearch import key_search_html
from audit.report_style import STYLE
from audit.report_text import time_text
from audit.schema import ByteClass
from audit.verdict import Report, Verdict

FINDINGS_SHOWN: Final = 20
_VERDICT_CLASSES: Final = {Verdict.BLIND: "blind", Verdict.NOT_BLIND: "not-blind", Verdict.INCOMPLETE: "incomplete"}
_STATUS_CLASSES: Final = {
    Status.PASSED: "passed",
    Status.FAILED: "failed",
    Status.MISSING: "missing",
    Status.NOT_RUN: "not-run",
}
_SENTENCES: Final = {
    Verdict.BLIND: "Everything the relay handed over was examined. There is nothing in it to read.",
    Verdict.NOT_BLIND: "Something leaked, or the relay did not tell the truth. What and where stands below.",
    Verdict.INCOMPLETE: "Nothing was found, but something that the verdict needs is missing.",
}
_CLASS_NAMES: Final = {byte_class: byte_class.name.lower().replace("_", "-") for byte_class in ByteClass}


def render_html(report: Report) -> str:
    """Return the whole page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    verdict = report.verdict
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{verdict.value}: disclosure of relay {escape(report.relay_id[:8])}</title>"
    yield f"<style>{STYLE}</style>\n</head>\n<body>"
    yield f'<header class="{_VERDICT_CLASSES[verdict]}"><div class="wrap">'
    yield '<p class="kicker">Blindpost · audit of a disclosure</p>'
    yield f"<h1>{verdict.value}</h1>"
    yield f'<p class="sentence">{_SENTENCES[verdict]}</p>'
    yield f'<p class="meta">Relay <code>{escape(report.relay_id)}</code><br>'
    yield f"taken {escape(time_text(report.taken_at))}</p>"
    yield '</div></header>\n<main class="wrap">'
    yield from _figures(report)
    yield from _findings(report)
    yield from _messages(report)
    yield from account_html(report)
    if report.key_coverage is not None:
        yield from key_search_html(report.key_coverage)
    yield from _checks(report)
    yield from _leakage(report)
    yield from _controls(report)
    yield "</main>"
    yield '<footer class="wrap"><p>A blind relay still sees who has a mailbox, when mail arrives and its padded size. '
    yield "This page says nothing of devices, of what nobody volunteered, or of other machines. "
    yield f"Exit status {report.exit_status}.</p></footer>\n</body>\n</html>"


# ------------------------------------------------------------------------------------------------------------ summary


def _figures(report: Report) -> Iterator[str]:
    counts = Counter(outcome.status for outcome in report.outcomes)
    total: Counter[ByteClass] = Counter()
    for account in report.accounts.values():
        total.update(account)
    searched = max((_number(outcome, "bytes searched") for outcome in report.outcomes), default=0)
    tiles = [
        (f"{counts[Status.PASSED]}", f"of {len(report.outcomes)} checks passed"),
        (f"{counts[Status.FAILED]}", "failed"),
        (f"{total[ByteClass.UNEXPLAINED]:,}", f"of {sum(total.values()):,} bytes unexplained"),
        (size_text(searched), "searched for texts and secrets"),
    ]
    if report.controls is not None:
        caught = sum(control.caught for control in report.controls)
        tiles.append((f"{caught} / {len(report.controls)}", "cheating relays and clients caught by the same checks"))
    yield '<section class="tiles">'
    for figure, caption in tiles:
        yield f"<div><strong>{escape(figure)}</strong><span>{escape(caption)}</span></div>"
    yield "</section>"


def _number(outcome: Outcome, name: str) -> int:
    value = outcome.figures.get(name, 0)
    return value if isinstance(value, int) else 0


def size_text(size: int) -> str:
    """A count of bytes as people say it."""
    if size < 10_000:
        return f"{size:,} B"
    for unit in ("kB", "MB", "GB"):
        size_in_unit = size / 1000
        if size_in_unit < 1000 or unit == "GB":
            return f"{size_in_unit:,.0f} {unit}" if size_in_unit >= 10 else f"{size_in_unit:.1f} {unit}"
        size //= 1000
    raise AssertionError("the last unit always returns")


def _findings(report: Report) -> Iterator[str]:
    """First of all, what is wrong."""
    concerned = [outcome for outcome in report.outcomes if outcome.status in {Status.FAILED, Status.MISSING}]
    if not concerned:
        return
    failed = report.verdict is Verdict.NOT_BLIND
    kind, title = ("alarm", "What was found") if failed else ("warning", "What is missing")
    yield f'<section class="{kind}"><h2>{title}</h2><ul>'
    for outcome in concerned:
        items = [str(finding) for finding in outcome.findings[:3]] or [
            f"missing: {text}" for text in outcome.missing[:3]
        ]
        more = outcome.finding_count - len(outcome.findings[:3])
        tail = f" <em>and {more} more</em>" if outcome.findings and more > 0 else ""
        opening = "Not true that" if outcome.status is Status.FAILED else "Cannot be told whether"
        yield f"<li><strong>{opening}</strong> {_text(outcome.about.title)}:<br>"
        yield "<br>".join(map(_text, items)) + f"{tail}</li>"
    yield "</ul></section>"


def _messages(report: Report) -> Iterator[str]:
    if not report.read_messages:
        return
    yield '<section class="alarm"><h2>One key, everybody’s messages</h2>'
    yield f"<p>{_text(report.read_messages[0].who)} volunteered one key. It sits in every handset, and opens these:</p>"
    yield "<table><thead><tr><th>Where</th><th>Text</th></tr></thead><tbody>"
    for message in report.read_messages:
        yield f'<tr><td>{_text(message.where)}</td><td dir="auto">{_text(message.text)}</td></tr>'
    yield "</tbody></table></section>"


# -------------------------------------------------------------------------------------------------------------- bytes


def account_html(report: Report) -> Iterator[str]:
    """How each byte of the files was accounted for: a bar a file, and the legend."""
    if not report.accounts:
        return
    yield "<section><h2>Every byte</h2>"
    yield "<p>Store, log and configuration, down to page headers and free space. Each bar is one file, to scale.</p>"
    for path, account in report.accounts.items():
        size = sum(account.values())
        yield f"<figure><figcaption><code>{_text(path)}</code> <span>{size:,} bytes</span></figcaption>"
        yield f"{_bar(account, path)}</figure>"
    total: Counter[ByteClass] = Counter()
    for account in report.accounts.values():
        total.update(account)
    whole = sum(total.values()) or 1
    yield '<table class="legend"><tbody>'
    for byte_class in ByteClass:
        count = total[byte_class]
        square = f'<rect class="c-{_CLASS_NAMES[byte_class]}" width="10" height="10" rx="2"/>'
        swatch = f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{square}</svg>'
        yield f"<tr><td>{swatch}{byte_class.value}</td><td>{count:,}</td><td>{count / whole:.2%}</td></tr>"
    yield "</tbody></table></section>"


def _bar(account: Counter[ByteClass], path: str) -> str:
    """A stacked bar; a class that is there is never thinner than a hair, so that one byte unexplained can be seen."""
    size = sum(account.values()) or 1
    present = [(byte_class, account[byte_class]) for byte_class in ByteClass if account[byte_class]]
    widths = [max(1000 * count / size, 3.0) for _, count in present]
    scale = 1000 / sum(widths) if widths else 1.0
    parts, x = [], 0.0
    for (byte_class, count), width in zip(present, widths, strict=True):
        parts.append(
            f'<rect class="c-{_CLASS_NAMES[byte_class]}" x="{x:.2f}" y="0" width="{width * scale:.2f}" height="28">'
            f"<title>{byte_class.value}: {count:,} bytes</title></rect>"
        )
        x += width * scale
    described = ", ".join(f"{count:,} {byte_class.value}" for byte_class, count in present)
    return (
        f'<svg class="bar" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(path, quote=True)}: {described}">{"".join(parts)}</svg>'
    )


# ------------------------------------------------------------------------------------------------------------- checks


def _checks(report: Report) -> Iterator[str]:
    yield "<section><h2>The checks</h2>"
    for outcome in report.outcomes:
        yield from _check(outcome)
    yield "</section>"


def _check(outcome: Outcome) -> Iterator[str]:
    about = outcome.about
    yield f'<article class="{_STATUS_CLASSES[outcome.status]}">'
    title = about.title[:1].upper() + about.title[1:]
    yield f'<h3><span class="badge">{outcome.status.value}</span> {_text(title)}</h3>'
    yield f'<p class="id"><code>{about.check_id}</code> · protocol.md {about.section}</p>'
    if outcome.evidence:
        yield f'<p class="evidence">{_text(outcome.evidence)}</p>'
    yield from _list(map(str, outcome.findings[:FINDINGS_SHOWN]), "found")
    if outcome.finding_count > FINDINGS_SHOWN:
        yield f"<p>and {outcome.finding_count - FINDINGS_SHOWN:,} more</p>"
    yield from _list((f"missing: {text}" for text in outcome.missing[:FINDINGS_SHOWN]), "absent")
    yield f"<p><b>Shows:</b> {_text(about.proves)}</p>"
    limits = [about.does_not, *(text[:1].upper() + text[1:] + "." for text in outcome.not_checked)]
    yield f'<p class="limits"><b>Does not show:</b> {" ".join(map(_text, limits))}</p></article>'


def _list(items: Iterable[str], kind: str) -> Iterator[str]:
    rendered = "".join(f"<li>{_text(item)}</li>" for item in items)
    if rendered:
        yield f'<ul class="{kind}">{rendered}</ul>'


# ------------------------------------------------------------------------------------------------ leakage, controls


def _leakage(report: Report) -> Iterator[str]:
    if not report.leakage.columns:
        return
    yield "<section><h2>What the relay did see</h2>"
    yield "<p>Blind to content is not blind. This is all that the store tells, counted.</p>"
    yield '<table class="facts"><tbody>'
    for name, value in report.leakage.facts:
        yield f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>"
    yield "</tbody></table>"
    if report.leakage.sizes:
        yield "<h3>Envelopes by padded size</h3>" + _histogram(report.leakage.sizes)
    yield "<h3>Column by column</h3>"
    yield '<div class="scroll"><table class="columns"><thead><tr>'
    yield "<th>Column</th><th>Tells</th><th>Values</th><th>Different</th><th>From … to</th></tr></thead><tbody>"
    for row in report.leakage.columns:
        yield (
            f"<tr><td><code>{row.table}.{row.column}</code></td><td>{_text(row.tells)}</td>"
            f"<td>{row.values:,}</td><td>{row.different:,}</td><td>{_text(row.extent)}</td></tr>"
        )
    yield "</tbody></table></div></section>"


HISTOGRAM_ROWS: Final = 16


def _histogram(sizes: tuple[tuple[int, int], ...]) -> str:
    """The most frequent sizes, in order of size."""
    shown = sorted(sorted(sizes, key=lambda item: -item[1])[:HISTOGRAM_ROWS])
    highest = max(count for _, count in shown)
    rows = []
    for i, (size, count) in enumerate(shown):
        y = 24 * i
        width = max(2.0, 440 * count / highest)
        rows.append(
            f'<text class="t" x="0" y="{y + 15}">{size:,} B</text>'
            f'<rect class="c-ciphertext" x="90" y="{y + 3}" width="{width:.1f}" height="16" rx="2"/>'
            f'<text class="t" x="{96 + width:.1f}" y="{y + 15}">{count:,}</text>'
        )
    left_out = len(sizes) - len(shown)
    note = f'<p class="limits">and {left_out} rarer sizes</p>' if left_out else ""
    return (
        f'<svg class="histogram" viewBox="0 0 600 {24 * len(shown)}" role="img" '
        f'aria-label="count of envelopes by size of body">{"".join(rows)}</svg>{note}'
    )


def _controls(report: Report) -> Iterator[str]:
    yield "<section><h2>Would it have noticed?</h2>"
    if report.controls is None:
        yield "<p>No controls were run with this verdict. The simulator has relays and clients that cheat,"
        yield "for trying this very verifier.</p></section>"
        return
    yield f"<p><strong>{escape(report.controls_line)}.</strong> Each mutant cheats in one way;"
    yield "the check meant for it must fail.</p>"
    yield '<div class="scroll"><table><thead><tr><th>Mutant</th><th>Meant for</th><th>Caught by</th></tr></thead>'
    yield "<tbody>"
    for control in report.controls:
        mark = "✓" if control.caught else "✗ not caught"
        yield (
            f'<tr class="{"caught" if control.caught else "escaped"}"><td>{mark} {_text(control.mutant)}</td>'
            ""
            f"<td><code>{_text(control.expected)}</code></td>"
            f"<td>{_text(', '.join(control.caught_by) or 'none')}</td></tr>"
        )
    yield "</tbody></table></div></section>"


def _text(value: str) -> str:
    return escape(value, quote=True)
