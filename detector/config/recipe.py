"""The recipe to train and evaluate a detector by: frozen dataclasses. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from detector.base.errors import ConfigError
from detector.base.struct import Struct
from detector.config.checks import at_least
from detector.config.limits import MAX_BATCH, MAX_CANDIDATES, MAX_EPOCHS, MAX_SIDE

# Their functions: detector/losses/tables.py, which also adds those of plugins.
ASSIGNERS = ["iou", "atss", "simota"]
CLASS_LOSSES = ["ohem", "cross_entropy", "focal", "quality_focal"]
BOX_LOSSES = ["smooth_l1", "giou", "diou", "eiou"]
# Its functions: detector/network/initialization.py.
INITIALIZATIONS = ("he", "torch", "scrfd", "yunet")


@dataclass(frozen=True, kw_only=True)
class Augmentation(Struct):
    scales: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0)
    """Sides of random square crops, as fractions (> 0) of the image's short side."""
    crop: str = "whole_face"
    """whole_face (RetinaFace: of 50 squares, each of a random scale, the first that holds a whole
    face) or face_centre (RandomSquareCrop of SCRFD and YuNet: one random scale, and the first of
    its squares that holds a face's centre). The former prefers large scales."""
    clip_boxes: bool = True
    """Whether boxes are clipped to the crop."""
    padding: tuple[int, int, int] = (104, 117, 123)
    """BGR colour of what a crop shows beyond the image; the default is ImageNet's mean."""
    interpolation: str = "area_linear"
    """Of crops resized to the training size: area_linear (area if they shrink, otherwise linear)
    or random (RetinaFace: one of linear, cubic, area, nearest and Lanczos; on a GPU, images are
    then cropped by the CPU)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: float = 0.5
    """Probability of each of brightness, contrast, saturation and hue jitter."""
    hue: float = 36.0
    """Greatest hue jitter in degrees, to either side."""
    permute_channels: float = 0.0
    """Probability of a random permutation of the colour channels."""
    ignore_invalid: bool = True
    """Whether faces that the labels mark as invalid are ignored; otherwise they are learnt like all
    others, as in RetinaFace's own code."""
    min_face: float = 0.0
    """Faces whose longer side is below this many px after the resize are ignored."""

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"augmentation.scales: {list(self.scales)} must be numbers above 0")
        _one_of("augmentation.crop", self.crop, ("whole_face", "face_centre"))
        _one_of("augmentation.interpolation", self.interpolation, ("area_linear", "random"))
        for key in ("flip", "photometric", "permute_channels"):
            _within(f"augmentation.{key}", getattr(self, key), 0, 1)
        _within("augmentation.hue", self.hue, 0, 180)
        for value in self.padding:
            _within("augmentation.padding", value, 0, 255)


@dataclass(frozen=True, kw_only=True)
class Optimizer(Struct):
    """Learning rates are for the recipe's batch size."""

    kind: str = "sgd"
    """sgd, or adamw (learns far more in the first hundred steps: for proxies)."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    momentum: float = 0.9
    """sgd: momentum; adamw: beta1."""
    weight_decay: float = 5e-4
    """L2 penalty (adamw: decoupled weight decay) of the weights of convolutions."""
    decay_norms: bool = False
    """Whether weight decay also falls on biases and normalisation layers, as in the SGD of
    RetinaFace's own code and of MMDetection."""
    warmup_epochs: float = 1.0
    """Epochs (also fractions) of linear warm-up from lr / 1000."""
    schedule: str = "step"
    """step (× gamma at each milestone) or cosine (to 1 % of lr at the end)."""
    milestones: tuple[float, ...] = (0.76, 0.88)
    """step: fractions of all epochs after which the learning rate decreases."""
    gamma: float = 0.1
    clip_norm: float = 0.0
    """Gradients are clipped to this L2 norm; 0 means no clipping."""
    ema: float = 0.0
    """Decay per step of the exponential moving average of the weights, which is evaluated and
    saved, such as 0.999 (it rises to that from 0.18); 0 means no average."""

    def __post_init__(self):
        if not self.lr > 0:
            raise ConfigError(f"optimizer.lr: {self.lr} must be greater than 0")
        _within("optimizer.momentum", self.momentum, 0, 1)
        for key in ("weight_decay", "warmup_epochs", "gamma", "clip_norm"):
            at_least(f"optimizer.{key}", getattr(self, key), 0)
        if self.kind not in ("sgd", "adamw"):
            raise ConfigError(f"optimizer.kind: {self.kind!r} is not one of sgd, adamw")
        if self.kind == "adamw" and self.momentum == 1:
            raise ConfigError(f"optimizer.momentum: {self.momentum} must be below 1 with adamw")
        if self.schedule not in ("step", "cosine"):
            raise ConfigError(f"optimizer.schedule: {self.schedule!r} is not one of step, cosine")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optimizer.ema: {self.ema} must be at least 0 and below 1")
        for share in self.milestones:
            _within("optimizer.milestones", share, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Loss(Struct):
    assignment: str = "iou"
    """Assigner of anchors to faces: iou (RetinaFace), atss (by the mean overlap of the nearest
    anchors) or simota (by the cost of the predictions)."""
    match_iou: float = 0.35
    """iou: an anchor is positive from this IoU with a face on."""
    force_iou: float = 0.2
    """iou: the best anchor of a face is positive from this IoU on (RetinaFace: 0.2)."""
    unmatched: str = "ignored"
    """Anchors on a face that no anchor learns, since none fits it: ignored, or background as in the
    detectors' own code. Those on faces to be ignored are always ignored."""
    candidates: int = 9
    """atss: nearest anchors per level that are candidates for a face."""
    centre_radius: float = 2.5
    """simota: distance from a face's centre, in strides, within which cells are preferred."""
    class_loss: str = "ohem"
    """ohem (cross entropy over positives and the hardest negatives), cross_entropy (over all),
    focal or quality_focal (learns the IoU of the predicted box); of objectness if predicted."""
    negatives: float = 7.0
    """ohem: hardest negatives for each positive anchor."""
    min_positives: int | None = None
    """Positives that an image counts at least as in the class loss: in what its sum is divided by,
    and in ohem's negatives. None means 1 with ohem, otherwise 0; RetinaFace's own code has 0,
    SCRFD's 1."""
    box_loss: str = "smooth_l1"
    """smooth_l1 (of the deltas), or giou, diou or eiou (of the boxes)."""
    box_weight: float = 2.0
    landmark_weight: float = 1.0
    landmark_beta: float = 1.0
    """Smooth L1's beta: error of a delta below which the loss is quadratic."""

    def __post_init__(self):
        _one_of("loss.assignment", self.assignment, ASSIGNERS)
        _one_of("loss.class_loss", self.class_loss, CLASS_LOSSES)
        _one_of("loss.box_loss", self.box_loss, BOX_LOSSES)
        _one_of("loss.unmatched", self.unmatched, ("ignored", "background"))
        if self.min_positives is not None:
            at_least("loss.min_positives", self.min_positives, 0)
        _within("loss.match_iou", self.match_iou, 0, 1)
        _within("loss.force_iou", self.force_iou, 0, 1)
        for key in ("negatives", "candidates"):
            at_least(f"loss.{key}", getattr(self, key), 1)
        for key in ("box_weight", "landmark_weight"):
            at_least(f"loss.{key}", getattr(self, key), 0)
        if self.candidates > MAX_CANDIDATES:
            raise ConfigError(
                f"loss.candidates: {self.candidates} must be at most {MAX_CANDIDATES:,}"
            )
        for key in ("centre_radius", "landmark_beta"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"loss.{key}: {getattr(self, key)} must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class Distillation(Struct):
    """What is learned from a teacher (nas.retrain --teacher); no effect without one."""

    score_weight: float = 1.0
    """Weight of the loss that draws the scores to the teacher's; 0 means none."""
    box_weight: float = 1.0
    """Weight of the loss that draws the boxes to the teacher's, where it sees a face; 0 means
    none."""

    def __post_init__(self):
        for key in ("score_weight", "box_weight"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"distillation.{key}: {getattr(self, key)} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Struct):
    size: int | None = None
    """Long side in pixels to which images are scaled down for detection; None means original
    size."""
    short: int | None = None
    """Short side in pixels to which images are scaled, down or up, with a long side of at most
    `size`; None means scaling by `size` alone."""
    canvas: str | None = None
    """Padding at the right and at the bottom, with the colour that the design normalises to zero.
    square: to `size` × `size` (SCRFD's protocol: the GroupNorm of its head takes its statistics
    over the padding, too). stride: to multiples of the coarsest stride, 64 px, so that images share
    a size, which is faster. No effect without `size`; None means no padding."""
    interpolation: str = "area_linear"
    """Of images that are resized: area_linear (area if they shrink, otherwise linear) or linear."""
    flip: bool = False
    """Test-time augmentation by mirror images; several detections of a face are merged by box
    voting."""
    scales: tuple[float, ...] = (1.0,)
    """Test-time augmentation by image sizes: factors of the size above."""
    score_threshold: float = 0.02
    pre_nms: int = 5000
    """Boxes of highest score that enter non-maximum suppression (NMS)."""
    nms_iou: float = 0.4
    keep: int = 750
    """Most boxes of an image after NMS."""
    every: int = 1
    """Epochs between evaluations in training; 0 means only after the last, which always has one."""

    def __post_init__(self):
        _within("evaluation.score_threshold", self.score_threshold, 0, 1)
        _within("evaluation.nms_iou", self.nms_iou, 0, 1)
        if self.canvas is not None:
            _one_of("evaluation.canvas", self.canvas, ("square", "stride"))
        _one_of("evaluation.interpolation", self.interpolation, ("area_linear", "linear"))
        for key in ("size", "short"):
            if getattr(self, key) is not None:
                at_least(f"evaluation.{key}", getattr(self, key), 1)
        for key, least in (("pre_nms", 1), ("keep", 1), ("every", 0)):
            at_least(f"evaluation.{key}", getattr(self, key), least)
        if not self.scales or not all(0 < factor < float("inf") for factor in self.scales):
            raise ConfigError(f"evaluation.scales: {list(self.scales)} must be numbers above 0")

    @property
    def cache_size(self) -> int | None:
        """Long side in pixels to which images may be scaled down in a cache, as the network then
        sees the same pixels; None means original size."""
        by_size_alone = self.short is None and self.scales == (1.0,)
        return self.size if by_size_alone and self.interpolation == "area_linear" else None

    @property
    def at_original_size(self) -> Self:
        """The same for images as they are, neither scaled nor padded."""
        return replace(self, size=None, short=None, canvas=None)


@dataclass(frozen=True, kw_only=True)
class Recipe(Struct):
    epochs: int = 250
    size: int = 640
    """Side in pixels of the square training crops; a multiple of 32."""
    batch_size: int = 32
    """Images per step, of all workers together."""
    accumulate: int = 1
    """Parts of a step's images that a worker processes one after the other (gradient accumulation):
    less memory for the same gradients, except that batch normalisation sees each part alone."""
    cache_size: int | None = None
    """Long side in pixels to which training images are scaled down once, in the cache; None means
    original size."""
    weights: str | None = None
    """File of pretrained weights, or imagenet; None means from scratch."""
    initialization: str = "he"
    """Initial weights from scratch: he (normal, by the fan-in; predictors near zero), torch
    (torch's default, as in RetinaFace's own code: uniform and 2.4 times as small, which under batch
    normalisation is equivalent to a 6 times higher learning rate), or those of SCRFD's or YuNet's
    own code: scrfd (normal by the fan-out in the backbone, Xavier in the neck, near zero in the
    head, residual blocks start as their shortcuts) or yunet (Xavier, biases 0.02, no prior)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    distillation: Distillation = field(default_factory=Distillation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    precision: str = "auto"
    """fp32, bf16 (autocast) or fp16 (with loss scaling); auto is bf16 if the device supports it in
    hardware, else fp32. Images are channels-last except with fp32."""
    norm: str = "sync"
    """Statistics of batch normalisation: sync (of the images of all workers on GPUs; on CPUs the
    same as batch), batch (of each worker's images) or frozen (of the initial weights)."""
    seed: int = 0
    """Of the initial weights, the order of images and their augmentation."""

    def __post_init__(self):
        _one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _one_of("initialization", self.initialization, INITIALIZATIONS)
        _one_of("norm", self.norm, ("sync", "batch", "frozen"))
        for key, most in (
            ("epochs", MAX_EPOCHS),
            ("size", MAX_SIDE),
            ("batch_size", MAX_BATCH),
            ("accumulate", MAX_BATCH),
        ):
            if not 1 <= getattr(self, key) <= most:
                raise ConfigError(
                    f"{key}: {getattr(self, key)} must be at least 1 and at most {most:,}"
                )
        if self.cache_size is not None and not 1 <= self.cache_size <= MAX_SIDE:
            raise ConfigError(
                f"cache_size: {self.cache_size} must be at least 1 and at most {MAX_SIDE:,}"
            )
        if self.size % 32:
            raise ConfigError(f"size: {self.size} must be a multiple of 32")

    @classmethod
    def from_dict(cls, data: dict, where: str = "") -> Self:
        """As `Struct.from_dict`; also reads `autocast`, which older checkpoints and studies have in
        the place of `precision`."""
        if isinstance(data, dict) and isinstance(data.get("autocast"), bool):
            data = {**data, "precision": "auto" if data["autocast"] else "fp32"}
            del data["autocast"]
        return super().from_dict(data, where)


@dataclass(frozen=True, kw_only=True)
class DataChoice(Struct):
    """The images that a study trains on, and those that its trials are compared on."""

    path: str = "synthetic"
    """Folder of WIDER FACE (any layout of `detector.data.wider`), or synthetic."""
    fraction: float = 1.0
    """Fraction of the training images that is used, stratified by event."""
    holdout: float = 0.2
    """Fraction of those that is held out, stratified by event, to compare trials on."""
    select_on: str = "holdout"
    """holdout, or val as most competitors do (which is then recorded)."""
    seed: int = 0
    """Of both random selections."""

    def __post_init__(self):
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction: {self.fraction} must be above 0 and at most 1")
        if not 0 < self.holdout < 1:
            raise ConfigError(f"holdout: {self.holdout} must be between 0 and 1")
        if self.select_on not in ("holdout", "val"):
            raise ConfigError(f"select_on: {self.select_on!r} is not one of holdout, val")


def _within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key}: {value} must be between {low} and {high}")


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(choices)}")
