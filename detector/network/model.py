"""The detector: pixels → backbone → neck → context → heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.architecture.plan import BackbonePlan, DetectorPlan, plan
from detector.config.detector import Detector, Pixels
from detector.network.context import Context
from detector.network.heads import Heads
from detector.network.initialization import initialize
from detector.network.modules import build
from detector.network.neck import build_neck


def build_detector(config: Detector, seed: int = 0, initialization: str = "he") -> FaceDetector:
    """The network of a design on the CPU, in training mode, initialised from `seed`.

    Args:
        initialization: see `Recipe.initialization`.
    """
    # First on the meta device, so that no module uses torch's global random generator.
    model = blank_detector(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    initialize(model, model.heads, generator, initialization)
    model.normalise.fill()
    return model


def blank_detector(config: Detector) -> FaceDetector:
    """The network of a design on the meta device: shapes without values."""
    with torch.device("meta"):
        return FaceDetector(plan(config), config.pixels)


class FaceDetector(nn.Module):
    def __init__(self, plan: DetectorPlan, pixels: Pixels):
        super().__init__()
        self.normalise = Normalise(pixels)
        self.backbone = Backbone(plan.backbone)
        self.neck = build_neck(plan.neck)
        self.context = Context(plan.context)
        self.heads = Heads(plan.heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions for every anchor, in the order of `boxes.anchors.anchors`.

        Args:
            images: [B, 3, H, W], uint8 or float, raw BGR in 0–255; any H and W.

        Returns:
            class_logits [B, A, 2] (background, face; before the softmax) or [B, A, 1] (before the
            sigmoid), box_deltas [B, A, 4] and, if the head has them, landmark_deltas [B, A, 10]
            (x, y of five points) and objectness [B, A, 1] (before the sigmoid).
        """
        features = self.backbone(self.normalise(images))
        return self.heads(self.context(self.neck(features)))


class Backbone(nn.Module):
    def __init__(self, plan: BackbonePlan):
        super().__init__()
        self.levels = tuple(plan.stages)
        self.stages = nn.ModuleList(map(build, plan.stages.values()))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """The feature maps by their pyramid levels, from the finest to the coarsest."""
        features = {}
        for level, stage in zip(self.levels, self.stages):
            features[level] = x = stage(x)
        return features


class Normalise(nn.Module):
    """Raw BGR pixels to the network's input, as `Pixels` describes."""

    mean: Tensor
    std: Tensor

    def __init__(self, pixels: Pixels):
        super().__init__()
        self.pixels = pixels
        self.register_buffer("mean", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(1, 3, 1, 1), persistent=False)

    def fill(self) -> None:
        for buffer, values in ((self.mean, self.pixels.mean), (self.std, self.pixels.std)):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.mean.dtype)
        if self.pixels.order == "rgb":
            x = x.flip(1)
        x = x - self.mean
        return x if self.pixels.std == (1.0, 1.0, 1.0) else x / self.std
