"""Graphs in the layouts of other programs, made by hand: their faces, by plain loops and by the
adapters; and graphs of no known kind."""

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from detector.base.errors import UserError
from detector.config.recipe import Evaluation
from detector.foreign.counts import graph_cost
from detector.foreign.graph import load_foreign
from detector.foreign.tables import KINDS
from detector.inference.predict import detect, detect_tta

SIZE = (64, 96)
"""(height, width) px of the graphs' input."""
CELLS = sum(SIZE[0] // s * (SIZE[1] // s) for s in (8, 16, 32))
SETTINGS = Evaluation(score_threshold=0.0, nms_iou=1.0, pre_nms=5000, keep=5000)


@pytest.fixture
def graph_of(tmp_path):
    """Function: outputs by name → the path of a graph that returns them, plus the mean of its
    input, which it subtracts again, so that the input counts."""

    def build(outputs: dict[str, np.ndarray], shape=(1, 3, *SIZE), dtype=TensorProto.FLOAT):
        nodes = [
            helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
            helper.make_node("Sub", ["mean", "mean"], ["zero"]),
            *(helper.make_node("Add", [f"c_{name}", "zero"], [name]) for name in outputs),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("input", dtype, shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(v.astype(np.float32), f"c_{n}") for n, v in outputs.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / "foreign.onnx")
        return tmp_path / "foreign.onnx"

    return build


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0.05, 0.95, shape).astype(np.float32)


def _yunet():
    """As OpenCV's FaceDetectorYN decodes it, but for the root of the score."""
    outputs, faces = {}, []
    for stride in (8, 16, 32):
        rows, columns = SIZE[0] // stride, SIZE[1] // stride
        for name, values in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{name}_{stride}"] = _random(1, rows * columns, values) + (values > 1) * 0.1
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            cls, obj, box, kps = (outputs[f"{n}_{stride}"][0, index] for n in _YUNET)
            cx, cy = (column + box[0]) * stride, (row + box[1]) * stride
            w, h = math.exp(box[2]) * stride, math.exp(box[3]) * stride
            points = [((kps[2 * i] + column) * stride, (kps[2 * i + 1] + row) * stride) for i in P]
            faces.append((cls[0] * obj[0], cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, points))
    return outputs, faces


_YUNET, P = ("cls", "obj", "bbox", "kps"), range(5)


def _scrfd(batched=False):
    """As InsightFace's scrfd.py decodes it."""
    outputs, faces = {}, []
    for level, stride in enumerate((8, 16, 32)):
        rows, columns = SIZE[0] // stride, SIZE[1] // stride
        names = [f"{448 + level * 25 + 3 * i}" for i in range(3)]
        for name, values in zip(names, (1, 4, 10)):
            outputs[name] = _random(rows * columns * 2, values)
        for index in range(rows * columns * 2):
            row, column = divmod(index // 2, columns)
            (score,), box, kps = (outputs[name][index] for name in names)
            x, y = column * stride, row * stride
            corners = (x - box[0] * stride, y - box[1] * stride)
            corners += (x + box[2] * stride, y + box[3] * stride)
            points = [(x + kps[2 * i] * stride, y + kps[2 * i + 1] * stride) for i in P]
            faces.append((score, *corners, points))
    order = sorted(outputs, key=lambda name: outputs[name].shape[1])  # scores, boxes, landmarks
    return {name: outputs[name][None] if batched else outputs[name] for name in order}, faces


def _retinaface():
    """As detect.py of biubug6/Pytorch_Retinaface decodes it."""
    count = 2 * CELLS
    boxes, face, points = _random(1, count, 4), _random(1, count), _random(1, count, 10)
    outputs = {"output": boxes, "outputt": np.stack([1 - face, face], -1), "outputtt": points}
    faces, index = [], 0
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(SIZE[0] // stride):
            for column in range(SIZE[1] // stride):
                for side in sides:
                    px, py = (column + 0.5) * stride, (row + 0.5) * stride
                    box, kps = boxes[0, index], points[0, index]
                    cx, cy = px + box[0] * 0.1 * side, py + box[1] * 0.1 * side
                    w, h = side * math.exp(box[2] * 0.2), side * math.exp(box[3] * 0.2)
                    corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                    pairs = [
                        (px + kps[2 * i] * 0.1 * side, py + kps[2 * i + 1] * 0.1 * side) for i in P
                    ]
                    faces.append((face[0, index], *corners, pairs))
                    index += 1
    return outputs, faces


def _yolov5():
    rows = _random(1, 3 * CELLS, 16) * 50
    rows[..., [4, 15]] /= 50
    faces = [
        (r[4] * r[15], r[0] - r[2] / 2, r[1] - r[3] / 2, r[0] + r[2] / 2, r[1] + r[3] / 2)
        + ([(r[5 + 2 * i], r[6 + 2 * i]) for i in P],)
        for r in rows[0]
    ]
    return {"output": rows}, faces


def _yolov8(values=20):
    columns = _random(1, values, CELLS) * 50
    columns[:, 4] /= 50
    faces = [
        (r[4], r[0] - r[2] / 2, r[1] - r[3] / 2, r[0] + r[2] / 2, r[1] + r[3] / 2)
        + ([(r[5 + 3 * i], r[6 + 3 * i]) for i in P] if values > 5 else None,)
        for r in columns[0].T
    ]
    return {"output0": columns}, faces


def _yolov8_maps():
    outputs, faces = {}, []
    for stride in (8, 16, 32):
        height, width = SIZE[0] // stride, SIZE[1] // stride
        outputs[f"map{stride}"] = values = _random(1, 80, height, width) * 4 - 2
        for row in range(height):
            for column in range(width):
                cell = values[0, :, row, column].astype(np.float64)
                sides = []
                for side in range(4):
                    weights = np.exp(cell[16 * side : 16 * side + 16])
                    sides.append((weights * np.arange(16)).sum() / weights.sum() * stride)
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                corners = (x - sides[0], y - sides[1], x + sides[2], y + sides[3])
                points = [
                    (
                        (cell[65 + 3 * i] * 2 + column) * stride,
                        (cell[66 + 3 * i] * 2 + row) * stride,
                    )
                    for i in P
                ]
                faces.append((1 / (1 + math.exp(-cell[64])), *corners, points))
    return outputs, faces


LAYOUTS = {
    "YuNet": _yunet,
    "SCRFD": _scrfd,
    "SCRFD, batched": lambda: _scrfd(batched=True),
    "RetinaFace": _retinaface,
    "YOLOv5-face": _yolov5,
    "YOLOv8-face": _yolov8,
    "YOLOv8-face, boxes alone": lambda: _yolov8(5),
    "YOLOv8-face (maps)": _yolov8_maps,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_faces_are_those_of_plain_loops(layout, graph_of):
    outputs, faces = LAYOUTS[layout]()
    graph = load_foreign(graph_of(outputs))
    assert graph.kind.name == layout.partition(",")[0]
    (found,) = graph.detections(torch.zeros(1, 3, *SIZE, dtype=torch.uint8), SETTINGS)
    wanted = sorted(faces, key=lambda face: -face[0])
    assert len(found) == len(wanted)
    assert found.scores.tolist() == pytest.approx([face[0] for face in wanted], abs=1e-5)
    boxes = torch.tensor([face[1:5] for face in wanted], dtype=torch.float32)
    assert torch.allclose(found.boxes, boxes, atol=1e-3)
    if wanted[0][5] is None:
        assert found.landmarks is None
    else:
        points = torch.tensor([face[5] for face in wanted], dtype=torch.float32)
        assert torch.allclose(found.landmarks, points, atol=1e-3)


def test_every_kind_has_a_layout_here():
    assert {kind.name for kind in KINDS} == {name.partition(",")[0] for name in LAYOUTS}


def test_images_are_scaled_and_padded_to_a_fixed_input(graph_of):
    outputs, faces = _yolov5()
    graph = load_foreign(graph_of(outputs))
    image = np.full((100, 96, 3), (10, 20, 30), np.uint8)
    values, scale = graph.prepare(image)
    assert values.shape == (1, 3, *SIZE) and scale == 0.64
    assert values[0, :, 0, 0] == pytest.approx(np.array([30, 20, 10]) / 255)  # RGB
    assert values[0, :, 63, 95] == pytest.approx(114 / 255)  # beside 61 columns
    (found,) = detect_tta(graph, None, [image], SETTINGS)
    best = max(faces, key=lambda face: face[0])
    assert found.boxes[0].tolist() == pytest.approx([v / 0.64 for v in best[1:5]], rel=1e-4)
    assert graph.evaluation.size == 96 and graph.evaluation.nms_iou == 0.5


def test_halves_and_batches(graph_of, tiny_data):
    outputs, _ = _yunet()
    graph = load_foreign(graph_of(outputs, dtype=TensorProto.FLOAT16))
    found = detect(graph, None, tiny_data.val, Evaluation(size=96))
    assert len(found) == len(tiny_data.val) and all(len(faces) for faces in found.values())


@pytest.mark.parametrize(
    ("outputs", "changes", "message"),
    [
        (
            {"heat": (1, 1, 16, 24), "size": (1, 2, 16, 24)},
            {},
            "for 96×64 px its outputs are heat 1×1×16×24, size 1×2×16×24; known are YuNet: cls",
        ),
        ({"a": (4, 3)}, {"shape": (1, *SIZE, 3)}, "its input is input 1×64×96×3 of tensor(float)"),
        ({"a": (4, 3)}, {"dtype": TensorProto.UINT8}, "of tensor(uint8); known are graphs of one"),
    ],
)
def test_unknown_graphs_are_told_in_one_line(outputs, changes, message, graph_of):
    path = graph_of({name: _random(*shape) for name, shape in outputs.items()}, **changes)
    with pytest.raises(UserError) as error:
        load_foreign(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_counts_of_all_kinds_of_nodes(tmp_path):
    def weights(name, *shape, kind=np.float32):
        return numpy_helper.from_array(
            np.arange(math.prod(shape)).reshape(shape).astype(kind), name
        )

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], **attributes)

    nodes = [
        node("Conv", ["x", "w1", "b1"], "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("BatchNormalization", ["a", "g", "b", "m", "v"], "n"),
        node("Conv", ["n", "w2"], "d", group=4, kernel_shape=[1, 1]),
        node("ConvTranspose", ["d", "w3"], "u", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["u"], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w4"], "h"),
        node("Add", ["h", "grid"], "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            weights("w1", 4, 3, 3, 3),
            *(weights(name, 4) for name in ("b1", "g", "b", "m", "v")),
            weights("w2", 4, 1, 1, 1),
            weights("w3", 4, 5, 2, 2),
            weights("w4", 5, 7),
            weights("grid", 2, 7),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "g.onnx")
    found = graph_cost(tmp_path / "g.onnx", (8, 12))
    assert found.params == 108 + 4 + 8 + 4 + 80 + 35 and not found.folded
    conv, norm, depthwise, transposed = 24 * 4 * 27, 4 * 24 * 4, 24 * 4, 24 * 4 * 20
    assert found.macs == conv + norm + depthwise + transposed + 5 + 35
    assert found.macs_at((16, 12)) == 2 * found.macs
