"""How a detector is trained and evaluated: frozen dataclasses. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detector.base.errors import ConfigError
from detector.base.struct import Struct


@dataclass(frozen=True, kw_only=True)
class Augmentation(Struct):
    scales: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0)
    """Sides a random square crop is drawn from, as shares of the image's short side (> 0)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: float = 0.5
    """Probability of each of brightness, contrast, saturation and hue change; 0 turns them off."""
    min_face: float = 0.0
    """Faces whose longer side is below this many px after the resize are ignored, not learnt."""

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"augmentation.scales: {list(self.scales)} must be numbers above 0")
        for key in ("flip", "photometric"):
            _within(f"augmentation.{key}", getattr(self, key), 0, 1)


@dataclass(frozen=True, kw_only=True)
class Optimizer(Struct):
    """Rates are for the recipe's batch size."""

    kind: str = "sgd"
    """sgd, or adamw: learns far more in the first hundred steps, for proxies."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    momentum: float = 0.9
    """adamw: its beta1."""
    weight_decay: float = 5e-4
    """L2 penalty (adamw: share of the weights taken off, times lr); not on biases and
    normalisation."""
    warmup_epochs: float = 1.0
    """Epochs (fractions too) over which the rate rises linearly from lr / 1000."""
    schedule: str = "step"
    """step (× gamma at each milestone) or cosine (to 1 % of lr at the end)."""
    milestones: tuple[float, ...] = (0.76, 0.88)
    """step: shares of all epochs after which the rate falls."""
    gamma: float = 0.1
    clip_norm: float = 0.0
    """Gradients are scaled down to this L2 norm; 0 leaves them."""
    ema: float = 0.0
    """Share of the running average of the weights that a step keeps, such as 0.999 (it rises to
    that from 0.18); the average is what is evaluated and saved. 0: the weights themselves."""

    def __post_init__(self):
        if not self.lr > 0:
            raise ConfigError(f"optimizer.lr: {self.lr} must be greater than 0")
        _within("optimizer.momentum", self.momentum, 0, 1)
        if self.kind not in ("sgd", "adamw"):
            raise ConfigError(f"optimizer.kind: {self.kind!r} is not one of sgd, adamw")
        if self.schedule not in ("step", "cosine"):
            raise ConfigError(f"optimizer.schedule: {self.schedule!r} is not one of step, cosine")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optimizer.ema: {self.ema} must be at least 0 and below 1")
        for share in self.milestones:
            _within("optimizer.milestones", share, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Loss(Struct):
    assignment: str = "iou"
    """Which anchors learn a face: iou (RetinaFace), atss (those above the average overlap of its
    nearest ones) or simota (those whose predictions cost least)."""
    match_iou: float = 0.35
    """iou: an anchor learns the face it overlaps by at least this IoU."""
    force_iou: float = 0.2
    """iou: each face's best anchor learns it from this IoU on (RetinaFace: 0.2)."""
    candidates: int = 9
    """atss: nearest anchors of each level that a face chooses from."""
    centre_radius: float = 2.5
    """simota: strides around a face's centre within which cells are preferred."""
    class_loss: str = "ohem"
    """ohem (cross entropy over positives and the hardest negatives), cross_entropy (over all),
    focal or quality_focal (learns the IoU of the predicted box); of objectness where predicted."""
    negatives: float = 7.0
    """ohem: hardest negatives kept for each positive anchor."""
    box_loss: str = "smooth_l1"
    """smooth_l1 (of the deltas), or giou, diou, eiou (of the boxes)."""
    box_weight: float = 2.0
    landmark_weight: float = 1.0
    landmark_beta: float = 1.0
    """Error of a landmark's delta below which its loss is quadratic."""

    def __post_init__(self):
        _one_of("loss.assignment", self.assignment, ("iou", "atss", "simota"))
        _one_of(
            "loss.class_loss", self.class_loss, ("ohem", "cross_entropy", "focal", "quality_focal")
        )
        _one_of("loss.box_loss", self.box_loss, ("smooth_l1", "giou", "diou", "eiou"))
        _within("loss.match_iou", self.match_iou, 0, 1)
        _within("loss.force_iou", self.force_iou, 0, 1)
        for key in ("negatives", "candidates"):
            if getattr(self, key) < 1:
                raise ConfigError(f"loss.{key}: {getattr(self, key)} must be at least 1")
        for key in ("centre_radius", "landmark_beta"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"loss.{key}: {getattr(self, key)} must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Struct):
    size: int | None = None
    """Long side in pixels to which images are scaled down before detection; none: as they are."""
    short: int | None = None
    """Short side in pixels to which images are scaled, down or up, `size` being the most that the
    long side gets; none: as `size` says."""
    flip: bool = False
    """Look at the mirror image, too; what is seen in several views is merged by box voting."""
    scales: tuple[float, ...] = (1.0,)
    """Factors of that size at which an image is looked at, one after the other."""
    score_threshold: float = 0.02
    pre_nms: int = 5000
    """Boxes of highest score kept before NMS."""
    nms_iou: float = 0.4
    keep: int = 750
    """Boxes kept for an image after NMS."""
    every: int = 1
    """Epochs between evaluations while training; the last epoch always has one; 0: only that."""

    def __post_init__(self):
        _within("evaluation.score_threshold", self.score_threshold, 0, 1)
        _within("evaluation.nms_iou", self.nms_iou, 0, 1)
        for key in ("size", "short"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ConfigError(f"evaluation.{key}: {getattr(self, key)} must be at least 1")
        if not self.scales or not all(0 < factor < float("inf") for factor in self.scales):
            raise ConfigError(f"evaluation.scales: {list(self.scales)} must be numbers above 0")


@dataclass(frozen=True, kw_only=True)
class Recipe(Struct):
    epochs: int = 250
    size: int = 640
    """Side in pixels of the square training crops; a multiple of 32."""
    batch_size: int = 32
    """Images a step, of all workers together."""
    accumulate: int = 1
    """Parts in which a worker takes its images of a step through the network, one after the other:
    less memory for the same gradients, but that batch normalisation sees each part alone."""
    cache_size: int | None = None
    """Long side in pixels to which training images are scaled down once, in the cache; none: as
    they are."""
    weights: str | None = None
    """File of pretrained weights, or imagenet; none: from scratch."""
    initialization: str = "he"
    """Of weights that are trained from scratch: he (normal, by the fan-in; predictors near zero),
    or torch (torch's default, uniform and 2.4 times as small, which under batch normalisation is a
    rate 6 times as high; as RetinaFace's own code has it)."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    evaluation: Evaluation = field(default_factory=Evaluation)
    precision: str = "auto"
    """fp32, bf16 (autocast) or fp16 (with loss scaling); auto is bf16 where the device computes
    in it, else fp32. All but fp32 lay images out channels-last."""
    norm: str = "sync"
    """Batch normalisation by the statistics of: sync, the images of all workers on GPUs (on CPUs
    as batch); batch, each worker's own; frozen, the initial weights."""
    seed: int = 0
    """Of initial weights, order of images and augmentation."""

    def __post_init__(self):
        _one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _one_of("initialization", self.initialization, ("he", "torch"))
        _one_of("norm", self.norm, ("sync", "batch", "frozen"))
        for key in ("epochs", "size", "batch_size", "accumulate"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}: {getattr(self, key)} must be at least 1")
        if self.size % 32:
            raise ConfigError(f"size: {self.size} must be a multiple of 32")

    @classmethod
    def from_dict(cls, data: dict, where: str = "") -> Recipe:
        """As `Struct` does it; `autocast`, which checkpoints and studies had before `precision`,
        is read as well."""
        if isinstance(data, dict) and isinstance(data.get("autocast"), bool):
            data = {**data, "precision": "auto" if data["autocast"] else "fp32"}
            del data["autocast"]
        return super().from_dict(data, where)


@dataclass(frozen=True, kw_only=True)
class DataChoice(Struct):
    """Which images a study trains on and compares its trials on."""

    path: str = "synthetic"
    """Folder of WIDER FACE (any layout of `detector.data.wider`), or synthetic."""
    fraction: float = 1.0
    """Share of the training images used, stratified by event."""
    holdout: float = 0.2
    """Share of those kept out of training, stratified by event, to compare trials on."""
    select_on: str = "holdout"
    """holdout, or val as most competitors do (then the record says so)."""
    seed: int = 0
    """Of both draws."""

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


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(choices)}")
