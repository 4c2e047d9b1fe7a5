"""The picture of a key search for the HTML report: which windows of which part were tried, and why the others were not.

One bar a part, drawn as inline SVG, and the same in numbers beside it. What is written here is escaped like everything
else on the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from audit.keysearch.coverage import Coverage, SectionFigures

_FATES = (
    ("tried", "c-tried", "tried as keys"),
    ("repeated", "c-repeated", "equal to another in its block"),
    ("regular", "c-regular", "too regular for a random key"),
)
_WIDTH = 1000
_HAIR = 3.0


def key_search_html(coverage: Coverage) -> Iterator[str]:
    """The section of the page."""
    yield "<section><h2>Every window, tried as a key</h2>"
    found = f"{coverage.leak_count:,} keys were found" if coverage.leak_count else "No key was found"
    own = (
        f" but the relay’s own signing key, {coverage.declared_count} times, as it declares"
        if coverage.declared_count
        else ""
    )
    yield f"<p>{coverage.windows:,} windows of 32 bytes, {coverage.tried:,} of them tried as {_kinds(coverage)}"
    yield f"against {_targets(coverage)}. {found}{own}.</p>"
    for section in coverage.sections:
        yield from _part(section)
    yield '<table class="legend"><tbody>'
    for name, style, meaning in _FATES:
        count = sum(int(getattr(section, name)) for section in coverage.sections)
        yield f"<tr><td>{_swatch(style)}{meaning}</td><td>{count:,}</td></tr>"
    decoded = sum(section.decoded_tried.total() for section in coverage.sections)
    yield f"<tr><td>tried after decoding what was compressed or encoded</td><td>{decoded:,}</td></tr>"
    yield "</tbody></table></section>"


def _kinds(coverage: Coverage) -> str:
    return escape(", ".join(kind.value for kind in coverage.kinds))


def _targets(coverage: Coverage) -> str:
    return escape(", ".join(f"{count:,} {name}" for name, count in coverage.targets.items()))


def _part(section: SectionFigures) -> Iterator[str]:
    told = f"{section.tried:,} of {section.windows:,} windows tried, at alignment {section.alignment}"
    yield f"<figure><figcaption>{escape(section.name)} <span>{told}</span></figcaption>{_bar(section)}</figure>"


def _bar(section: SectionFigures) -> str:
    """To scale; a fate that occurs is never thinner than a hair."""
    counts = [(int(getattr(section, name)), style, meaning) for name, style, meaning in _FATES]
    present = [(count, style, meaning) for count, style, meaning in counts if count]
    widths = [max(_WIDTH * count / (section.windows or 1), _HAIR) for count, _, _ in present]
    scale, x, parts = _WIDTH / (sum(widths) or 1.0), 0.0, []
    for (count, style, meaning), width in zip(present, widths, strict=True):
        parts.append(
            f'<rect class="{style}" x="{x:.2f}" y="0" width="{width * scale:.2f}" height="18">'
            f"<title>{meaning}: {count:,}</title></rect>"
        )
        x += width * scale
    described = ", ".join(f"{count:,} {meaning}" for count, _, meaning in present)
    return (
        f'<svg class="bar thin" viewBox="0 0 {_WIDTH} 18" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(section.name, quote=True)}: {described}">{"".join(parts)}</svg>'
    )


def _swatch(style: str) -> str:
    square = f'<rect class="{style}" width="10" height="10" rx="2"/>'
    return f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{square}</svg>'
