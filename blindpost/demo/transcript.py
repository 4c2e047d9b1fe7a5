"""What the person in front of the demonstration sees, and the same as a text file.

Everything is said twice: on the screen (rich: colour and a spinner where there is a terminal, plain lines where there
is none), and in `transcript.txt`, which never holds a control character. What was written by somebody else, such as
the text of a message, goes through `quote`, which makes it harmless to print (client/chat.py).

    with Transcript(sys.stdout, path) as transcript:
        transcript.chapter("The relay")
        with transcript.step("start the relay") as step:
            …
            step.done("runs as process 4711")
"""

import contextlib
import io
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client.chat import printable

__all__ = ["Step", "Transcript"]

_WIDTH_MAX = 100
_INDENT = 3
_GOOD, _BAD = "✓", "✗"


class _Trimmed(io.TextIOBase):
    """Hands whole lines on, without the spaces that rich fills them up with."""

    def __init__(self, target: IO[str]) -> None:
        self._target = target
        self._line = ""

    def write(self, text: str) -> int:
        """Keep the unfinished line; hand on the others."""
        *lines, self._line = (self._line + text).split("\n")
        self._target.writelines(f"{line.rstrip(' ')}\n" for line in lines)
        return len(text)

    def flush(self) -> None:
        """A person may look at the file while the story runs, and an error must not swallow its end."""
        self._target.flush()


class Step:
    """One thing that takes a while; says what came of it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.result = ""

    def done(self, result: str) -> None:
        """What came of it, in the words of the line that stays."""
        self.result = result


class Transcript:
    """The story's two pages.

    Args:
        screen: where the person looks.
        path: the text file, which must not exist yet.
    """

    def __init__(self, screen: IO[str], path: Path) -> None:
        self.path = path
        self._file = path.open("x", encoding="utf-8")
        is_terminal = screen.isatty()
        width = min(shutil.get_terminal_size().columns, _WIDTH_MAX) if is_terminal else _WIDTH_MAX
        shown: IO[str] = screen if is_terminal else cast("IO[str]", _Trimmed(screen))
        self._screen = Console(
            file=shown, width=width, highlight=False, markup=False, emoji=False, force_terminal=is_terminal
        )
        self._page = Console(
            file=cast("IO[str]", _Trimmed(self._file)),
            width=_WIDTH_MAX,
            highlight=False,
            markup=False,
            emoji=False,
            color_system=None,
            force_terminal=False,
        )
        self._chapter = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def title(self, text: str) -> None:
        """The head of the page."""
        self._print(Text(text, style="bold"))
        self._print(Text("=" * min(len(text), _WIDTH_MAX), style="bold"))

    def chapter(self, text: str) -> None:
        """A new chapter, numbered."""
        self._chapter += 1
        self._print(Text(f"\n{self._chapter}. {text}", style="bold cyan"))

    def say(self, text: str, style: str = "") -> None:
        """A paragraph of the teller's own words."""
        self._print(Padding(Text(" ".join(text.split()), style=style), (0, 0, 0, _INDENT), expand=False))

    def fact(self, text: str) -> None:
        """One line of detail below a step."""
        self._print(Padding(Text(text, style="dim"), (0, 0, 0, _INDENT + 2), expand=False))

    def good(self, text: str, seconds: float | None = None) -> None:
        """Something came out as it should."""
        self._mark(_GOOD, "green", text, seconds)

    def bad(self, text: str, seconds: float | None = None) -> None:
        """Something did not."""
        self._mark(_BAD, "bold red", text, seconds)

    def verdict(self, holds: bool, text: str) -> None:
        """A line that stands out."""
        self._mark(_GOOD if holds else _BAD, "bold green" if holds else "bold red", text, None)

    def quote(self, who: str, text: str) -> None:
        """What somebody wrote, made harmless to print."""
        line = Text(f"{who}: ", style="dim")
        line.append(printable(text), style="italic")
        self._print(Padding(line, (0, 0, 0, _INDENT + 2), expand=False))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """A small table; columns named in `right` are aligned to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
        table.show_header, table.header_style = any(head), "underline"
        for index, name in enumerate(head):
            table.add_column(Text(name), justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._print(Padding(table, (0, 0, 0, _INDENT + 2), expand=False))

    def blank(self) -> None:
        """An empty line."""
        self._print(Text(""))

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show that something is under way; leave one line when it is over.

        Nothing is left on the screen or the page while it runs, so a page that is no terminal has no half lines.
        """
        step = Step(what)
        started_s = time.monotonic()
        try:
            if self._screen.is_terminal:
                with self._screen.status(Text(f" {what} …")):
                    yield step
            else:
                yield step
        except BaseException as error:
            word = "failed" if isinstance(error, Exception) else "interrupted"
            self.bad(f"{what}: {word}", time.monotonic() - started_s)
            raise
        self.good(step.result or what, time.monotonic() - started_s)

    def _mark(self, mark: str, style: str, text: str, seconds: float | None) -> None:
        line = Text(text, style=style if "bold" in style else "")
        if seconds is not None:
            line.append(f"  ({seconds:.1f} s)", style="dim")
        table = Table.grid()
        table.add_column(width=2)
        table.add_column(overflow="fold")
        table.add_row(Text(mark, style=style), line)
        self._print(Padding(table, (0, 0, 0, _INDENT - 2), expand=False))

    def _print(self, what: RenderableType) -> None:
        self._screen.print(what)
        self._page.print(what)
        self._file.flush()
