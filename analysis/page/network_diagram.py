"""Draws a network as SVG: its parts as columns, its pyramid levels as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

COLUMNS = {"backbone": "backbone", "neck": "neck", "context": "context", "heads": "heads"}
NAMES = {
    "class_logits": "class",
    "box_deltas": "box",
    "landmark_deltas": "landmarks",
    "towers": "tower",
    "laterals": "lateral",
    "merges": "merge",
    "extras": "extra",
    "downs": "way down",
    "ups": "way up",
    "strided": "stride",
    "units": "unit",
    "scales": "scale",
    "sums": "with the coarser level",
    "returns": "with the backbone's map",
}
FROM_COARSER, FROM_FINER = {"merges", "downs", "units", "sums"}, {"strided", "extras"}
"""Parts of a neck that take the output of the next coarser, or finer, level."""
WIDTH, LINE, GAP, ROW_GAP, TOP, LEFT = 196, 16, 44, 26, 46, 66
STYLE = 'font-family="system-ui, sans-serif" font-size="12" fill="#222"'


def network_svg(network: Mapping) -> str:
    """The diagram as an SVG element.

    A row is a pyramid level, labelled with its stride; a column is a part of the network. A box
    lists its layers, the size of their output (height × width × channels) and their share of the
    MACs, by which it is shaded.

    Args:
        network: as `nas.models.report_files.network_data` returns it.
    """
    cells = _cells(network)
    columns = [name for name in COLUMNS if any(column == name for column, _ in cells)]
    strides = sorted({stride for _, stride in cells})
    total = sum(step["macs"] for step in network["steps"]) or 1
    lines = {cell: _lines(cell[0], steps, total) for cell, steps in cells.items()}
    tops, y = {}, TOP
    for stride in strides:
        tops[stride] = y
        y += _height(max(len(lines.get((column, stride), ())) for column in columns)) + ROW_GAP
    lefts = {name: LEFT + i * (WIDTH + GAP) for i, name in enumerate(columns)}
    width, height = LEFT + len(columns) * (WIDTH + GAP) - GAP + 4, y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" role="img" aria-label="the network by part and pyramid level" {STYLE}>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#606060"/></marker>'
        "</defs>",
    ]
    for name in columns:
        parts.append(_text(lefts[name] + WIDTH / 2, 18, COLUMNS[name], anchor="middle", bold=True))
    for stride in strides:
        middle = tops[stride] + _height(len(lines.get((columns[0], stride), "..."))) / 2
        parts.append(_text(0, middle + 4, f"stride {stride}", pale=True))
    boxes = {
        cell: (lefts[cell[0]], tops[cell[1]], _height(len(text))) for cell, text in lines.items()
    }
    parts += _arrows(cells, boxes, columns, strides)
    for cell, steps in cells.items():
        share = sum(step["macs"] for step in steps) / total
        parts.append(_box(*boxes[cell], lines[cell], share))
    return "".join(parts) + "</svg>"


def _cells(network: Mapping) -> dict[tuple[str, int], list[Mapping]]:
    """Steps by (column, stride of their output)."""
    cells: dict[tuple[str, int], list[Mapping]] = {}
    for step in network["steps"]:
        stride = round(network["input"][0] / step["out"][0])
        cells.setdefault((step["name"].split(".")[0], stride), []).append(step)
    return cells


def _lines(column: str, steps: Sequence[Mapping], total: int) -> list[str]:
    """The text of a box: its layers, then the size of their output and their cost."""
    lines: list[str] = []
    for step in steps:
        group = step["name"].split(".")[1]
        name = NAMES.get(group, group) + ": " if column in ("neck", "heads") else ""
        if name == "scale: ":
            continue  # a single parameter
        ending = f" → {step['out'][2]}" if column == "heads" and group != "towers" else ""
        lines += _wrapped(f"{name}{step['what']}{ending}")
    macs = sum(step["macs"] for step in steps)
    out = steps[-1]["out"]
    size = f"{out[0]}×{out[1]}" + (f"×{out[2]}" if column != "heads" else "")
    return [*lines, f"{size} · {100 * macs / total:.1f} % of MACs"]


def _wrapped(text: str, most: int = 31) -> list[str]:
    """Lines of at most `most` characters, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) >= most and lines[-1]:
            lines.append("  " + word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines


def _height(lines: int) -> int:
    return LINE * lines + 12


def _arrows(cells, boxes, columns: Sequence[str], strides: Sequence[int]) -> list[str]:
    """The data flow: down the backbone, to the right in each row, and between the neck's levels
    (dashed)."""
    arrows = []
    for stride in strides:
        row = [boxes[column, stride] for column in columns if (column, stride) in boxes]
        for (x, y, h), (right, other, height) in pairwise(row):
            middle = min(y + h / 2, other + height / 2)
            arrows.append(_line(x + WIDTH, middle, right, middle))
    for finer, coarser in pairwise(strides):
        for column, share in (("backbone", 0.5), ("neck", 0.35)):
            if (column, finer) not in boxes or (column, coarser) not in boxes:
                continue
            (x, y, h), (_, below, _) = boxes[column, finer], boxes[column, coarser]
            groups = {
                c: {s["name"].split(".")[1] for s in cells[column, c]} for c in (finer, coarser)
            }
            if column == "backbone" or groups[coarser] & FROM_FINER:
                arrows.append(
                    _line(
                        x + share * WIDTH, y + h, x + share * WIDTH, below, dashed=column == "neck"
                    )
                )
            if column == "neck" and groups[finer] & FROM_COARSER:
                arrows.append(_line(x + 0.65 * WIDTH, below, x + 0.65 * WIDTH, y + h, dashed=True))
    return arrows


def _line(x1: float, y1: float, x2: float, y2: float, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#606060"'
        f'{dashes} marker-end="url(#tip)"/>'
    )


def _box(x: float, y: float, height: float, lines: Sequence[str], share: float) -> str:
    shade = 0.04 + 0.5 * share
    rect = (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="4" fill="#0072B2" '
        f'fill-opacity="{shade:.2f}" stroke="#0072B2"/>'
    )
    texts = [
        _text(x + 8, y + 6 + LINE * (i + 0.75), line, pale=i == len(lines) - 1)
        for i, line in enumerate(lines)
    ]
    return rect + "".join(texts)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, pale: bool = False
) -> str:
    style = (' font-weight="600"' if bold else "") + (' fill="#505050"' if pale else "")
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" xml:space="preserve"{style}>'
        f"{escape(text)}</text>"
    )
