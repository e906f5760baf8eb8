"""What an adapter says about one kind of foreign graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from detector.architecture.layers import Size
from detector.config.detector import Pixels
from detector.config.recipe import Evaluation

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each output for one image, by its name, in the graph's order."""
Outputs = Mapping[str, Tensor]
"""The outputs for one image by name, in the graph's order."""


@dataclass(frozen=True)
class Candidates:
    """All boxes of one image, before thresholds and non-maximum suppression."""

    boxes: Tensor
    """float32 [A, 4]: x1, y1, x2, y2 in px of the network's input."""
    scores: Tensor
    """float32 [A] in [0, 1]."""
    landmarks: Tensor | None
    """float32 [A, 5, 2] in the same px; None if the graph has none."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of graph: how it is recognised, what its input is, and what its outputs mean."""

    name: str
    outputs: str
    """What outputs it has, in words, for messages."""
    fits: Callable[[Shapes, Size], bool]
    """Whether a graph with these outputs for an input of (height, width) px is of this kind."""
    decode: Callable[[Outputs, Size], Candidates]
    """The outputs for an input of (height, width) px, decoded."""
    pixels: Pixels
    """The input that it was published with."""
    padding: tuple[int, int, int]
    """BGR colour of what the input has beyond the image."""
    evaluation: Evaluation
    """The protocol that it was published with; sides are padded to multiples of 32 in any case."""
