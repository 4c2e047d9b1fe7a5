"""`blindpost prove generations`: five relays, one order, as a table and as a page that people can be shown."""

import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from sim.experiments.generations import GenerationsRun, Told

__all__ = ["add_command_to", "generations_page", "generations_section", "show_table"]

_WIDTH: Final = 140
_ROW: Final = 26


def add_command_to(family: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        family,
        "generations",
        summary="serve one order on five relays, from the global PIN key to this one, and show what is read",
        description=(
            "The same four people write the same mail through five relays, which differ in where the keys are: in "
            "every handset, in the relay's database, in a server that makes them, on the device for good, or on the "
            "device for one message. Each relay is served the same order. The verifier reads the first three aloud, a "
            "seized device opens the past of the first four, and of the fifth nothing is read. --html writes the page."
        ),
        examples=("blindpost prove generations", "blindpost prove generations --html generations.html"),
        run=_run,
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write it as a page with pictures")
    add_json(parser)


def _run(options: Options) -> int:
    from rich.console import Console

    from sim.experiments.generations import run_generations

    if options.html is not None:
        check_absent(options.html)
    with tempfile.TemporaryDirectory(prefix="blindpost-generations-") as folder, progress_bar("generations") as told:
        run = run_generations(Path(folder), told)
    if str(options.json) != "-":
        show_table(run, Console(highlight=False))
    if options.html is not None:
        write_new(options.html, generations_page(run).encode(), secret=False)
    status = conclude(run.result, options)
    if options.html is not None and str(options.json) != "-":
        print(f"{options.html}: the page")
    return status


def show_table(run: "GenerationsRun", console: "Console") -> None:
    """Print the table, and what was read aloud."""
    from rich.table import Table

    table = Table("relay", "where the keys are", "read in the disclosure", "past, with a seized device", "verdict")
    for told in run.told:
        table.add_row(
            told.generation.title,
            told.generation.keys_are,
            f"{told.read} of {told.waiting}",
            f"{told.past_opened} of {told.past}",
            told.verdict,
        )
    console.print(table)
    for told in run.told:
        for text in told.quoted[:1]:
            console.print(f"  {told.generation.title}: {text!r}", markup=False)
    console.print()


def generations_page(run: "GenerationsRun") -> str:
    """The page: five relays side by side."""
    from blindpost.proving.page import page

    verdict = run.result.verdict.value
    return page(
        "Five relays, one order",
        "Five relays, one order",
        verdict,
        "The same people, the same mail, the same order. What can be read depends on where the keys are.",
        generations_section(run),
    )


def generations_section(run: "GenerationsRun") -> Iterator[str]:
    """The picture, the table with its sources, and the texts that were read; for pages of others as well."""
    yield '<section><h2>What each of them gives away</h2><div class="relays">'
    yield from (_relay(told) for told in run.told)
    yield "</div>"
    yield (
        "<p>Each envelope is a text that somebody wrote. Red: the verifier read it. Blue: ciphertext, and nothing that "
        "was handed over opens it. Above, what waited at the relay when the order came; below, what one person had "
        "read and erased before, in recorded ciphertext, after their device was seized with its "
        "passphrase.</p></section>"
    )
    yield "<section><h2>Read aloud</h2>"
    for told in run.told:
        for text in told.quoted[:2]:
            yield f"<blockquote>{escape(text)}<footer>{escape(told.generation.title)}</footer></blockquote>"
    yield "</section>"
    yield '<section><h2>What they stand for</h2><div class="scroll"><table><thead><tr><th>relay</th>'
    yield "<th>where the keys are</th><th>the case</th><th>source</th></tr></thead><tbody>"
    for told in run.told:
        of = told.generation
        cells = "".join(f"<td>{escape(text)}</td>" for text in (of.title, of.keys_are, of.case, of.sources))
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"
    yield "".join(f'<p class="limits">{escape(limit)}</p>' for limit in run.result.limits) + "</section>"


def _relay(told: "Told") -> str:
    kind = "none" if not told.read and not told.past_opened else "past" if not told.read else ""
    return (
        f'<div class="relay {kind}"><h3>{escape(told.generation.title)}</h3>'
        f'<svg viewBox="0 0 {_WIDTH} 92" role="img" aria-label="{told.read} of {told.waiting} texts read in the '
        f'disclosure, {told.past_opened} of {told.past} of the past">'
        f'<text x="0" y="10">in the disclosure</text>{_envelopes(told.read, told.waiting, 16)}'
        f'<text x="0" y="60">the past, device seized</text>{_envelopes(told.past_opened, told.past, 66)}</svg>'
        f"<p>{told.read} of {told.waiting} read; of the past {told.past_opened} of {told.past}</p>"
        f"<p><strong>{escape(told.verdict)}</strong></p></div>"
    )


def _envelopes(read: int, count: int, top: int) -> str:
    """One envelope a text."""
    step = min(34, _WIDTH // max(1, count))
    shapes = []
    for at in range(count):
        left = at * step
        name = "read" if at < read else "dark"
        fold = f"M{left} {top} l{(step - 6) / 2} {_ROW * 0.45} l{(step - 6) / 2} {-_ROW * 0.45}"
        shapes.append(
            f'<rect class="{name}" x="{left}" y="{top}" width="{step - 6}" height="{_ROW * 0.75}" rx="2"/>'
            f'<path d="{fold}" fill="none" stroke="var(--card)" stroke-width="1.5"/>'
        )
    return "".join(shapes)
