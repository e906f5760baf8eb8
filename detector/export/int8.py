"""An exported graph with its convolutions in 8-bit integers. Those that lose most are found part by
part of the network, and left in float."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from detector.base.errors import UserError
from detector.base.files import reason
from detector.export.runtime import SUFFIXES, replace_graph

BACKBONE = "backbone"
PARTS = (BACKBONE, "neck", "context", "heads")


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What `quantize_within` has found."""

    ap_before: Mapping[str, float]
    """Of the float graph, by level."""
    ap_after: Mapping[str, float]
    """Of the quantised graph."""
    float_parts: tuple[str, ...]
    """Parts of the network whose convolutions stayed in float."""
    tried: int
    """Graphs in int8 that were measured."""

    @property
    def loss(self) -> float:
        """Of mean AP."""
        return _mean(self.ap_before) - _mean(self.ap_after)


class Quantizer(Protocol):
    """What the module of a format offers."""

    PACKAGES: tuple[str, ...]
    """Those that it needs."""

    def convolutions(self, path: Path) -> dict[str, str]:
        """Name of each convolution of a graph → that of its weight."""

    def quantize(
        self,
        path: Path,
        target: Path,
        images: Sequence[np.ndarray],
        keep_float: Collection[str] = (),
    ) -> None:
        """Write a graph with its convolutions but those named in int8; see `int8_onnx.quantize`."""


def quantizer(path: Path) -> Quantizer:
    """That of an exported file: ONNX Runtime's of .onnx, NNCF of .xml.

    Raises:
        UserError: a package is missing.
    """
    module = cast(Quantizer, import_module(f"detector.export.int8_{SUFFIXES[path.suffix]}"))
    for package in module.PACKAGES:
        if find_spec(package) is None:
            raise UserError(f"{path}: {package} is not installed; pip install {package}")
    return module


def parts(convolutions: Mapping[str, str]) -> dict[str, list[str]]:
    """Convolutions by part of the network, from the image on: stages of the backbone (backbone.0,
    …), neck, context, heads.

    Args:
        convolutions: the name of each → that of its weight.

    Returns:
        Part → names of its convolutions.
    """
    found: dict[str, list[str]] = {}
    for name, weight in convolutions.items():
        words = weight.removeprefix("model.").split(".")
        part = words[0]
        if part == BACKBONE:
            part += "." + next(word for word in words if word.isdecimal())
        found.setdefault(part, []).append(name)
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(part: str) -> tuple[int, int]:
    """By which parts are sorted; those of no known name, of a plugin's computed weights, last."""
    name, _, stage = part.partition(".")
    return (PARTS.index(name) if name in PARTS else len(PARTS)), int(stage or 0)


def quantize_within(
    path: Path,
    target: Path,
    images: Sequence[np.ndarray],
    evaluate: Callable[[Path], Mapping[str, float]],
    max_loss: float,
    progress: Callable[[str], None] = lambda line: None,
) -> Quantized:
    """Write the quantised graph that loses at most `max_loss`, with as few parts in float as the
    search finds: each part alone is left in float once, and then those that gain most together.

    Args:
        path: an exported graph (.onnx, or .xml with its .bin beside it).
        target: the file to write, of the same kind.
        images: uint8 [1, 3, H, W], raw BGR, for the ranges of activations; of one size.
        evaluate: AP of a graph by level, in [0, 1].
        max_loss: of mean AP.
        progress: called with a line for each measured graph.

    Raises:
        UserError: no part can be quantised within `max_loss`, or a file cannot be written.
    """
    tool = quantizer(path)
    of_part = parts(tool.convolutions(path))
    before = evaluate(path)
    progress(f"float: mean AP {_mean(before):.4f}")
    measured: dict[tuple[str, ...], tuple[Path, Mapping[str, float]]] = {}

    def loss(*float_parts: str) -> float:
        """Of the graph with these parts in float, which is written and measured once."""
        if float_parts not in measured:
            file = Path(folder) / f"{len(measured)}{path.suffix}"
            kept = [name for part in float_parts for name in of_part[part]]
            with _written(target):
                tool.quantize(path, file, images, kept)
            measured[float_parts] = file, evaluate(file)
            left = f", but {', '.join(float_parts)}" if float_parts else ""
            progress(f"int8{left}: mean AP {_mean(measured[float_parts][1]):.4f}")
        return _mean(before) - _mean(measured[float_parts][1])

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".int8-") as folder:
        chosen: tuple[str, ...] = ()
        if loss() > max_loss:
            ranked = sorted(of_part, key=loss)
            for count in range(1, len(ranked)):
                chosen = tuple(part for part in of_part if part in ranked[:count])
                if loss(*chosen) <= max_loss:
                    break
            else:
                raise UserError(
                    f"{target}: every part of the network in int8 loses more than {max_loss:g} of "
                    f"mean AP (all of them {loss(ranked[0]):.4f} and more); allow more by "
                    "--max-loss, or export in float"
                )
        file, after = measured[chosen]
        with _written(target):
            replace_graph(file, target)
    return Quantized(ap_before=before, ap_after=after, float_parts=chosen, tried=len(measured))


@contextlib.contextmanager
def _written(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({reason(error)}); free space or choose another folder"
        ) from error


def _mean(ap: Mapping[str, float]) -> float:
    return sum(ap.values()) / len(ap)
