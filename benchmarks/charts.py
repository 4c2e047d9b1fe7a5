"""Plots as SVG, drawn by hand: bars with every round as a dot, lines over a logarithmic scale, and latency curves.

Rules: nothing is fetched and nothing runs; colours come from one palette that is distinct without colour vision and in
print, and follow the reader's light or dark setting; a bar begins at zero; every axis names its unit. What is drawn is
what the result's file holds: the bar or line is the median, the dots are the rounds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.report import Case, Metric
from benchmarks.tables import figure

__all__ = ["STYLE", "Bars", "Chart", "Curves", "Lines", "bars_of", "svg_of"]

WIDTH = 1_000
_LEFT, _RIGHT = 410, 110
_ROW = 30
_PLOT_HEIGHT = 300
_PALETTE = 6

STYLE = """
.bp-charts { --ink: #1b2330; --soft: #5b6675; --grid: #dfe4ea; --back: #ffffff;
  --c0: #0b6e99; --c1: #d1495b; --c2: #66a182; --c3: #edae49; --c4: #6d5a9c; --c5: #7d8597; }
@media (prefers-color-scheme: dark) { .bp-charts { --ink: #e8ecf1; --soft: #9aa7b6; --grid: #303a47; --back: #151b23;
  --c0: #4fb3d9; --c1: #f07a86; --c2: #86c5a0; --c3: #f3c46b; --c4: #a995dc; --c5: #a7afbd; } }
.bp-charts text { fill: var(--ink);
  font: 13px/1.3 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.bp-charts .title { font-size: 16px; font-weight: 600; }
.bp-charts .soft { fill: var(--soft); font-size: 12px; }
.bp-charts .value { font-variant-numeric: tabular-nums; }
.bp-charts .grid { stroke: var(--grid); stroke-width: 1; }
.bp-charts .mark { stroke: var(--ink); stroke-width: 1.25; stroke-dasharray: 4 4; }
.bp-charts .line { fill: none; stroke-width: 2.25; stroke-linejoin: round; }
.bp-charts .dot { fill: var(--back); stroke: var(--ink); stroke-width: 1.25; }
.bp-charts .back { fill: var(--back); }
""".strip()


@dataclass(frozen=True, slots=True)
class Row:
    """One bar: its median and its rounds."""

    label: str
    rounds: Sequence[float]
    median: float
    group: int = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars of one metric.

    Args:
        title: what is shown.
        unit: of the figures.
        better: `more`, `less` or empty.
        rows: the bars, from the top.
        marks: (value, label) of lines to compare with, such as targets.
        legend: what the groups of rows are, in the order of their numbers; empty for a single one.
    """

    title: str
    unit: str
    better: str
    rows: Sequence[Row]
    marks: Sequence[tuple[float, str]] = ()
    legend: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over a horizontal axis of counts.

    Args:
        title: what is shown.
        x_label: of the horizontal axis.
        unit: of the vertical axis, which begins at zero.
        series: (x, median, rounds) by name.
        logarithmic: whether the horizontal axis is; otherwise it begins at zero.
    """

    title: str
    x_label: str
    unit: str
    series: Mapping[str, Sequence[tuple[float, float, Sequence[float]]]]
    logarithmic: bool = True


@dataclass(frozen=True, slots=True)
class Curves:
    """Latency by percentile, both axes logarithmic: the far right is the worst message.

    Args:
        title: what is shown.
        unit: of the latencies.
        series: (percentile, latency) by name.
    """

    title: str
    unit: str
    series: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


Chart = Bars | Lines | Curves


def bars_of(
    cases: Sequence[Case],
    metric: str,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    group_of: Callable[[Case], int] = lambda case: 0,
    legend: Sequence[str] = (),
) -> Bars:
    """Bars of one metric of the cases that have it."""
    found: list[tuple[Case, Metric]] = [(case, case.metrics[metric]) for case in cases if metric in case.metrics]
    rows = [Row(case.name, one.rounds, one.median, group_of(case)) for case, one in found]
    unit, better = (found[0][1].unit, found[0][1].better) if found else ("", "")
    return Bars(title, unit, better, rows, marks, legend)


def svg_of(charts: Sequence[Chart]) -> str:
    """One SVG document of charts below each other."""
    parts, top = [], 12.0
    for chart in charts:
        body, height = _drawn(chart)
        parts.append(f'<g transform="translate(0 {top:.0f})">{body}</g>')
        top += height + 28
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="bp-charts" viewBox="0 0 {WIDTH} {top:.0f}" '
        f'width="{WIDTH}" height="{top:.0f}" role="img" aria-label="{escape(_titles(charts))}">'
        f"<style>{STYLE}</style>"
        f'<rect class="back" width="{WIDTH}" height="{top:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _titles(charts: Sequence[Chart]) -> str:
    return "; ".join(chart.title for chart in charts)


def _drawn(chart: Chart) -> tuple[str, float]:
    if isinstance(chart, Bars):
        return _bars(chart)
    return _lines(chart) if isinstance(chart, Lines) else _curves(chart)


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def _head(title: str, under: str) -> str:
    return _text(16, 20, title, "title") + _text(16, 39, under, "soft")


def _bars(chart: Bars) -> tuple[str, float]:
    most = max([max(row.rounds) for row in chart.rows] + [value for value, _ in chart.marks] + [0.0])
    ticks = _ticks(most)
    span = WIDTH - _LEFT - _RIGHT
    scale = span / (ticks[-1] or 1.0)
    better = {"more": "; longer is better", "less": "; shorter is better"}.get(chart.better, "")
    dots = "; dots: rounds" if any(len(row.rounds) > 1 for row in chart.rows) else ""
    out = [_head(chart.title, f"{_unit(chart.unit)}{better}{dots}")]
    legend, below = _legend(chart)
    out += legend
    top = 58.0 + below + (14 if chart.marks else 0)
    bottom = top + _ROW * len(chart.rows)
    for tick in ticks:
        x = _LEFT + tick * scale
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>')
        out.append(_text(x, bottom + 16, f"{tick:,.6g}", "soft", "middle"))
    for number, row in enumerate(chart.rows):
        y = top + number * _ROW
        width = max(1.0, row.median * scale)
        out.append(_text(_LEFT - 12, y + 19, _short(row.label, 57), "", "end"))
        tip = f"{escape(row.label)}: {row.median:g} {escape(chart.unit)}"
        out.append(
            f'<rect x="{_LEFT}" y="{y + 6:.1f}" width="{width:.1f}" height="18" rx="2" '
            f'fill="var(--c{row.group % _PALETTE})"><title>{tip}</title></rect>'
        )
        if len(row.rounds) > 1:
            out += [
                f'<circle class="dot" cx="{_LEFT + one * scale:.1f}" cy="{y + 15:.1f}" r="3"/>' for one in row.rounds
            ]
        end = _LEFT + max(*row.rounds, row.median) * scale
        out.append(_text(end + 10, y + 19, figure(row.median), "value"))
    for value, label in chart.marks:
        x = _LEFT + value * scale
        out.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4:.0f}" y2="{bottom:.0f}"/>')
        out.append(_text(x, top - 9, label, "soft", "middle"))
    return "".join(out), bottom + 22


def _legend(chart: Bars) -> tuple[list[str], float]:
    """The groups that have a bar, beside the unit or, where they are too long for that, in a line below it."""
    drawn = {row.group for row in chart.rows}
    groups = [(number, words) for number, words in enumerate(chart.legend) if number in drawn]
    widths = [36 + 6.6 * len(words) for _, words in groups]
    below = 22.0 if _LEFT + sum(widths) > WIDTH else 0.0
    at, y = (16.0 if below else float(_LEFT)), 39 + below
    out = []
    for (number, words), width in zip(groups, widths, strict=True):
        out.append(f'<circle cx="{at + 5:.0f}" cy="{y - 4:.0f}" r="5" fill="var(--c{number % _PALETTE})"/>')
        out.append(_text(at + 15, y, words, "soft"))
        at += width
    return out, below


def _unit(unit: str) -> str:
    """A bare `/s` says too little beside an axis."""
    return "a second" if unit == "/s" else unit


def _lines(chart: Lines) -> tuple[str, float]:
    points = [point for series in chart.series.values() for point in series]
    ticks = _ticks(max([max(rounds, default=y) for _, y, rounds in points] + [0.0]))
    lowest, highest = min(x for x, _, _ in points), max(x for x, _, _ in points)
    across = (
        _log_scale(lowest, highest, 70, WIDTH - 230)
        if chart.logarithmic
        else lambda value: 70 + (WIDTH - 320) * value / highest
    )

    def up(value: float) -> float:
        return 60 + _PLOT_HEIGHT * (1 - value / (ticks[-1] or 1.0))

    scale = " (logarithmic)" if chart.logarithmic else ""
    out = [_head(chart.title, f"{_unit(chart.unit)}, over {chart.x_label}{scale}; line: median, dots: rounds")]
    out += _horizontal(ticks, up)
    for x in sorted({x for x, _, _ in points}):
        out.append(_text(across(x), 60 + _PLOT_HEIGHT + 18, figure(x), "soft", "middle"))
    out.append(_text((70 + WIDTH - 230) / 2, 60 + _PLOT_HEIGHT + 38, chart.x_label, "soft", "middle"))
    ends = []
    for number, (name, series) in enumerate(chart.series.items()):
        colour = f"var(--c{number % _PALETTE})"
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _ in series)
        out.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        for x, _, rounds in series:
            out += [
                f'<circle cx="{across(x):.1f}" cy="{up(one):.1f}" r="3" fill="{colour}" fill-opacity="0.65"/>'
                for one in rounds
            ]
        ends.append((up(series[-1][1]), name, colour))
    out += _names(ends)
    return "".join(out), 60 + _PLOT_HEIGHT + 44


def _curves(chart: Curves) -> tuple[str, float]:
    rows = [(name, [(p, max(value, 1e-3)) for p, value in series]) for name, series in chart.series.items()]
    values = [value for _, series in rows for _, value in series]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values) * 1.001))
    nines = max([_nines(p) for _, series in rows for p, _ in series if p < 100] + [1.0])

    def across(percentile: float) -> float:
        # The worst message stands one step to the right of the last percentile.
        place = nines + 0.5 if percentile >= 100 else _nines(percentile)
        return 70 + (WIDTH - 300) * (place - _nines(50)) / (nines + 0.5 - _nines(50))

    def up(value: float) -> float:
        return 60 + _PLOT_HEIGHT * (1 - math.log(value / low) / math.log(high / low))

    out = [_head(chart.title, f"{chart.unit}, both axes logarithmic; all rounds together")]
    decades = [low * 10**step for step in range(round(math.log10(high / low)) + 1)]
    out += _horizontal(decades, up)
    for percentile in sorted({p for _, series in rows for p, _ in series}):
        label = "most" if percentile >= 100 else f"p{percentile:g}"
        out.append(_text(across(percentile), 60 + _PLOT_HEIGHT + 18, label, "soft", "middle"))
    ends = []
    for number, (name, series) in enumerate(rows):
        colour = f"var(--c{number % _PALETTE})"
        path = " ".join(f"{across(p):.1f},{up(value):.1f}" for p, value in series)
        out.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        out += [f'<circle cx="{across(p):.1f}" cy="{up(value):.1f}" r="3.5" fill="{colour}"/>' for p, value in series]
        ends.append((up(series[-1][1]), name, colour))
    out += _names(ends)
    return "".join(out), 60 + _PLOT_HEIGHT + 24


def _nines(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def _horizontal(ticks: Sequence[float], up: Callable[[float], float]) -> list[str]:
    out = []
    for tick in ticks:
        y = up(tick)
        out.append(f'<line class="grid" x1="70" x2="{WIDTH - 230}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(_text(60, y + 4, f"{tick:,.6g}", "soft", "end"))
    return out


def _names(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """Names at the ends of the lines, moved apart where they would overlap."""
    out, last = [], 0.0
    for y, name, colour in sorted(ends):
        place = max(y, last + 34)
        last = place
        first, rest = _broken(name, 28)
        out.append(f'<circle cx="{WIDTH - 216}" cy="{place:.1f}" r="5" fill="{colour}"/>')
        out.append(_text(WIDTH - 204, place + 4, first))
        if rest:
            out.append(_text(WIDTH - 204, place + 19, _short(rest, 30), "soft"))
    return out


def _broken(name: str, most: int) -> tuple[str, str]:
    if len(name) <= most:
        return name, ""
    cut = name.rfind(" ", 0, most + 1)
    return (name[:cut].rstrip(","), name[cut + 1 :]) if cut > 0 else (name[:most], name[most:])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _log_scale(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    span = math.log(high / low) if high > low else 1.0
    return lambda value: left + 20 + (right - left - 40) * math.log(value / low) / span


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to just above `most`, four to six of them."""
    if most <= 0:
        return [0.0, 1.0]
    step = 10.0 ** math.floor(math.log10(most / 4))
    for factor in (1, 2, 2.5, 5, 10):
        if step * factor * 5 >= most:
            step *= factor
            break
    return [number * step for number in range(math.ceil(most / step - 1e-9) + 1)]
