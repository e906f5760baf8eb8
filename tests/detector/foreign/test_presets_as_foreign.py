"""Our presets, exported in the layouts of the programs that published them, and run as foreign
graphs: the same faces as by our own code."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.onnx import TrainingMode

from detector.architecture.cost import cost
from detector.architecture.layers import Conv, level_size
from detector.architecture.plan import plan
from detector.config.presets import load_preset
from detector.config.recipe import Evaluation
from detector.foreign.counts import GraphCost, graph_cost
from detector.foreign.graph import load_foreign
from detector.inference.predict import detect_tta
from detector.network.model import build_detector

SIZE = (96, 160)
"""(height, width) px of the graphs with a fixed size."""
SETTINGS = Evaluation(score_threshold=0.0, pre_nms=200, keep=50)


class _Peer(nn.Module):
    """A detector with the outputs of its peer, for prepared float pixels."""

    def __init__(self, net: nn.Module, layout: str):
        super().__init__()
        self.net, self.layout = net, layout
        net.normalise = nn.Identity()

    def forward(self, pixels):
        outputs = self.net(pixels)
        counts = [n * (pixels.shape[2] // s) * (pixels.shape[3] // s) for n, s in self._levels()]
        boxes, points = outputs["box_deltas"], outputs.get("landmark_deltas")
        logits = outputs["class_logits"]
        if self.layout == "retinaface":
            return boxes, logits.softmax(-1), points
        if self.layout == "scrfd":
            parts = [logits.sigmoid(), boxes, *([] if points is None else [points])]
            return tuple(level[0] for part in parts for level in part.split(counts, dim=1))
        parts = (logits.sigmoid(), outputs["objectness"].sigmoid(), boxes, points)
        return tuple(level for part in parts for level in part.split(counts, dim=1))

    def _levels(self):
        return [(1 if self.layout == "yunet" else 2, stride) for stride in (8, 16, 32)]


NAMES = {
    "yunet": [f"{name}_{s}" for name in ("cls", "obj", "bbox", "kps") for s in (8, 16, 32)],
    "scrfd": None,
    "retinaface": ["output", "outputt", "outputtt"],
}


def _design(preset: str, landmarks: bool):
    config = load_preset(preset)[0]
    return replace(config, head=replace(config.head, landmarks=landmarks))


def _trained_looking(config):
    """A network whose outputs differ from anchor to anchor, as untrained ones hardly do."""
    net = build_detector(config, initialization="torch").eval()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.weight.data.uniform_(0.8, 1.6, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
        if getattr(module, "bias", None) is not None:  # exporters store equal tensors only once
            module.bias.data.normal_(0, 0.2, generator=generator)
    return net


@pytest.mark.parametrize(
    ("preset", "layout", "landmarks"),
    [
        ("yunet_n", "yunet", True),
        ("scrfd_0.5g", "scrfd", False),
        ("scrfd_0.5g", "scrfd", True),
        ("retinaface_mobile025", "retinaface", True),
    ],
)
def test_the_same_faces_as_by_our_own_code(preset, layout, landmarks, tmp_path):
    config = _design(preset, landmarks)
    net = _trained_looking(config)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (wanted,) = detect_tta(net, config, [image], SETTINGS)
    path = tmp_path / "peer.onnx"
    _export(_Peer(net, layout), path)
    graph = load_foreign(path)
    assert graph.kind.name.lower() == layout and graph.fixed_size == SIZE
    (found,) = detect_tta(graph, None, [image], SETTINGS)
    assert len(found) == len(wanted) == 50
    assert torch.allclose(found.scores, wanted.scores, atol=1e-4)
    assert torch.allclose(found.boxes.sort(0).values, wanted.boxes.sort(0).values, atol=0.05)
    assert (found.landmarks is None) == (wanted.landmarks is None) == (not landmarks)
    if landmarks:
        assert torch.allclose(
            found.landmarks.sort(0).values, wanted.landmarks.sort(0).values, atol=0.05
        )

    # This exporter folds batch norms into convolutions: their MACs and half their values are gone.
    assert graph_cost(path, SIZE) == GraphCost(*_folded_cost(config), SIZE, folded=True)


def test_unfolded_norms_count_as_by_thop(tmp_path):
    config = load_preset("yunet_n")[0]
    path = tmp_path / "peer.onnx"
    _export(_Peer(_trained_looking(config), "yunet"), path, training=TrainingMode.PRESERVE)
    assert graph_cost(path, SIZE) == GraphCost(*cost(config, SIZE), SIZE, folded=False)
    assert graph_cost(path, SIZE).macs_at((192, 320)) == cost(config, (192, 320))[1]


def _export(peer: nn.Module, path: Path, **options) -> None:
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            peer.eval(),
            (torch.zeros(1, 3, *SIZE),),
            path,
            dynamo=False,
            input_names=["input"],
            output_names=NAMES[peer.layout],
            **options,
        )


def _folded_cost(config) -> tuple[int, int]:
    """Parameters and MACs after each batch norm has become a bias, without learnt scales."""
    layers: dict[str, Conv] = {}
    macs = 0
    for name, layer, level in plan(config).uses():
        for leaf_name, leaf, size in layer.leaves(level_size(SIZE, level), name):
            if isinstance(leaf, Conv):
                layers[leaf_name] = leaf
                macs += replace(leaf, norm=False).macs(size)
    folded = [
        replace(leaf, norm=False, bias=True) if leaf.norm and leaf.norm_groups is None else leaf
        for leaf in layers.values()
    ]
    return sum(leaf.params for leaf in folded), macs
