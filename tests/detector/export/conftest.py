"""Exports that several tests read: tracing a graph takes 10 to 20 s."""

import helpers
import numpy as np
import pytest
import torch

from detector.config.presets import load_preset
from detector.export.exporter import export
from detector.network.model import build_detector


@pytest.fixture(scope="session")
def shallow_export(traced_once, tmp_path_factory):
    """Function: preset → (untrained network, path of its graph with decoded boxes). The backbone
    has one block a row, and batch normalisation the statistics of noise, so that outputs are of a
    usual size."""

    def exported(preset: str):
        config = helpers.shallow(load_preset(preset)[0], 1)
        net = build_detector(config)
        noise = np.random.default_rng(1).integers(0, 256, (4, 3, 128, 128), np.uint8)
        for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = 1.0
        net.train()(torch.from_numpy(noise))
        path = tmp_path_factory.mktemp("shallow") / f"{preset}.onnx"
        return net, export(net, config, path, "boxes")

    return exported
