"""The style sheet of the HTML report: system fonts, one column, light and dark, and a plain form for paper."""

from __future__ import annotations

STYLE = """
:root{--paper:#fbfaf7;--ink:#1d2129;--soft:#5c6470;--line:#dfddd6;--card:#fff;--good:#1f6f4a;--bad:#a4262c;
--warn:#8a5a00;--cipher:#2f4b7c;--meta:#d9a441;--keys:#4f9a94;--log:#8a7fb5;--format:#c4c9d1;--residue:#d97941;
--alien:#d11f2a}
@media (prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e8e6e1;--soft:#a0a7b2;--line:#2e343d;
--card:#1b1f26;--good:#2f9465;--bad:#d0484e;--warn:#c58a1c;--cipher:#6f8fd0;--format:#4a515c} }
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.wrap{max-width:54rem;margin:0 auto;padding:0 1.25rem}
code{font:.86em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
header{color:#fff;padding:2.6rem 0 2.2rem}
header.blind{background:#1f6f4a}
header.not-blind{background:#a4262c}
header.incomplete{background:#8a5a00}
.kicker{margin:0;font-size:.82rem;letter-spacing:.06em;text-transform:uppercase;opacity:.85}
h1{margin:.1em 0 .15em;font-size:clamp(2.6rem,10vw,4.6rem);line-height:1.02;letter-spacing:-.02em;font-weight:800}
.sentence{font-size:1.2rem;margin:.2rem 0 1.1rem;max-width:38rem}
.meta{margin:0;font-size:.86rem;opacity:.9}
h2{font-size:1.45rem;margin:2.6rem 0 .5rem;letter-spacing:-.01em}
h3{font-size:1.02rem;margin:0 0 .15rem;line-height:1.35}
section>h3{margin:1.6rem 0 .6rem}
p{margin:.35rem 0 .7rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:0;background:var(--card);
border:1px solid var(--line);border-radius:10px;overflow:hidden;margin-top:1.6rem}
.tiles div{padding:1rem 1.1rem;box-shadow:0 0 0 .5px var(--line)}
.tiles strong{display:block;font-size:1.65rem;line-height:1.15;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.86rem;line-height:1.35;display:block}
.alarm,.warning{border-left:5px solid var(--bad);background:var(--card);padding:.2rem 1.2rem .8rem;
margin-top:1.6rem;border-radius:0 10px 10px 0}
.warning{border-color:var(--warn)}
.alarm h2,.warning h2{margin-top:.8rem}
.alarm ul,.warning ul{padding-left:1.1rem;margin:.3rem 0}
.alarm td:first-child{white-space:nowrap}
.alarm li,.warning li{margin:.5rem 0;overflow-wrap:anywhere}
figure{margin:.9rem 0}
figcaption{display:flex;justify-content:space-between;gap:1rem;font-size:.88rem;margin-bottom:.25rem;flex-wrap:wrap}
figcaption span{color:var(--soft);font-variant-numeric:tabular-nums}
.bar{display:block;width:100%;height:28px;border-radius:5px}
.swatch{width:.8em;height:.8em;margin-right:.55em;vertical-align:-.05em}
.c-ciphertext{fill:var(--cipher)}
.c-metadata{fill:var(--meta)}
.c-public-key{fill:var(--keys)}
.c-log{fill:var(--log)}
.c-format{fill:var(--format)}
.c-residue{fill:var(--residue)}
.c-unexplained{fill:var(--alien)}
.c-tried{fill:var(--keys)}
.c-repeated{fill:var(--log)}
.c-regular{fill:var(--format)}
.bar.thin{height:18px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.42rem .7rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
thead th{color:var(--soft);font-weight:600;font-size:.8rem}
.legend{max-width:30rem}
.legend td:nth-child(n+2){text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.facts th{font-weight:500;color:var(--soft);width:42%}
.columns td:nth-child(n+3),.columns th:nth-child(n+3){text-align:right;font-variant-numeric:tabular-nums;
white-space:nowrap}
.scroll{overflow-x:auto}
.histogram{width:100%;max-width:37rem;height:auto;display:block}
.histogram .t{font:13px system-ui,sans-serif;fill:var(--ink)}
article{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--good);
border-radius:0 10px 10px 0;padding:.85rem 1.1rem .6rem;margin:.7rem 0;font-size:.93rem}
article.failed{border-left-color:var(--bad)}
article.missing{border-left-color:var(--warn)}
article.not-run{border-left-color:var(--format)}
.badge{display:inline-block;font-size:.7rem;font-weight:700;letter-spacing:.04em;text-transform:uppercase;
color:#fff;background:var(--good);border-radius:4px;padding:.12em .5em;margin-right:.35em;vertical-align:.12em}
.failed .badge{background:var(--bad)}
.missing .badge{background:var(--warn)}
.not-run .badge{background:#7b838f}
.id{color:var(--soft);font-size:.82rem;margin:.1rem 0 .5rem}
.evidence{font-weight:600;overflow-wrap:anywhere}
.limits{color:var(--soft);font-size:.88rem;overflow-wrap:anywhere}
ul.found,ul.absent{margin:.4rem 0;padding-left:1.1rem;overflow-wrap:anywhere}
ul.found{color:var(--bad)}
ul.absent{color:var(--warn)}
tr.escaped{color:var(--bad);font-weight:600}
footer{color:var(--soft);font-size:.86rem;padding-top:1.4rem;padding-bottom:3rem}
@media (max-width:34rem){.columns th:nth-child(4),.columns td:nth-child(4){display:none}body{font-size:15px}}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444} body{font-size:10.5pt} .wrap{
max-width:none}  header{padding:1rem 0;-webkit-print-color-adjust:exact;print-color-adjust:exact}
article,figure,tr,.tiles div{break-inside:avoid} h2,h3{break-after:avoid}  .bar,.swatch,.histogram,.badge{
-webkit-print-color-adjust:exact;print-color-adjust:exact} }
"""
