"""One HTML page of a result: plots, tables, machine, versions, command. No scripts, nothing fetched, prints well."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from benchmarks.charts import Chart, svg_of
from benchmarks.report import Case, Report
from benchmarks.tables import figure, spread

__all__ = ["page_of"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --soft: #5b6675; --line: #dfe4ea; --back: #f4f6f8; --card: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa7b6; --line: #303a47; --back: #0f141a; --card: #151b23; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 0 0 8px; }
p, li { max-width: 76ch; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin: 0 0 16px; overflow-x: auto; }
.card svg { display: block; max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 4px 12px 4px 0; border-top: 1px solid var(--line); vertical-align: top;
  font-weight: 400; }
tr:first-child > * { border-top: 0; }
.side td, .side th { font-size: 13px; padding: 3px 14px 3px 0; }
.side th { min-width: 94px; }
.side th:first-child { min-width: 220px; }
.side tr:first-child th { vertical-align: bottom; color: var(--soft); }
.side tr:first-child th:not(:first-child) { text-align: right; }
td.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
code { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media print { body { background: none; } .card { break-inside: avoid; border-color: #bbb; } }
""".strip()


def page_of(report: Report, charts: Sequence[Chart]) -> str:
    """The page."""
    cases = "".join(_case(case) for case in report.cases)
    skipped = "".join(f"<li>{escape(one.name)}: {escape(one.reason)}</li>" for one in report.skipped)
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    left_out = f'<h2>Not measured</h2><div class="card"><ul>{skipped}</ul></div>' if skipped else ""
    plots = f'<div class="card">{svg_of(charts)}</div>' if charts else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Blindpost benchmark: {escape(report.benchmark)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Blindpost benchmark: {escape(report.benchmark)}</h1>"
        f'<p class="soft">{escape(report.started)}, <code>{escape(report.command)}</code></p>'
        f'<p class="soft">{escape(_where(report))}</p>{notes}{plots}'
        f"{_side_by_side(report)}<h2>Figures with the range of their rounds</h2>{cases}{left_out}<h2>Where</h2>"
        f'<div class="card"><table>{_pairs(report.machine)}</table></div>'
        f'<div class="card"><table>{_pairs(report.versions)}</table></div>'
        f'<p class="soft">Seed {report.seed}. Each figure is the median of the rounds, with their range.</p>'
        "</main></body></html>\n"
    )


def _where(report: Report) -> str:
    """What a reader must know before any figure; the whole of it is at the end of the page."""
    machine = report.machine
    words = [f"{machine['processor']}, {machine['cores']} cores"]
    words += [f"{int(machine['memory_mib']) // 1024} GiB"] if "memory_mib" in machine else []
    words += [str(machine[name]) for name in ("system", "file_system") if name in machine]
    words += [f"Python {report.versions['Python']}"] if "Python" in report.versions else []
    words += [f"load average before: {machine['load_before']}"] if "load_before" in machine else []
    return "; ".join([*words, f"seed {report.seed}"])


def _side_by_side(report: Report) -> str:
    """Medians in one table, a column for each metric that several cases have."""
    counts = Counter(name for case in report.cases for name in case.metrics)
    units = {name: metric.unit for case in report.cases for name, metric in case.metrics.items() if counts[name] > 1}
    if not units:
        return ""
    heads = "".join(f"<th>{escape(name)}<br>{escape(unit)}</th>" for name, unit in units.items())
    rows = "".join(
        f"<tr><th>{escape(case.name)}</th>"
        + "".join(
            f'<td class="figure">{figure(case.metrics[name].median) if name in case.metrics else ""}</td>'
            for name in units
        )
        + "</tr>"
        for case in report.cases
        if case.metrics.keys() & units.keys()
    )
    return f'<h2>Medians</h2><div class="card"><table class="side"><tr><th></th>{heads}</tr>{rows}</table></div>'


def _pairs(pairs: dict[str, str | int] | dict[str, str]) -> str:
    return "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in pairs.items())


def _case(case: Case) -> str:
    rows = [
        f'<tr><th>{escape(name)}</th><td class="figure">{figure(metric.median)}</td><td>{escape(metric.unit)}</td>'
        f'<td class="soft">{spread(metric)}</td></tr>'
        for name, metric in case.metrics.items()
    ]
    for kind, percentiles in case.percentiles.items():
        for percentile, value in percentiles:
            label = f"{kind} p{percentile:g}" if percentile < 100 else f"{kind}, most"
            rows.append(f'<tr><th>{escape(label)}</th><td class="figure">{figure(value)}</td><td>ms</td><td></td></tr>')
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in case.notes)
    return f'<div class="card"><h3>{escape(case.name)}</h3><table>{"".join(rows)}</table>{notes}</div>'
