"""The competition's rules, each with its evidence. No heavy imports (torch, Ray, MLflow).

Rules: at most 45 M parameters; pretraining on ImageNet-1k only; no other training data than the
given subset (about a third of WIDER FACE's train); size and MACs measured by thop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detector.base.files import is_file
from detector.base.struct import Struct
from detector.config.recipe import Recipe
from detector.weights.pretrained import (
    MOBILENET_V1_FILE,
    MOBILENET_V1_SHA256,
    TORCHVISION_BACKBONES,
    Start,
)
from nas.models.model_folder import sha256_of
from trials.record import Cost
from trials.stored import Origin

MAX_PARAMS = 45_000_000
TRAIN_IMAGES = 12_880
MAX_SHARE = 0.35
"""Largest share of the training images that still counts as "about a third"."""
IMAGENET_FILES = {  # sha256 → weights that were trained on ImageNet-1k only
    MOBILENET_V1_SHA256: f"MobileNetV1 ×0.25 of RetinaFace ({MOBILENET_V1_FILE})",
}


@dataclass(frozen=True, kw_only=True)
class Rule(Struct):
    """A rule, and whether a model complies with it."""

    rule: str
    holds: bool | None
    """None if the recorded facts do not decide it."""
    evidence: str


def check_rules(
    cost: Cost, thop: tuple[int, int], recipe: Recipe | None, origin: Origin | None
) -> list[Rule]:
    """All rules of the competition for one model.

    Args:
        cost: as counted from the configuration.
        thop: (parameters, MACs at 640×640) as measured by thop on the built network.
        recipe: how it was trained; None if unknown.
        origin: what it was trained on; None if unknown.
    """
    return [
        _size(thop[0], "of the built network"),
        _pretraining(recipe, origin),
        _data(origin),
        _measured(cost, thop),
    ]


def check_foreign(cost: Cost) -> list[Rule]:
    """The same for a graph of another program.

    Args:
        cost: as counted in the graph.
    """
    return [
        _size(cost.params, "in the graph"),
        _pretraining(None, None),
        _data(None),
        Rule(
            rule="size and MACs by thop",
            holds=None,
            evidence="counted in the graph; thop counts torch modules, which the file lacks",
        ),
    ]


def _size(params: int, where: str) -> Rule:
    return Rule(
        rule="at most 45 M parameters",
        holds=params <= MAX_PARAMS,
        evidence=f"{params:,} parameters {where}",
    )


def _pretraining(recipe: Recipe | None, origin: Origin | None) -> Rule:
    def rule(holds: bool | None, evidence: str) -> Rule:
        return Rule(rule="pretrained on ImageNet-1k only", holds=holds, evidence=evidence)

    if recipe is None:
        return rule(None, "weights of another program, without a record of their training")
    if recipe.weights is None:
        return rule(True, "trained from scratch, no pretrained weights")
    if origin is not None and origin.start is not None:
        return rule(*_pretraining_chain(origin.start))
    if recipe.weights == "imagenet":
        return rule(True, "started from torchvision's ImageNet-1k weights of its backbone")
    path = Path(recipe.weights)
    sha256 = origin.weights_sha256 if origin else None
    if sha256 is None and is_file(path):
        sha256 = sha256_of(path)
    shown = sha256[:12] if sha256 else "not recorded"
    name = imagenet_weights(sha256) if sha256 else None
    if name:
        return rule(True, f"started from {name}, sha256 {shown}")
    return rule(
        None,
        f"started from {path.name}, sha256 {shown}, which is not a known ImageNet-1k file",
    )


def _pretraining_chain(start: Start) -> tuple[bool | None, str]:
    """Whether the chain of initializations begins from scratch or with ImageNet-1k weights (None if
    unknown), and its description."""
    text = f"started from {start.source}, sha256 {start.sha256[:12]}"
    if start.from_here:
        text += f" ({start.title}, trained by this program)"
        if start.before is None:
            return True, f"{text}, which started from scratch"
        holds, before = _pretraining_chain(start.before)
        return holds, f"{text}, which {before}"
    name = imagenet_weights(start.sha256)
    if name:
        return True, f"{text}: {name}"
    return None, f"{text}, which is not a known ImageNet-1k file"


def imagenet_weights(sha256: str) -> str | None:
    """The name of the ImageNet-1k weights in the file with this hash; None if it is unknown."""
    if sha256 in IMAGENET_FILES:
        return IMAGENET_FILES[sha256]
    from torchvision.models import get_model_weights

    for name in TORCHVISION_BACKBONES:
        for weights in get_model_weights(name):
            stem = Path(weights.url).stem  # <name>-<first 8 digits of sha256>
            if sha256.startswith(stem.rpartition("-")[2]):
                return f"torchvision's {name} ({weights.name})"
    return None


def _data(origin: Origin | None) -> Rule:
    def rule(holds: bool | None, evidence: str) -> Rule:
        return Rule(
            rule="no data other than the given subset of WIDER FACE", holds=holds, evidence=evidence
        )

    if origin is None:
        return rule(None, "this file does not record what it was trained on")
    if origin.data.path == "synthetic":
        return rule(
            False, f"trained on {origin.images} built-in drawn scenes instead of WIDER FACE"
        )
    inherited = _inherited_data(origin)
    if inherited:
        return rule(None, inherited)
    holdout = "hold-out included" if origin.with_holdout else "hold-out left out"
    fraction = f"share {origin.data.fraction:g}, " if origin.data.fraction < 1 else ""
    evidence = (
        f"trained on {origin.images:,} images of {origin.data.path} ({fraction}{holdout}, "
        f"fingerprint {origin.data_fingerprint}) and nothing else"
    )
    if origin.images > MAX_SHARE * TRAIN_IMAGES:
        return rule(
            False,
            f"{evidence}; that is more than a third of the train images "
            f"({TRAIN_IMAGES // 3:,}): use --fraction 0.333",
        )
    return rule(True, evidence)


def _inherited_data(origin: Origin) -> str | None:
    """Why it is unknown whether the pretrained weights were trained on other face images; None if
    they were trained on the same images, or on no faces."""
    start = origin.start
    while start is not None:
        if start.part == "detector":
            data = start.trained_on
            if data is None:
                return f"started from {start.source}, which does not record its training data"
            if (data["path"], data["data_fingerprint"]) != (
                origin.data.path,
                origin.data_fingerprint,
            ):
                return (
                    f"started from {start.source}, trained on {data['images']:,} images of "
                    f"{data['path']} (fingerprint {data['data_fingerprint']}), which are not "
                    "the images that training continued with"
                )
        start = start.before
    return None


def _measured(cost: Cost, thop: tuple[int, int]) -> Rule:
    from importlib.metadata import version

    params, macs = thop
    agree = (params, macs) == (cost.params, cost.macs)
    evidence = f"thop {version('thop')}: {params:,} parameters, {macs / 1e9:.4f} G MACs at 640×640"
    return Rule(
        rule="size and MACs by thop",
        holds=agree,
        evidence=evidence
        + (
            "; the count from the configuration is the same"
            if agree
            else f", but the count from the configuration is {cost.params:,} and "
            f"{cost.macs / 1e9:.4f} G"
        ),
    )
