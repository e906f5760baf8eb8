"""A detector as an ONNX or OpenVINO graph for any batch and image size, compared with torch."""

from __future__ import annotations

import errno
import io
import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detector.base.errors import UserError, first_line
from detector.base.files import atomic_path, reason
from detector.base.plugins import MODULE_PREFIX
from detector.boxes.anchors import symbolic_priors, symbolic_references
from detector.boxes.coding import decode, decode_landmarks
from detector.boxes.logits import face_scores
from detector.boxes.postprocess import Detections, postprocess
from detector.config.detector import Detector
from detector.config.recipe import Evaluation
from detector.export.runtime import KEY, SUFFIXES, Exported, Graph, load_exported
from detector.network.folding import fold_batchnorm

INPUT = "images"
OPSET = 18
ABSOLUTE, RELATIVE = 2e-3, 1e-3
"""Tolerances for differences from torch's outputs: float32 sums in another order."""
UNMATCHED = 0.02
"""Share of faces that may be found by only one of both: those within rounding of a threshold."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The comparison of an exported graph with torch."""

    differences: dict[str, float]
    """Largest absolute difference of each output; with non-maximum suppression (NMS) in the graph,
    over the faces that both find."""
    compared: int
    """Number of values compared; with NMS, number of faces that torch finds."""
    unmatched: int = 0
    """With NMS: faces that only one of both finds."""
    passed: bool


class _DecodedDetector(nn.Module):
    """The detector with decoded outputs: boxes, scores and landmarks."""

    def __init__(self, model: nn.Module, config: Detector):
        super().__init__()
        self.model, self.config = model, config

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.model(images)
        height, width = images.shape[-2:]
        references = symbolic_references(self.config, (height, width))
        coding = self.config.head.coding
        decoded = {
            "boxes": decode(outputs["box_deltas"], references, coding),
            "scores": face_scores(outputs),
        }
        if "landmark_deltas" in outputs:
            decoded["landmarks"] = decode_landmarks(outputs["landmark_deltas"], references, coding)
        return decoded


def export(
    model: nn.Module,
    config: Detector,
    path: Path,
    post: str = "none",
    settings: Evaluation | None = None,
) -> Path:
    """Writes the graph of a detector atomically.

    Args:
        model: `build_detector(config)` with its weights, on the CPU; used in evaluation mode.
        path: ending in .onnx, or in .xml (OpenVINO; weights in the .bin beside it).
        post: post-processing in the graph, see `Graph.post`.
        settings: of non-maximum suppression (NMS); `pre_nms` has no effect in a graph.

    Raises:
        UserError: the file cannot be written, or onnx or openvino is missing.
    """
    graph = Graph(detector=config, post=post, settings=settings or Evaluation())
    try:
        content = onnx_bytes(model, graph)
        if SUFFIXES[path.suffix] == "onnx":
            with atomic_path(path, fsync=True) as temporary:
                temporary.write_bytes(content)
        else:
            _write_openvino(content, graph, path)
    except ImportError as error:
        raise UserError(
            f"{path}: {error.name} is not installed; pip install {error.name}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}); free space or choose another folder"
        ) from error
    return path


def onnx_bytes(model: nn.Module, graph: Graph) -> bytes:
    """The ONNX file of a detector: input `images` uint8 [batch, 3, height, width], raw BGR."""
    import onnx

    proto = onnx.load_from_string(traced_bytes(model, graph))
    if graph.post == "nms":
        _append_nms(proto, graph)
    onnx.helper.set_model_props(proto, {KEY: graph.to_json()})
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def traced_bytes(model: nn.Module, graph: Graph) -> bytes:
    """The ONNX file as torch's exporter writes it: without NMS and our metadata."""
    training = model.training
    net = fold_batchnorm(model.eval())  # the exporter does it too, and takes a third longer
    if graph.post != "none":
        net = _DecodedDetector(net, graph.detector).eval()
    names = [name for name in graph.outputs if name != "image"]  # which NMS adds
    any_size = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # from the exporter's own code
        try:
            program = torch.onnx.export(
                net,
                (torch.zeros(2, 3, 96, 128, dtype=torch.uint8),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},),
            )
        except torch.onnx.OnnxExporterError as error:
            if not any(type(part).__module__.startswith(MODULE_PREFIX) for part in net.modules()):
                raise
            raise UserError(
                "a layer of a plugin cannot be written as ONNX: "
                f"{first_line(error.__cause__ or error)}; let its module use other operations"
            ) from error
        finally:
            model.train(training)
    assert program is not None  # only without dynamo
    proto = program.model_proto
    del proto.graph.value_info[:]  # its shapes have generated names
    _name_sizes(proto.graph.input[0], ("batch", 3, "height", "width"))
    for output in proto.graph.output:
        sizes = [d.dim_value for d in output.type.tensor_type.shape.dim]
        _name_sizes(output, ("batch", "anchors", *sizes[2:]))
    return proto.SerializeToString()


def _name_sizes(value, sizes: tuple[int | str, ...]) -> None:
    """Sets the shape of a graph's input or output: numbers, and names of dynamic sizes."""
    dims = value.type.tensor_type.shape.dim
    del dims[:]
    for size in sizes:
        dims.add(**{"dim_param" if isinstance(size, str) else "dim_value": size})


def _append_nms(proto, graph: Graph) -> None:
    """Appends non-maximum suppression (NMS) to the outputs boxes, scores and landmarks, which then
    are those of the remaining faces."""
    from onnx import TensorProto, helper, numpy_helper

    settings, body = graph.settings, proto.graph
    names = [output.name for output in body.output]
    for node in body.node:  # free the names for the new outputs
        for i, name in enumerate(node.output):
            if name in names:
                node.output[i] = f"all_{name}"
        for i, name in enumerate(node.input):
            if name in names:
                node.input[i] = f"all_{name}"
    for name, value in (
        ("nms_keep", np.array([settings.keep], np.int64)),
        ("nms_iou", np.array([settings.nms_iou], np.float32)),
        ("nms_score", np.array([settings.score_threshold], np.float32)),
        ("nms_one", np.array([1], np.int64)),
        ("nms_image", np.array(0)),
        ("nms_where", np.array([0, 2], np.int64)),
    ):
        body.initializer.append(numpy_helper.from_array(value, name))
    node = helper.make_node
    body.node.extend(
        [
            node("Unsqueeze", ["all_scores", "nms_one"], ["nms_scores"]),
            node(
                "NonMaxSuppression",
                ["all_boxes", "nms_scores", "nms_keep", "nms_iou", "nms_score"],
                ["nms_kept"],
            ),  # [n, 3]: image, class, anchor
            node("Gather", ["nms_kept", "nms_image"], ["image"], axis=1),
            node("Gather", ["nms_kept", "nms_where"], ["nms_at"], axis=1),
            *(node("GatherND", [f"all_{name}", "nms_at"], [name]) for name in names),
        ]
    )
    shapes = {"boxes": (4,), "scores": (), "landmarks": (5, 2)}
    del body.output[:]
    body.output.append(helper.make_tensor_value_info("image", TensorProto.INT64, ("faces",)))
    body.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("faces", *shapes[name]))
        for name in names
    )


def _write_openvino(content: bytes, graph: Graph, path: Path) -> None:
    """Writes an ONNX file as an .xml file and the .bin beside it; raises as `save_openvino`."""
    import onnx
    import openvino

    model = openvino.convert_model(io.BytesIO(content))
    model.set_rt_info(graph.to_json(), [KEY])
    nodes = onnx.load_from_string(content).graph.node
    weights = {node.name: node.input[1] for node in nodes if node.op_type == "Conv"}
    uses: Counter[str] = Counter()
    for operation in model.get_ordered_ops():  # named as in torch; weights that are folded lose it
        weight = weights.get(operation.get_friendly_name().split("/")[0])
        if weight is not None and "Convolution" in operation.get_type_name():
            uses[weight] += 1  # several levels share it; NNCF needs names of their own
            operation.set_friendly_name(f"{weight.removesuffix('.weight')}/{uses[weight]}")
    save_openvino(model, path)


def save_openvino(model, path: Path) -> None:
    """Writes a graph that OpenVINO holds; both files are complete before one is replaced.

    Raises:
        OSError: a file cannot be written.
    """
    import openvino

    with (
        atomic_path(path, suffix=path.suffix, fsync=True) as graph_path,
        atomic_path(path.with_suffix(".bin"), fsync=True) as weights_path,
    ):
        saved = graph_path.with_suffix(".bin")  # OpenVINO's choice
        try:
            openvino.save_model(model, graph_path, compress_to_fp16=False)
            shutil.move(saved, weights_path)
        except RuntimeError as error:  # also for a full disk
            raise OSError(errno.EIO, f"OpenVINO: {first_line(error)}", str(path)) from error
        finally:
            saved.unlink(missing_ok=True)


# -- comparison with torch --------------------------------------------------------------------


def check(model: nn.Module, path: Path) -> Check:
    """Compares an exported file with its detector on drawn scenes, for batch and image sizes (odd
    ones, too) that differ from those at export.

    Raises:
        UserError: the file cannot be read.
    """
    exported = load_exported(path)
    batches = [
        _scenes(batch, height, width)
        for batch, height, width in ((2, 160, 224), (1, 97, 131), (3, 33, 64))
    ]
    compare = _compare_faces if exported.graph.post == "nms" else _compare_outputs
    training = model.training
    with torch.inference_mode():
        result = compare(model.eval(), exported, batches)
    model.train(training)
    return result


def _scenes(batch: int, height: int, width: int) -> Tensor:
    """uint8 [batch, 3, height, width] of drawn scenes."""
    import cv2

    from detector.data.synthetic.scenes import SyntheticImages

    scenes = SyntheticImages("val", batch)
    images = [
        cv2.resize(scenes.image(i), (width, height), interpolation=cv2.INTER_AREA)
        for i in range(batch)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _compare_outputs(model: nn.Module, exported: Exported, batches: list[Tensor]) -> Check:
    graph = exported.graph
    net = model if graph.post == "none" else _DecodedDetector(model, graph.detector).eval()
    differences = dict.fromkeys(graph.outputs, 0.0)
    compared, passed = 0, True
    for images in batches:
        expected, actual = net(images), exported(images)
        for name in graph.outputs:
            if actual[name].shape != expected[name].shape:
                return Check(
                    differences=differences | {name: float("inf")}, compared=compared, passed=False
                )
            gap = (actual[name] - expected[name]).abs()
            compared += gap.numel()
            # Python's `max` would lose a NaN
            differences[name] = float(torch.tensor([differences[name], gap.max()]).max())
            passed &= bool((gap <= ABSOLUTE + RELATIVE * expected[name].abs()).all())
    return Check(differences=differences, compared=compared, passed=passed)


def _compare_faces(model: nn.Module, exported: Exported, batches: list[Tensor]) -> Check:
    settings = exported.graph.settings
    differences = dict.fromkeys(("boxes", "scores"), 0.0)
    faces = unmatched = 0
    for images in batches:
        height, width = images.shape[-2:]
        priors = symbolic_priors(exported.config, (height, width))
        expected = postprocess(model(images), priors, settings)
        for one, other in zip(expected, exported.detections(images, settings), strict=True):
            faces += len(one)
            unmatched += _count_unmatched(one, other, differences)
    return Check(
        differences=differences,
        compared=faces,
        unmatched=unmatched,
        passed=unmatched <= UNMATCHED * faces,
    )


def _count_unmatched(
    expected: Detections, actual: Detections, differences: dict[str, float]
) -> int:
    """The number of faces without an equal in the other result; updates `differences` with the
    largest differences of matching faces."""
    if not len(expected) or not len(actual):
        return len(expected) + len(actual)
    all_gaps = {
        "boxes": (expected.boxes[:, None] - actual.boxes).abs().amax(dim=2),
        "scores": (expected.scores[:, None] - actual.scores).abs(),
    }
    allowed = ABSOLUTE + RELATIVE * expected.boxes.abs().amax(dim=1, keepdim=True)
    same = (all_gaps["boxes"] <= allowed) & (all_gaps["scores"] <= ABSOLUTE)
    for name, gaps in all_gaps.items():
        if same.any():
            differences[name] = max(differences[name], float(gaps[same].max()))
    return int((~same.any(dim=1)).sum() + (~same.any(dim=0)).sum())
