"""Published ImageNet-1k weights, and the record of what a training started from. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from detector.base.errors import UserError, first_line
from detector.base.files import write_text
from detector.base.json_file import read_json
from detector.base.struct import Struct
from detector.config.detector import Backbone, Detector, Neck, Pixels

IMAGENET = "imagenet"
START_FILE = "start.json"
"""Beside a checkpoint: its `Start`, and the origin of every layer."""

_RESNETS = {  # name: kind of block, number of blocks in each row
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
TORCHVISION_BACKBONES: dict[str, Backbone] = {
    name: Backbone(kind="resnet", stem=64, widths=(64, 128, 256, 512), depths=depths, block=block)
    for name, (block, depths) in _RESNETS.items()
} | {
    "mobilenet_v2": Backbone(
        kind="mobilenet_v2",
        stem=32,
        widths=(16, 24, 32, 64, 96, 160, 320),
        depths=(1, 2, 3, 4, 3, 3, 1),
        activation="relu6",
    ),
}
# torchvision's mean and standard deviation of RGB pixels in [0, 1].
TORCHVISION_PIXELS = Pixels(
    order="rgb",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)

MOBILENET_V1_025 = Backbone(
    kind="mobilenet_v1",
    stem=8,
    widths=(16, 32, 64, 128, 256),
    depths=(1, 2, 2, 6, 2),
    activation="leaky_relu",
)
IMAGENET_KINDS = sorted({b.kind for b in (MOBILENET_V1_025, *TORCHVISION_BACKBONES.values())})
"""Kinds of backbones with ImageNet weights."""
MOBILENET_V1_FILE = "mobilenetV1X0.25_pretrain.tar"
MOBILENET_V1_SHA256 = "75c37f8d438b7c6aed2e6b310fd0540c40dabf0dd820770bd7082668dfd7c1c1"

RELEASED = ("retinaface_mobile025", "retinaface_resnet50")
"""Presets whose weights the RetinaFace repositories have released."""


def backbone_only(backbone: Backbone, pixels: Pixels | None = None) -> Detector:
    """A detector around a backbone, for code that needs a whole design."""
    return Detector(
        backbone=backbone, neck=Neck(levels=(3, 4, 5), width=8), pixels=pixels or Pixels()
    )


def torchvision_name(config: Detector) -> str | None:
    """The name in TORCHVISION_BACKBONES of the backbone with the same kind of blocks and the most
    similar numbers of blocks; None if there is none of that kind."""
    backbone = config.backbone
    names = [
        name
        for name, published in TORCHVISION_BACKBONES.items()
        if published.spec.layers == backbone.spec.layers
        and ("block" not in backbone.spec.options or published.block == backbone.block)
    ]
    return min(
        names,
        default=None,
        key=lambda name: sum(
            abs(there - here)
            for there, here in zip(TORCHVISION_BACKBONES[name].depths, backbone.depths)
        ),
    )


def read_start(folder: Path) -> dict | None:
    """The `Start` of the training in a folder, as plain data; None means from scratch.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / START_FILE
    if not path.is_file():
        return None
    try:
        start = read_json(path)
        return {key: value for key, value in start.items() if key != "layers"}
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); remove it, then resume with --resume"
        ) from error


def repair_start(folder: Path, start: dict | None) -> None:
    """Write the file that `read_start` reads again if it is damaged.

    Args:
        start: of the training in the folder, from its checkpoint.
    """
    try:
        read_start(folder)
    except UserError:
        if start is None:
            (folder / START_FILE).unlink(missing_ok=True)
        else:
            write_text(folder / START_FILE, json.dumps(start, indent=1) + "\n")


@dataclass(frozen=True, kw_only=True)
class Start(Struct):
    """The pretrained weights that a training was initialized from."""

    source: str
    """The file, or imagenet."""
    title: str
    """A description of the weights."""
    part: str
    """backbone or detector: what the weights are of."""
    sha256: str
    copied: dict = field(default_factory=dict)
    """Share of the parameters that were copied, in [0, 1], by part of the detector: backbone, neck,
    context, heads (if present), all."""
    trained_on: dict | None = None
    """For a detector of this program: title, data, fingerprint and number of images, and the
    fields of `DataChoice` that chose them; None if unknown."""
    before: Start | None = None
    """What the source itself was initialized from. None means from scratch for a detector of this
    program, otherwise unknown."""
    from_here: bool = False
    """Whether this program trained the source."""
    teacher: Teacher | None = None
    """What taught the source while it was trained; None means nothing, or unknown."""

    def __str__(self) -> str:
        """Such as "62 % of it from torchvision's resnet18 (backbone 100 %, heads 0 %)"."""
        parts = ", ".join(
            f"{part} {share:.0%}" for part, share in self.copied.items() if part != "all"
        )
        return f"{self.copied['all']:.0%} of it from {self.title} ({parts})"


@dataclass(frozen=True, kw_only=True)
class Teacher(Struct):
    """A detector whose predictions a training learned, besides the labels."""

    weights: Start
    """Its file, and where that comes from."""
    describe: str
    """Its design in one line."""
    params: int
    macs: int
    """Multiply-accumulates at 640×640."""
    preset: str | None = None
    """Its design, as the user named it; None if the file has it."""
