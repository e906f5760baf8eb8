"""The competition's rules, each with its evidence. No heavy imports (torch, Ray, MLflow).

Rules: at most 45 M parameters; pretraining on ImageNet-1k only; no other training data than the
given subset (about a third of WIDER FACE's train); size and MACs measured by thop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detector.base.files import is_file, sha256_of
from detector.base.struct import Struct
from detector.config.recipe import Recipe
from detector.data.types import WIDER
from detector.weights.pretrained import (
    MOBILENET_V1_FILE,
    MOBILENET_V1_SHA256,
    TORCHVISION_BACKBONES,
    Start,
    Teacher,
)
from trials.record import Cost
from trials.stored import Origin

MAX_PARAMS = 45_000_000
TRAIN_IMAGES = 12_880
MAX_SHARE = 0.35
"""Largest share of the training images that still counts as "about a third"."""
IMAGENET_FILES = {  # sha256 → weights that were trained on ImageNet-1k only
    MOBILENET_V1_SHA256: f"MobileNetV1 ×0.25 of RetinaFace ({MOBILENET_V1_FILE})",
}


Verdict = tuple[bool | None, str]
"""Whether a rule holds (None: unknown), and the evidence."""


@dataclass(frozen=True, kw_only=True)
class Rule(Struct):
    """A rule, and whether a model complies with it."""

    rule: str
    holds: bool | None
    """None if the recorded facts do not decide it."""
    evidence: str


def broken_rules(rules: Iterable[Rule]) -> list[str]:
    """The rules that do not hold, or are unknown, in words."""
    answers = {False: "does not hold", None: "is unknown"}
    return [f"{rule.rule} {answers[rule.holds]}" for rule in rules if rule.holds is not True]


def check_rules(
    cost: Cost, thop: tuple[int, int], recipe: Recipe | None, origin: Origin | None
) -> list[Rule]:
    """All rules of the competition for one model.

    Args:
        cost: as counted from the configuration.
        thop: parameters of the built network, and its MACs at 640×640 as thop measures them.
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
        return rule(None, "the file has no record of how its weights were trained")
    own = _own_pretraining(recipe, origin)
    if origin is None or origin.teacher is None:
        return rule(*own)
    return rule(*_both(own, _teacher_pretraining(origin.teacher)))


def _own_pretraining(recipe: Recipe, origin: Origin | None) -> Verdict:
    """Of the model itself, whoever taught it."""
    if recipe.weights is None:
        return True, "trained from scratch, no pretrained weights"
    if origin is not None and origin.start is not None:
        return _pretraining_chain(origin.start)
    if recipe.weights == "imagenet":
        return True, "started from torchvision's ImageNet-1k weights of its backbone"
    path = Path(recipe.weights)
    sha256 = origin.weights_sha256 if origin else None
    if sha256 is None and is_file(path):
        sha256 = sha256_of(path)
    shown = sha256[:12] if sha256 else "not recorded"
    name = imagenet_weights(sha256) if sha256 else None
    if name:
        return True, f"started from {name}, sha256 {shown}"
    return None, f"started from {path.name}, sha256 {shown}, which is not a known ImageNet-1k file"


def _pretraining_chain(start: Start) -> Verdict:
    """Whether the chain of initializations begins from scratch or with ImageNet-1k weights."""
    text = f"started from {start.source}, sha256 {start.sha256[:12]}"
    if start.from_here:
        text += f" ({start.title}, trained by this program)"
        holds, before = _pretraining_before(start)
        return holds, f"{text}, which {before}"
    name = imagenet_weights(start.sha256)
    if name:
        return True, f"{text}: {name}"
    return None, f"{text}, which is not a known ImageNet-1k file"


def _pretraining_before(start: Start) -> Verdict:
    """Of weights that this program trained: what came before, and what taught them."""
    own: Verdict = (True, "started from scratch")
    if start.before is not None:
        own = _pretraining_chain(start.before)
    if start.teacher is None:
        return own
    return _both(own, _teacher_pretraining(start.teacher), " and was ")


def _teacher_pretraining(teacher: Teacher) -> Verdict:
    text, weights = _taught_by(teacher), teacher.weights
    if not weights.from_here:
        return None, f"{text}, whose pretraining is not recorded"
    holds, before = _pretraining_before(weights)
    return holds, f"{text}, which {before}"


def _taught_by(teacher: Teacher) -> str:
    """The teacher with its size."""
    weights = teacher.weights
    return (
        f"taught by {weights.source}, sha256 {weights.sha256[:12]} ({weights.title}, "
        f"{teacher.params:,} parameters, {teacher.macs / 1e9:.4f} G MACs)"
    )


def _both(first: Verdict, second: Verdict, joint: str = "; ") -> Verdict:
    """A rule that two verdicts decide: broken if one of them is, else unknown if one of them is."""
    found = (first[0], second[0])
    holds = False if False in found else None if None in found else True
    return holds, f"{first[1]}{joint}{second[1]}"


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
    own = _own_data(origin)
    if origin.teacher is None:
        return rule(*own)
    return rule(*_both(own, _teacher_data(origin.teacher, origin)))


def _own_data(origin: Origin) -> Verdict:
    """Of the model itself, whoever taught it."""
    inherited = _inherited_data(origin.start, origin)
    if inherited[0] is not True:
        return inherited
    holdout = "hold-out included" if origin.with_holdout else "hold-out left out"
    fraction = f"share {origin.data.fraction:g}, " if origin.data.fraction < 1 else ""
    evidence = (
        f"trained on {origin.images:,} images of {origin.data.path} ({fraction}{holdout}, "
        f"fingerprint {origin.data_fingerprint}) and nothing else"
    )
    if origin.data_name != WIDER:
        return None, f"{evidence}; the images do not have WIDER FACE's names"
    if origin.images > MAX_SHARE * TRAIN_IMAGES:
        return False, (
            f"{evidence}; that is more than a third of the train images "
            f"({TRAIN_IMAGES // 3:,}): use --fraction 0.333"
        )
    return True, evidence


def _inherited_data(start: Start | None, origin: Origin) -> Verdict:
    """Whether pretrained weights saw no face images but those of `origin`, also by those that
    taught them."""
    while start is not None:
        if start.part == "detector":
            data = start.trained_on
            if data is None:
                return None, f"started from {start.source}, which does not record its training data"
            if (data["path"], data["data_fingerprint"]) != (
                origin.data.path,
                origin.data_fingerprint,
            ):
                return None, (
                    f"started from {start.source}, trained on {_images_of(data)}, which are not "
                    "the images that training continued with"
                )
        if start.teacher is not None:
            taught = _teacher_data(start.teacher, origin)
            if taught[0] is not True:
                return taught[0], f"started from {start.source}, {taught[1]}"
        start = start.before
    return True, ""


def _teacher_data(teacher: Teacher, origin: Origin) -> Verdict:
    """Whether a teacher saw no face images but those that `origin` trained on."""
    text, weights = _taught_by(teacher), teacher.weights
    data = weights.trained_on
    if data is None:
        return None, f"{text}, which does not record its training data"
    if not _same_subset(data, origin):
        return False, f"{text}, trained on {_images_of(data)}, which are other images"
    holds, why = _inherited_data(weights.before, origin)
    if holds is True and weights.teacher is not None:
        holds, why = _teacher_data(weights.teacher, origin)
    return holds, f"{text}, trained on images of the same subset" + (f"; {why}" if why else "")


def _same_subset(data: dict, origin: Origin) -> bool:
    """Whether `Start.trained_on` describes the images of `origin`; the hold-out may differ."""
    if data["data_fingerprint"] == origin.data_fingerprint:
        return True
    ours = origin.data
    same = (data["path"], data.get("fraction"), data.get("seed")) == (
        ours.path,
        ours.fraction,
        ours.seed,
    )
    return same and data.get("holdout") != ours.holdout


def _images_of(data: dict) -> str:
    """The images that `Start.trained_on` describes."""
    return f"{data['images']:,} images of {data['path']} (fingerprint {data['data_fingerprint']})"


def _measured(cost: Cost, thop: tuple[int, int]) -> Rule:
    from importlib.metadata import version

    params, macs = thop
    agree = (params, macs) == (cost.params, cost.macs)
    # thop adds up no parameters of modules that it has no rule for, such as GroupNorm.
    evidence = (
        f"thop {version('thop')}: {macs / 1e9:.4f} G MACs at 640×640; {params:,} parameters in the "
        "built network"
    )
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
