"""Builds one HTML page that needs no network: text, tables, charts and pictures are inside it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.page.script import SCRIPT

STYLE = """
:root { --ink: #222; --pale: #666; --line: #ddd; --blue: #0072B2; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 1rem;
       max-width: 1180px; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .3rem; border-top: 1px solid var(--line);
     padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 80ch; }
p.note, figcaption { color: var(--pale); font-size: .88rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .4rem 0 1rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
         white-space: nowrap; }
th { color: var(--pale); font-weight: 600; }
th.t, td.t { text-align: left; }
td.wide { white-space: normal; text-align: left; min-width: 18rem; }
.bar { display: inline-block; height: .7em; background: var(--blue); margin-right: .4em; }
.chart { width: 100%; min-width: 0; }
img { max-width: 100%; height: auto; }
figure { margin: .6rem 0 1rem; }
svg[role=img] { display: block; }
code { background: #f4f4f4; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
p.live { background: #fff3c4; padding: .3rem .6rem; border-radius: 4px; max-width: none; }
p.lead { font-size: 1.35rem; font-weight: 600; margin: 1rem 0 .2rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .5rem;
     margin: .8rem 0; }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .7rem; }
dt, dd.note { color: var(--pale); font-size: .82rem; margin: 0; overflow-wrap: anywhere; }
dd { font-size: 1.25rem; margin: 0; }
input[type=search] { font: inherit; padding: .2rem .5rem; width: 16rem; max-width: 100%; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--blue); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
tr:target { background: #fff3c4; }
"""
POLICY = (
    "default-src 'none'; script-src {scripts} 'unsafe-eval'; style-src "
    "'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)
"""Whatever the page contains, browsers load nothing from elsewhere and run only the scripts with
these hashes. plotly needs eval for WebGL."""


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to a file."""

    text: str
    path: str
    """Relative to the page."""

    @property
    def html(self) -> str:
        return f'<a href="{escape(quote(self.path))}">{escape(self.text)}</a>'


@dataclass(frozen=True)
class Live:
    """What the page of a running study says of itself."""

    status: str
    """Trials by state, in one line."""
    every: int
    """Seconds after which the page reloads itself."""


class Page:
    """Collects parts in order; `html` returns the page."""

    def __init__(self, title: str, live: Live | None = None):
        self._title = title
        self._live = live
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str) -> None:
        anchor = f"s{len(self._sections)}"
        self._sections.append((anchor, title))
        self._parts.append(f'<h2 id="{anchor}">{escape(title)}</h2>')

    def heading(self, title: str) -> None:
        self._parts.append(f"<h3>{escape(title)}</h3>")

    def text(self, text: str, note: bool = False) -> None:
        self._parts.append(f"<p{' class=note' if note else ''}>{escape(text)}</p>")

    def code(self, text: str) -> None:
        self._parts.append(f"<p><code>{escape(text)}</code></p>")

    def lead(self, text: str) -> None:
        """The sentence that matters most."""
        self._parts.append(f"<p class=lead>{escape(text)}</p>")

    def link(self, text: str, path: str) -> None:
        """A link to a file; its path is relative to the page."""
        self._parts.append(f"<p>{Link(text, path).html}</p>")

    def facts(self, facts: Sequence[tuple[str, str, str]]) -> None:
        """Numbers that matter, as label, value and note (may be empty)."""
        self._parts.append(
            "<dl>"
            + "".join(
                f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd>"
                f"<dd class=note>{escape(note)}</dd></div>"
                for label, value, note in facts
            )
            + "</dl>"
        )

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        left: Sequence[int] = (0,),
        bars: Sequence[int] = (),
        wide: Sequence[int] = (),
        row_ids: Sequence[str] = (),
    ) -> None:
        """A table; cells may be `Link`s.

        Args:
            left: indices of columns with text.
            bars: indices of columns with shares in [0, 1], drawn as bars.
            wide: indices of columns with long text, which may take several lines.
            row_ids: anchors of the rows; with them the table can be sorted and filtered.
        """

        def cell(column: int, value: Any) -> str:
            if column in bars:
                return (
                    f'<td class="t"><span class="bar" style="width:{80 * value:.1f}px"></span>'
                    f"{100 * value:.1f} %</td>"
                )
            kind = "wide" if column in wide else "t" if column in left else ""
            html = value.html if isinstance(value, Link) else escape(str(value))
            return f"<td{f' class={kind}' if kind else ''}>{html}</td>"

        button = ("<button>", "</button>") if row_ids else ("", "")
        head = "".join(
            f"<th{' class=t' if i in (*left, *bars, *wide) else ''}>"
            f"{escape(name).join(button)}</th>"
            for i, name in enumerate(columns)
        )
        anchors = [f' id="{escape(name)}"' for name in row_ids] or [""] * len(rows)
        body = "".join(
            f"<tr{anchor}>" + "".join(cell(i, v) for i, v in enumerate(row)) + "</tr>\n"
            for anchor, row in zip(anchors, rows, strict=True)
        )
        kind = " class=rows" if row_ids else ""
        self._parts.append(
            f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def chart(self, figure, min_width: int = 0) -> None:
        """A plotly figure; in a window narrower than `min_width` px it scrolls sideways."""
        html = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            default_width="100%",
            default_height=f"{figure.layout.height}px",
            config={"responsive": True, "displayModeBar": False},
        )
        self._parts.append(
            f'<div class="scroll"><div class="chart" style="min-width:{min_width}px">{html}'
            "</div></div>"
        )

    def drawing(self, svg: str, caption: str) -> None:
        """An SVG; in a narrower window it scrolls sideways."""
        self._parts.append(
            f'<figure><div class="scroll">{svg}</div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def picture(self, path: Path, caption: str) -> None:
        """A PNG file, embedded."""
        data = base64.b64encode(path.read_bytes()).decode()
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,'
            f'{data}"><figcaption>{escape(caption)}</figcaption></figure>'
        )

    def html(self) -> str:
        from plotly.offline import get_plotlyjs

        links = " ".join(
            f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title in self._sections
        )
        reload = status = ""
        if self._live is not None:
            reload = f'<meta http-equiv=refresh content="{self._live.every}">'
            now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            status = (
                f"<p class=live>Still running, as of {now}: {escape(self._live.status)}. This page "
                f"reloads itself every {self._live.every} s.</p>"
            )
        page = (
            f"{reload}<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n"
            f"<body><h1>{escape(self._title)}</h1>{status}<nav>{links}</nav>\n"
            + "\n".join(self._parts)
            + f"\n<script>{SCRIPT}</script></body></html>\n"
        )
        return (
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(page)}">'
            '<meta name=viewport content="width=device-width, initial-scale=1">'
            f'<link rel=icon href="data:,"><title>{escape(self._title)}</title>' + page
        )


def _policy(page: str) -> str:
    """POLICY for the scripts of a page, all of which are embedded in it."""
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    return POLICY.format(scripts=" ".join(f"'sha256-{one}'" for one in dict.fromkeys(hashes)))
