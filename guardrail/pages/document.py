"""The frame of a page: its style, its policy for browsers, and text and tables made inert.

A page refers to nothing outside it and runs nothing: its content security policy allows the one
style sheet that stands in it, by its digest, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from guardrail.pages.inert import shortened

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #585d65; --page: #fcfcfd;
  --panel: #f0f1f4; --rule: #cfd2d8; --a: #0a5db8; --b: #b23a08; --c: #666a72; --d: #126b42; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #adb2ba; --page: #111316;
  --panel: #1b1e22; --rule: #3b4048; --a: #6cb2ff; --b: #ff9a62; --c: #a0a6ae; --d: #5bd19b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.8rem 0 .3rem;
  overflow-wrap: anywhere; }
p, li { max-width: 46rem; } .soft, figcaption, caption { color: var(--soft); }
.lead { font-size: 1.1rem; } code { overflow-wrap: anywhere; font-size: .92em; }
a { color: var(--a); } :focus-visible { outline: 3px solid var(--a); outline-offset: 2px; }
nav ul { list-style: none; padding: 0; margin: 1rem 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1rem; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem;
  background: var(--page); padding: .3rem .6rem; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem;
  margin: 1rem 0; }
.three div { background: var(--panel); border-radius: .5rem; padding: .9rem 1.1rem; }
.three b { display: block; font-size: 1.7rem; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 1.4rem; } .plot { overflow-x: auto; }
.plot svg { width: 100%; min-width: 34rem; height: auto; display: block; }
.bars { max-width: 27rem; } .bars svg { width: 100%; height: auto; display: block;
  margin-top: .5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 0 3rem; }
.point { fill-opacity: 0; } .point:hover, .point:only-child { fill-opacity: 1; }
details { margin: .3rem 0 1rem; } summary { cursor: pointer; color: var(--a); }
.wide { overflow-x: auto; margin: 0 0 .6rem; } .wide + .wide { margin-top: 1.2rem; }
.limit { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 0 2rem; }
.limit h3 { grid-column: 1 / -1; } .limit .wide + .wide { margin-top: 0; }
table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .9rem 0 .3rem; }
caption span { display: block; max-width: calc(100vw - 2.4rem); }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--rule);
  vertical-align: top; font-weight: 400; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, td.text, th.text { text-align: left; white-space: normal;
  overflow-wrap: anywhere; min-width: 7rem; }
@media (max-width: 40rem) { body { padding: 1.2rem .8rem 3rem; } .limit { display: block; }
  th, td { padding: .25rem .4rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff;
  --panel: #eee; --rule: #bbb; --a: #0a5db8; --b: #b23a08; --c: #666a72; --d: #126b42; }
  body { font-size: 10pt; max-width: none; padding: 0; } nav, .skip, details { display: none; }
  .three { grid-template-columns: repeat(3, 1fr); } .plot, .wide { overflow: visible; }
  th, td { white-space: normal; }
  th:first-child, td:first-child, td.text, th.text { min-width: 5.5em; }
  .plot svg { min-width: 0; max-height: 7cm; } .bars { max-width: 8cm; }
  svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3, figcaption, caption { break-after: avoid; }
  figure, tr, .three, .limit { break-inside: avoid; } @page { margin: 16mm; } }
"""

_FEW = 3
"""How many columns fit on every screen."""


def document(title: str, body: str) -> str:
    """Return a whole page; `title` is plain text, `body` is HTML."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{shown(title)}</title><style>{STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def shown(text: object, longest: int = 200) -> str:
    """Return a value as HTML that shows it: inert, escaped, and cut to a length."""
    return escape(shortened(text, longest))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    texts: Sequence[int] = (),
) -> str:
    """Return a table of plain texts; the first cell of each row names it.

    `texts` are the columns, from 0, that hold words instead of numbers.
    """

    def kind(at: int) -> str:
        return ' class="text"' if at in texts else ""

    heads = "".join(
        f'<th scope="col"{kind(at)}>{shown(cell)}</th>' if cell else "<td></td>"
        for at, cell in enumerate(head)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{kind(at)}>{shown(cell)}</td>" if at else f'<th scope="row">{shown(cell)}</th>'
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    told = f"<caption><span>{shown(caption)}</span></caption>" if caption else ""
    opening = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    # Many columns scroll on a narrow screen: by keyboard too.
    name = shown(caption or ", ".join(filter(None, head)))
    reached = f' tabindex="0" role="region" aria-label="{name}"' if len(head) > _FEW else ""
    return f'<div class="wide"{reached}><table>{told}{opening}<tbody>{lines}</tbody></table></div>'
