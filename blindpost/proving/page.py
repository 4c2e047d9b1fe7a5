"""Pages of the proof, in the frame of the verifier's report (audit/report_style.py): no script, no resource."""

from collections.abc import Iterable
from html import escape
from typing import Final

from audit.report_style import STYLE

__all__ = ["MORE_STYLE", "page"]

MORE_STYLE: Final = """
header.holds{background:#1f6f4a}
header.fails{background:#a4262c}
header.void{background:#8a5a00}
.relays{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:1.2rem 0}
.relay{background:var(--card);border:1px solid var(--line);border-top:5px solid var(--bad);border-radius:0 0 10px 10px;
padding:.7rem .8rem}
.relay.past{border-top-color:var(--warn)}
.relay.none{border-top-color:var(--good)}
.relay h3{min-height:4.1em}
.relay p{font-size:.86rem;margin:.25rem 0}
.relay svg{display:block;width:100%;height:auto}
.relay text{font:600 10px system-ui,sans-serif;fill:var(--soft)}
.read{fill:var(--bad)}
.kept{fill:none;stroke:var(--soft);stroke-dasharray:2 2}
.dark{fill:var(--cipher)}
blockquote{margin:.4rem 0;padding:.3rem .9rem;border-left:4px solid var(--bad);background:var(--card);
font-family:Georgia,serif;overflow-wrap:anywhere}
blockquote footer{font:.8rem system-ui,sans-serif;padding:0}
.facts-of{margin-top:1.4rem;font-size:.9rem}
.overview td:not(:nth-child(3)),.overview th{white-space:nowrap}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--soft);font-size:.9rem}
@media print{details{display:block} details>*{display:block} }
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
@media print{.relay{break-inside:avoid} svg{-webkit-print-color-adjust:exact;print-color-adjust:exact} }
"""


def page(title: str, word: str, verdict_class: str, sentence: str, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: of the window.
        word: what stands largest.
        verdict_class: `holds`, `fails` or `void`: the colour of the head.
        sentence: what it means.
        body: sections, already escaped.
    """
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{MORE_STYLE}</style>\n</head>\n<body>",
            f'<header class="{escape(verdict_class)}"><div class="wrap">',
            f'<p class="kicker">Blindpost · {escape(title)}</p>',
            f"<h1>{escape(word)}</h1>",
            f'<p class="sentence">{escape(sentence)}</p>',
            '</div></header>\n<main class="wrap">',
            *body,
            "</main>\n</body>\n</html>\n",
        )
    )
