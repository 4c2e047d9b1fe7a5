"""Progress of a benchmark: a bar on a terminal, nothing elsewhere, so that output in a file holds results only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Bar", "progress"]

# A bar that is drawn more often takes CPU from what is measured.
_REFRESHES_PER_S = 2


class Bar:
    """What a benchmark tells of its progress."""

    def __init__(self, display: Progress, steps: int) -> None:
        self._display = display
        self._steps = display.add_task("", total=steps)
        self._inner = display.add_task("", total=None, visible=False)

    def step(self, what: str) -> None:
        """A step begins."""
        self._display.update(self._steps, description=what)
        self._display.update(self._inner, visible=False)

    def within(self, done: int, total: int) -> None:
        """How far the step has come."""
        self._display.update(self._inner, completed=done, total=total, visible=True)

    def done(self) -> None:
        """The step is over."""
        self._display.advance(self._steps)


@contextmanager
def progress(steps: int) -> Iterator[Bar]:
    """A bar of so many steps on stderr, where that is a terminal."""
    console = Console(stderr=True)
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        refresh_per_second=_REFRESHES_PER_S,
        disable=not (console.is_terminal and sys.stderr.isatty()),
    )
    with display:
        yield Bar(display, steps)
