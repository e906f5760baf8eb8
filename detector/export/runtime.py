"""Models exported to ONNX or OpenVINO, called like the detectors they were made from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor, nn

from detector.architecture.plan import plan
from detector.base.errors import UserError, first_line
from detector.base.files import cannot_read, open_file, read_bytes
from detector.base.json_file import parse_json
from detector.base.struct import Struct
from detector.boxes.anchors import priors
from detector.boxes.postprocess import Detections, postprocess, select
from detector.config.detector import Detector
from detector.config.recipe import Evaluation

if TYPE_CHECKING:
    import onnxruntime

KEY = "retina-nas"  # of the metadata in a graph
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}
POST = ("none", "boxes", "nms")


def graph_files(path: Path) -> list[Path]:
    """The files of an exported graph: .onnx alone, or .xml and the .bin beside it."""
    return [path] if SUFFIXES[path.suffix] == "onnx" else [path.with_suffix(".bin"), path]


def remove_graph(path: Path) -> None:
    """Remove what there is of an exported graph."""
    for file in graph_files(path):
        file.unlink(missing_ok=True)


def replace_graph(path: Path, target: Path) -> None:
    """Move an exported graph to a name of the same suffix, over an older one: of two files, one is
    missing in between, so that old and new ones are never taken together."""
    if len(graph_files(path)) > 1:
        target.unlink(missing_ok=True)
    for old, new in zip(graph_files(path), graph_files(target)):
        old.replace(new)


@dataclass(frozen=True, kw_only=True)
class Graph(Struct):
    """The metadata of an exported file."""

    detector: Detector
    post: str
    """Post-processing in the graph.

    none: outputs of `FaceDetector`. boxes: `boxes` [B, A, 4] xyxy px, `scores` [B, A],
    `landmarks` [B, A, 5, 2] if the head has them. nms, after non-maximum suppression: the faces of
    all images, `image` [n] (index in the batch), `boxes` [n, 4], `scores` [n], `landmarks`
    [n, 5, 2].
    """
    settings: Evaluation
    """Score threshold, NMS and number of faces; fixed in the graph if post is nms."""

    @property
    def outputs(self) -> tuple[str, ...]:
        if self.post == "none":
            return tuple(predictor.name for predictor in plan(self.detector).heads.predictors)
        names = ("boxes", "scores", *(("landmarks",) if self.detector.head.landmarks else ()))
        return ("image", *names) if self.post == "nms" else names

    def to_json(self) -> str:
        return json.dumps(self.to_dict())


class Exported(nn.Module):
    """An exported model; called like the detector it was made from. Runs on the CPU."""

    def __init__(
        self, path: Path, graph: Graph, runtime: str, run: Callable[[np.ndarray], list[np.ndarray]]
    ):
        super().__init__()
        self.path, self.graph, self.runtime, self._run = path, graph, runtime, run

    @property
    def config(self) -> Detector:
        return self.graph.detector

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The graph's outputs by name; see `Graph.post`.

        Args:
            images: uint8 [B, 3, H, W], raw BGR; any B, H and W.
        """
        outputs = self._run(np.ascontiguousarray(images.cpu().numpy()))
        return dict(zip(self.graph.outputs, map(torch.from_numpy, outputs)))

    def detections(self, images: Tensor, settings: Evaluation) -> list[Detections]:
        """Faces in each image, in px of the image.

        Raises:
            UserError: the graph ends with NMS at other settings.
        """
        outputs = self(images)
        if self.graph.post == "none":
            height, width = images.shape[-2:]
            return postprocess(outputs, priors(self.config, (height, width)), settings)
        points = outputs.get("landmarks")
        if self.graph.post == "boxes":
            return [
                select(
                    scores,
                    boxes.__getitem__,
                    None if points is None else points[i].__getitem__,
                    settings,
                )
                for i, (scores, boxes) in enumerate(zip(outputs["scores"], outputs["boxes"]))
            ]
        self._check_settings(settings)
        return [self._of_image(outputs, index, settings) for index in range(len(images))]

    def _of_image(self, outputs: dict[str, Tensor], index: int, settings: Evaluation) -> Detections:
        above = (outputs["image"] == index) & (outputs["scores"] > settings.score_threshold)
        faces = above.nonzero()[:, 0]
        order = outputs["scores"][faces].argsort(descending=True, stable=True)
        faces = faces[order][: settings.keep]
        return Detections(
            outputs["boxes"][faces],
            outputs["scores"][faces],
            outputs["landmarks"][faces] if "landmarks" in outputs else None,
        )

    def _check_settings(self, settings: Evaluation) -> None:
        fixed = self.graph.settings
        for name, is_allowed in (
            ("score_threshold", settings.score_threshold >= fixed.score_threshold),
            ("nms_iou", settings.nms_iou == fixed.nms_iou),
            ("keep", settings.keep <= fixed.keep),
        ):
            if not is_allowed:
                raise UserError(
                    f"{self.path}: its graph ends with NMS at {name} "
                    f"{getattr(fixed, name)}, {getattr(settings, name)} is asked for; "
                    "export it with that, or without NMS"
                )


class NotExported(UserError):
    """A readable model that this program did not write."""


def load_exported(path: Path, threads: int | None = None) -> Exported:
    """Loads a model from an .onnx file, or from an .xml file of OpenVINO with its .bin beside it.

    Args:
        threads: of the runtime; None means as many as torch uses.

    Raises:
        NotExported: a model of another program.
        UserError: no such file, not a model, or its runtime is missing.
    """
    path, threads = Path(path), threads or torch.get_num_threads()
    kind = SUFFIXES.get(path.suffix)
    if kind is None:
        raise UserError(f"{path}: must be an .onnx file or an .xml file of OpenVINO")
    try:
        open_file(path).close()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise cannot_read(path, error, "give a file that nas.export wrote") from error
    try:
        text, runtime, run, names = {"onnx": _onnx, "openvino": _openvino}[kind](path, threads)
    except ImportError as error:
        raise UserError(
            f"{path}: {error.name} is not installed; pip install {error.name}"
        ) from error
    except Exception as error:  # the runtimes raise their own errors for damaged files
        reason = re.sub(
            r"(Exception from|Check '[^']*' failed at) \S+:\d+: ", "", " ".join(str(error).split())
        )[:200]  # without positions in their sources
        raise UserError(f"{path}: not a readable model ({reason}); export it again") from error
    if text is None:
        raise NotExported(
            f"{path}: is a model of another program; give one that python -m nas.export wrote"
        )
    try:
        graph = Graph.from_dict(parse_json(text), str(path))
    except ValueError as error:
        raise UserError(
            f"{path}: its metadata {KEY} is not valid JSON ({first_line(error)}); export it again"
        ) from error
    if tuple(names) != graph.outputs:
        raise UserError(
            f"{path}: has outputs {', '.join(names)}, but should have {', '.join(graph.outputs)}; "
            "export it again"
        )
    return Exported(path, graph, runtime, run)


def onnx_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        read_bytes(path), options, providers=["CPUExecutionProvider"]
    )


def _onnx(path: Path, threads: int):
    import onnxruntime

    session = onnx_session(path, threads)
    name = session.get_inputs()[0].name
    return (
        session.get_modelmeta().custom_metadata_map.get(KEY),
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda images: session.run(None, {name: images}),
        [output.name for output in session.get_outputs()],
    )


def _openvino(path: Path, threads: int):
    import openvino

    if (
        ElementTree.parse(path).getroot().tag != "net"
    ):  # otherwise OpenVINO tries all formats and prints errors
        raise ValueError("not OpenVINO's XML")
    if not path.with_suffix(".bin").is_file():
        raise ValueError(f"{path.with_suffix('.bin').name} is missing beside it")
    core = openvino.Core()
    model = core.read_model(path)
    text = str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
    # Exact rather than fast: on some processors the default is bf16.
    request = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        },
    ).create_infer_request()

    def run(images: np.ndarray) -> list[np.ndarray]:
        outputs = request.infer([images])
        return [np.array(outputs[output]) for output in outputs]

    return (
        text,
        f"OpenVINO {openvino.__version__.split('-')[0]}",
        run,
        [output.get_any_name() for output in model.outputs],
    )
