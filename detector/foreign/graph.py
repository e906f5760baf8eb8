"""A foreign graph in ONNX Runtime: its input prepared, its outputs made detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detector.architecture.layers import Size
from detector.base.errors import UserError, first_line
from detector.boxes.postprocess import Detections, select
from detector.config.detector import Pixels
from detector.config.recipe import Evaluation
from detector.export.runtime import onnx_session
from detector.foreign.kind import Kind

if TYPE_CHECKING:
    import onnxruntime

DIVISOR = 32
"""Sides of the input are padded to a multiple of this, the coarsest stride."""
TRIAL_SIZE = (640, 640)
"""(height, width) px of the image that a graph for any size is recognised with."""
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class ForeignGraph(nn.Module):
    """A detector of another program. Runs on the CPU."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession):
        """
        Raises:
            UserError: its input or its outputs are of no known kind.
        """
        super().__init__()
        import onnxruntime

        self.path, self._session = path, session
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self.fixed_size = self._read_input()
        self.kind = self._recognise()

    @property
    def pixels(self) -> Pixels:
        return self.kind.pixels

    @property
    def evaluation(self) -> Evaluation:
        """The protocol that its kind was published with, at its own size if that is fixed."""
        if self.fixed_size is None:
            return self.kind.evaluation
        return replace(self.kind.evaluation, size=max(self.fixed_size), short=None, canvas=None)

    def input_size(self, size: Size) -> Size:
        """(height, width) px of its input for an image of `size`."""
        if self.fixed_size is not None:
            return self.fixed_size
        return -(-size[0] // DIVISOR) * DIVISOR, -(-size[1] // DIVISOR) * DIVISOR

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """The input [1, 3, h, w] for an image, and the factor it was scaled by: it lies in the
        upper left corner, reduced or enlarged to a fixed size (letterbox), with padding.

        Args:
            image: uint8 [H, W, 3], BGR.
        """
        height, width = image.shape[:2]
        size, scale = self.input_size((height, width)), 1.0
        if self.fixed_size is not None:
            scale = min(size[0] / height, size[1] / width)
        if scale != 1.0:
            target = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
        padded = np.empty((*size, 3), np.uint8)
        padded[:] = self.kind.padding
        padded[: image.shape[0], : image.shape[1]] = image
        pixels = self.pixels
        ordered = padded if pixels.order == "bgr" else padded[..., ::-1]
        values = (ordered - np.array(pixels.mean, np.float32)) / np.array(pixels.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], self._dtype), scale

    def run(self, values: np.ndarray) -> dict[str, Tensor]:
        """The outputs by name for an input that `prepare` returned."""
        outputs = self._session.run(None, {self._input: values})
        return {
            name: torch.from_numpy(np.asarray(output, np.float32))
            for name, output in zip(self._names, outputs)
        }

    def detections(self, images: Tensor, settings: Evaluation) -> list[Detections]:
        """Faces in each image, in px of the image.

        Args:
            images: uint8 [B, 3, H, W], raw BGR.
        """
        return [
            self._of_image(image, settings) for image in images.cpu().permute(0, 2, 3, 1).numpy()
        ]

    def _of_image(self, image: np.ndarray, settings: Evaluation) -> Detections:
        values, scale = self.prepare(image)
        found = self.kind.decode(self.run(values), values.shape[2:])
        points = found.landmarks
        faces = select(
            found.scores,
            found.boxes.__getitem__,
            None if points is None else points.__getitem__,
            settings,
        )
        return Detections(
            faces.boxes / scale,
            faces.scores,
            None if faces.landmarks is None else faces.landmarks / scale,
        )

    def _read_input(self) -> Size | None:
        """(height, width) of its input if that is fixed."""
        inputs = self._session.get_inputs()
        shape, kind = inputs[0].shape, inputs[0].type
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or kind not in _DTYPES:
            raise UserError(
                f"{self.path}: is no known face detector: its input is "
                f"{_shown(inputs[0].name, shape)} of {kind}{', and others' * (len(inputs) > 1)}; "
                "known are graphs of one float image [1, 3, height, width]"
            )
        self._input, self._dtype = inputs[0].name, _DTYPES[kind]
        self._names = [output.name for output in self._session.get_outputs()]
        height, width = shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def _recognise(self) -> Kind:
        # Adapters read presets, which workers on other machines lack, and these need this module.
        from detector.foreign.tables import kind_of, known_kinds

        size = self.input_size(TRIAL_SIZE)
        try:
            outputs = self.run(np.zeros((1, 3, *size), self._dtype))
        except Exception as error:  # the runtime raises its own errors
            raise UserError(
                f"{self.path}: cannot be run on an image of {size[1]}×{size[0]} px "
                f"({first_line(error)[:200]}); give another file"
            ) from error
        shapes = {name: tuple(output.shape) for name, output in outputs.items()}
        kind = kind_of(shapes, size)
        if kind is None:
            listed = [_shown(*item) for item in shapes.items()]
            more = f", … ({len(listed)} in all)" if len(listed) > 12 else ""
            raise UserError(
                f"{self.path}: is no known face detector: for {size[1]}×{size[0]} px its outputs "
                f"are {', '.join(listed[:12])}{more}; known are {known_kinds()}"
            )
        return kind


def _shown(name: str, shape: Sequence[object]) -> str:
    return f"{name[:40]} {'×'.join(map(str, shape))}"


def load_foreign(path: Path, threads: int | None = None) -> ForeignGraph:
    """Loads a graph of another program.

    Args:
        path: an ONNX file that exists.
        threads: of the runtime; None means as many as torch uses.

    Raises:
        UserError: not a readable graph, or of no known kind.
    """
    return ForeignGraph(path, onnx_session(path, threads or torch.get_num_threads()))
