"""The game's result as a picture: each adversary's advantage with its interval, and the twins for comparison.

Plain SVG and HTML, without scripts, colours that matter, or anything loaded: it prints in black on white. Made from a
`Result` alone, so that whoever has the document can draw it again.
"""

import re
from html import escape
from typing import Final

from sim.experiments.game.experiment import ADVANTAGE_OF, TWIN, Score
from sim.experiments.result import Result

__all__ = ["page_section"]

_INTERVAL: Final = re.compile(r"\[([+-][0-9.]+), ([+-][0-9.]+)\]")
_ROW: Final = 26
_LEFT: Final = 250
_PLOT: Final = 400
_RIGHT: Final = 220
_TOP: Final = 34
_BOTTOM: Final = 34
_CAP: Final = 5
_FONT: Final = 'font-family="sans-serif" font-size="13" fill="#000"'


def page_section(result: Result) -> str:
    """A section of a page: heading, what was tested, two plots and what they show.

    Args:
        result: of this experiment.
    """
    honest = _scores(result, ADVANTAGE_OF)
    twins = _scores(result, TWIN)
    limit = float(result.parameters["advantage at most"])
    needed = float(result.parameters["twin advantage above"])
    episodes = int(result.parameters["episodes"])
    span = max([1.3 * limit, *(1.1 * max(abs(score.low), abs(score.high)) for score in honest)])
    failing = next(f for f in result.figures if f.name == "a blind relay would fail, any adversary, at most")
    return "\n".join(
        (
            '<section class="game">',
            f"<h2>Distinguishing game: {escape(result.verdict.value)}</h2>",
            f"<p>{escape(result.statement)}</p>",
            f"<p>Advantage 0 is guessing, 1 is knowing. Held-out episodes: {episodes:,}. Bars are Clopper-Pearson "
            f"intervals, at {100 * (1 - float(result.parameters['alpha, all adversaries'])):g} % for all adversaries "
            f"together. A blind relay would fail this plan with probability {float(failing.value):.4f} at most.</p>",
            "<h3>The relay</h3>",
            _plot(honest, -span, span, (0.0, limit), f"limit {limit:g}"),
            "<h3>The same adversaries against clients that leak: each client, and who did best against it</h3>",
            _plot(twins, 0.0, 1.0, (0.0, needed), f"above {needed:g} is caught"),
            "</section>",
        )
    )


def _scores(result: Result, start: str) -> list[Score]:
    scores = []
    for figure in result.figures:
        found = _INTERVAL.fullmatch(figure.unit)
        if figure.name.startswith(start) and found is not None:
            low, high = map(float, found.groups())
            scores.append(Score(figure.name.removeprefix(start), float(figure.value), low, high))
    return scores


def _plot(scores: list[Score], low: float, high: float, marks: tuple[float, float], note: str) -> str:
    """One row a score on an axis from `low` to `high`, with a line at both marks; the second has a note."""
    height = _TOP + _ROW * len(scores) + _BOTTOM
    width = _LEFT + _PLOT + _RIGHT

    def across(value: float) -> float:
        return _LEFT + _PLOT * (min(max(value, low), high) - low) / (high - low)

    bottom = height - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto" role="img" aria-label="advantages with intervals" {_FONT}>'
    ]
    zero, limit = (across(mark) for mark in marks)
    parts += [
        _line(_LEFT, bottom, _LEFT + _PLOT, bottom),
        _line(zero, _TOP - 8, zero, bottom),
        _line(limit, _TOP - 8, limit, bottom, ' stroke-dasharray="5 4"'),
        _text(limit, _TOP - 14, note, "middle"),
    ]
    for tick in _ticks(low, high):
        parts.append(_line(across(tick), bottom, across(tick), bottom + 5))
        parts.append(_text(across(tick), bottom + 20, f"{tick:g}", "middle"))
    for index, score in enumerate(scores):
        y = _TOP + _ROW * index + _ROW / 2
        left, right, point = across(score.low), across(score.high), across(score.advantage)
        parts += [
            _text(_LEFT - 12, y + 4, score.name, "end"),
            _line(left, y, right, y),
            _line(left, y - _CAP, left, y + _CAP),
            _line(right, y - _CAP, right, y + _CAP),
            f'<circle cx="{point:.1f}" cy="{y:.1f}" r="4" fill="#000"/>',
            _text(_LEFT + _PLOT + 12, y + 4, f"{score.advantage:+.4f} [{score.low:+.4f}, {score.high:+.4f}]", "start"),
        ]
    return "\n".join((*parts, "</svg>"))


def _ticks(low: float, high: float) -> list[float]:
    """Five to nine round values from `low` to `high`."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 10)
    first = -int(-low / step) if low < 0 else 0
    return [round(step * index, 6) for index in range(first, int(high / step + 1e-9) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#000" stroke-width="1.5"{more}/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
