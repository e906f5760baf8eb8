"""Builds one HTML page that needs no network: text, tables, charts and pictures are inside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

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
p.note, figcaption { color: var(--pale); }
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
code { background: #f4f4f4; padding: .1em .3em; border-radius: 3px; }
"""
# Whatever the page contains, browsers load nothing from elsewhere.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src "
    "'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)


class Page:
    """Collects parts in order; `html` returns the page."""

    def __init__(self, title: str):
        self._title = title
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

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        left: Sequence[int] = (0,),
        bars: Sequence[int] = (),
        wide: Sequence[int] = (),
    ) -> None:
        """A table.

        Args:
            left: indices of columns with text.
            bars: indices of columns with shares in [0, 1], drawn as bars.
            wide: indices of columns with long text, which may take several lines.
        """

        def cell(column: int, value: Any) -> str:
            if column in bars:
                return (
                    f'<td class="t"><span class="bar" style="width:{80 * value:.1f}px"></span>'
                    f"{100 * value:.1f} %</td>"
                )
            kind = "wide" if column in wide else "t" if column in left else ""
            return f"<td{f' class={kind}' if kind else ''}>{escape(str(value))}</td>"

        head = "".join(
            f"<th{' class=t' if i in (*left, *bars, *wide) else ''}>{escape(name)}</th>"
            for i, name in enumerate(columns)
        )
        body = "".join(
            "<tr>" + "".join(cell(i, v) for i, v in enumerate(row)) + "</tr>\n" for row in rows
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
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
        return (
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name=viewport content="width=device-width, initial-scale=1">'
            f'<link rel=icon href="data:,"><title>{escape(self._title)}</title>'
            f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n"
            f"<body><h1>{escape(self._title)}</h1><nav>{links}</nav>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )
