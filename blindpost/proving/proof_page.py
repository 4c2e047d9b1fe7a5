"""The page of the whole proof: each claim, what was measured, the pictures, the twins, and what it does not show."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from audit import Report
from audit.report_html import account_html
from audit.report_keysearch import key_search_html
from blindpost.proving.generations import generations_section
from blindpost.proving.page import page
from sim.experiments.game import page_section
from sim.experiments.result import Figure, Result, Verdict

if TYPE_CHECKING:
    from sim.experiments.generations import GenerationsRun

__all__ = ["proof_page"]

_FIGURES_SHOWN: Final = 12
"""More are folded away: a picture shows them, or nobody reads them."""
_SENTENCES: Final = {
    "holds": "Every statement held, and every twin that must fail was caught.",
    "fails": "A statement did not hold. Which, and where, stands below.",
    "void": "Something that a verdict needs is missing, or a twin was not caught: this shows nothing.",
}
_TITLES: Final = {
    "keysearch": "No key was left behind",
    "noninterference": "The relay does the same, whatever is in the bodies",
    "game": "Nobody can tell two worlds apart",
    "completeness": "Nothing is hidden",
    "erased": "Erased is erased",
    "seizure": "The past stays past",
    "harvest": "Harvest now, decrypt later",
    "generations": "Five relays, one order",
    "controls": "Relays and clients that cheat",
}


def proof_page(
    report: Report, results: Sequence[Result], generations: "GenerationsRun | None", verdict: str, digest: str
) -> str:
    """The page.

    Args:
        report: the audit's, with its search for keys.
        results: the experiments.
        generations: the five relays, for their picture.
        verdict: `holds`, `fails` or `void`.
        digest: the statement's SHA-256.
    """
    body = [*_overview(report, results, digest), *account_html(report)]
    for result in results:
        body += _experiment(result)
        if result.experiment == "keysearch" and report.key_coverage is not None:
            body += key_search_html(report.key_coverage)
        if result.experiment == "game":
            body.append(page_section(result))
        if result.experiment == "generations" and generations is not None:
            body += generations_section(generations)
    return page("The proof", verdict.upper(), verdict, _SENTENCES[verdict], body)


def _overview(report: Report, results: Sequence[Result], digest: str) -> Iterator[str]:
    yield f'<p class="facts-of">Relay <code>{escape(report.relay_id)}</code><br>'
    yield f"statement <code>{escape(digest)}</code></p>"
    yield '<section><h2>What was run</h2><div class="scroll"><table class="overview"><thead><tr><th>claim</th>'
    yield "<th>experiment</th><th>statement</th><th>twins caught</th><th>verdict</th></tr></thead><tbody>"
    yield f"<tr><td>C1</td><td>audit</td><td>{escape(report.headline)}</td><td></td>"
    yield f"<td>{report.verdict.value}</td></tr>"
    for result in results:
        caught = f"{sum(control.caught for control in result.controls)} of {len(result.controls)}"
        cells = (result.claim, result.experiment, result.statement, caught)
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        good = "good" if result.verdict is Verdict.HOLDS else "bad"
        yield f'<tr>{row}<td class="{good}">{result.verdict.value}</td></tr>'
    yield "</tbody></table></div></section>"


def _experiment(result: Result) -> Iterator[str]:
    yield f"<section><h2>{escape(_TITLES.get(result.experiment, result.experiment))}</h2>"
    yield f"<p>{escape(result.claim)}: {escape(result.statement)}</p>"
    yield from (f'<p class="bad">{escape(line)}</p>' for line in result.evidence)
    long = len(result.figures) > _FIGURES_SHOWN
    yield "<details><summary>All figures</summary>" if long else ""
    yield '<table class="facts"><tbody>'
    for figure in result.figures:
        yield f"<tr><th>{escape(figure.name)}</th><td>{escape(_value(figure))}</td></tr>"
    yield "</tbody></table>" + ("</details>" if long else "")
    yield "<details><summary>The twins, and what this does not show</summary><table><tbody>"
    for control in result.controls:
        word = "caught" if control.caught else "NOT CAUGHT"
        cells = "".join(f"<td>{escape(text)}</td>" for text in (control.name, control.cheat, word, control.how))
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table><ul>"
    yield from (f'<li class="limits">{escape(limit)}</li>' for limit in result.limits)
    yield "</ul></details></section>"


def _value(figure: Figure) -> str:
    value = figure.value
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
    return f"{shown} {figure.unit}".rstrip()
