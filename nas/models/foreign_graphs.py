"""Graphs of other programs, where a command takes an exported model. No heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.foreign.graph import ForeignGraph


def foreign_graph(path: Path | None) -> ForeignGraph | None:
    """The graph of another program in an ONNX file; None for other models, and without a file.

    Raises:
        UserError: it cannot be read, or is of no known kind.
    """
    if path is None:
        return None
    from detector.export.runtime import NotExported, load_exported
    from detector.foreign.graph import load_foreign

    try:
        load_exported(path)
    except NotExported:
        if path.suffix == ".onnx":
            return load_foreign(path)
        raise
    return None
