"""A result as a person reads it in a terminal, and the options and exit status that all experiments share."""

import contextlib
import json
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser

if TYPE_CHECKING:
    from rich.console import Console

    from sim.experiments.result import Result

__all__ = ["add_json", "conclude", "progress_bar", "show", "status_of_verdict", "verdict_markup"]

# By the value of a verdict: the parser loads this module, and nothing of sim/ before a command runs.
_STATUS: Final = {"holds": ExitStatus.OK, "fails": ExitStatus.NOT_BLIND, "void": ExitStatus.INCOMPLETE}
_REDRAW_S: Final = 0.1
_STYLE: Final = {"holds": "bold green", "fails": "bold red", "void": "bold yellow"}


def add_json(parser: Parser) -> None:
    """`--json FILE`: the result as a document."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON; - is stdout")


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, gone at the end; what it yields takes a title, a position and a total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Without a thread of its own that draws it: some experiments fork, which is safe only while there is one thread.
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None)
        drawn_s = 0.0

        def told(title: str, done: int, total: int) -> None:
            nonlocal drawn_s
            now_s = time.monotonic()
            refresh = now_s - drawn_s >= _REDRAW_S
            drawn_s = now_s if refresh else drawn_s
            bar.update(task, description=title, completed=done, total=total, refresh=refresh)

        yield told


def conclude(result: "Result", options: Options, *, twins: bool = True) -> int:
    """Show a result, write it where `--json` says, and give the exit status of its verdict.

    Args:
        twins: whether each twin gets a line; not where the command has shown them already.
    """
    text = json.dumps(result.document(), ensure_ascii=False, indent=2) + "\n"
    if options.json is not None and str(options.json) == "-":
        print(text, end="")
        return _STATUS[result.verdict.value]
    from rich.console import Console

    show(result, Console(highlight=False, soft_wrap=False), twins=twins)
    if options.json is not None:
        try:
            options.json.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{options.json}: {error.strerror}", "", ExitStatus.CANNOT_CREATE) from None
        print(f"\n{options.json}: the result, the same bytes for the same inputs")
    return _STATUS[result.verdict.value]


def status_of_verdict(verdict: str) -> ExitStatus:
    """0 if it holds, 1 if it fails, 2 if it is void."""
    return _STATUS[verdict]


def verdict_markup(verdict: str) -> str:
    """A verdict as it stands in a terminal."""
    return f"[{_STYLE[verdict]}]{verdict.upper()}[/]"


def show(result: "Result", console: "Console", *, twins: bool = True) -> None:
    """Print a result: the statement, what was measured, the twins, the verdict, and what it does not show."""
    console.print(f"[bold]{result.claim} · {result.experiment}[/bold]")
    console.print(result.statement, markup=False)
    console.print()
    width = max((len(figure.name) for figure in result.figures), default=0)
    for figure in result.figures:
        value = f"{figure.value:,}" if isinstance(figure.value, int) else str(figure.value)
        if isinstance(figure.value, float):
            value = f"{figure.value:.4f}"
        console.print(f"  {figure.name:{width}}  {value} {figure.unit}".rstrip(), markup=False)
    console.print(f"\n[bold]Twins[/bold] {_caught(result)}")
    width = max((len(control.name) for control in result.controls), default=0)
    for control in result.controls if twins else ():
        word = "caught" if control.caught else "NOT CAUGHT"
        console.print(f"  {control.name:{width}}  {word:10}  {control.how}", markup=False)
    for line in result.evidence:
        console.print(f"  {line}", style="red", markup=False)
    console.print(f"\n[{_STYLE[result.verdict.value]}]{result.verdict.value.upper()}[/]", end="")
    parameters = ", ".join(f"{name} {value}" for name, value in sorted(result.parameters.items()))
    console.print(f"   {parameters}", markup=False)
    if result.limits:
        console.print("Does not show:")
    for limit in result.limits:
        lines = textwrap.wrap(limit, console.width - 4) if console.is_terminal else [limit]
        console.print("  · " + "\n    ".join(lines), markup=False)


def _caught(result: "Result") -> str:
    return f"{sum(control.caught for control in result.controls)} of {len(result.controls)} caught"
