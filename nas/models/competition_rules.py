"""The competition's rules, each with its evidence. Light to import.

Rules: at most 45 M parameters; no pretraining but on ImageNet-1k; no data but the given subset
(about a third of WIDER FACE's train); size and MACs by thop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
"""Of the training images; the subset is "about a third"."""
IMAGENET_FILES = {  # sha256: whose weights, trained on ImageNet-1k alone
    MOBILENET_V1_SHA256: f"MobileNetV1 ×0.25 of RetinaFace ({MOBILENET_V1_FILE})",
}


@dataclass(frozen=True, kw_only=True)
class Rule(Struct):
    rule: str
    holds: bool | None
    """None where it cannot be known from what is recorded."""
    evidence: str


def check_rules(
    cost: Cost, thop: tuple[int, int], recipe: Recipe | None, origin: Origin | None
) -> list[Rule]:
    """Each rule of the competition for one model.

    Args:
        cost: of the configuration.
        thop: (parameters, MACs at 640×640) measured on the built network.
        recipe: how it was trained; none: not known.
        origin: what it was trained on; none: not known.
    """
    return [_size(thop), _pretraining(recipe, origin), _data(origin), _measured(cost, thop)]


def _size(thop: tuple[int, int]) -> Rule:
    return Rule(
        rule="at most 45 M parameters",
        holds=thop[0] <= MAX_PARAMS,
        evidence=f"{thop[0]:,} parameters of the built network",
    )


def _pretraining(recipe: Recipe | None, origin: Origin | None) -> Rule:
    def answer(holds: bool | None, evidence: str) -> Rule:
        return Rule(rule="pretrained on ImageNet-1k only", holds=holds, evidence=evidence)

    if recipe is None:
        return answer(None, "weights of another program; how they were trained is not recorded")
    if recipe.weights is None:
        return answer(True, "trained from scratch, no pretrained weights")
    if origin is not None and origin.start is not None:
        return answer(*_chain(origin.start))
    if recipe.weights == "imagenet":
        return answer(True, "started from torchvision's ImageNet-1k weights of its backbone")
    path = Path(recipe.weights)
    sha256 = origin.weights_sha256 if origin else None
    if sha256 is None and path.is_file():
        sha256 = sha256_of(path)
    shown = sha256[:12] if sha256 else "not recorded"
    known = imagenet_weights(sha256) if sha256 else None
    if known:
        return answer(True, f"started from {known}, sha256 {shown}")
    return answer(
        None,
        f"started from {path.name}, sha256 {shown}, which is none of the "
        "ImageNet-1k files known here",
    )


def _chain(start: Start) -> tuple[bool | None, str]:
    """Whether a start leads back to chance or to ImageNet-1k alone, and the way there."""
    told = f"started from {start.source}, sha256 {start.sha256[:12]}"
    if start.from_here:
        told += f" ({start.title}, trained by this program)"
        if start.before is None:
            return True, f"{told}, which started from scratch"
        holds, before = _chain(start.before)
        return holds, f"{told}, which {before}"
    known = imagenet_weights(start.sha256)
    if known:
        return True, f"{told}: {known}"
    return None, f"{told}, which is none of the ImageNet-1k files known here"


def imagenet_weights(sha256: str) -> str | None:
    """Whose ImageNet-1k weights the file with this hash holds; none: not known here."""
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
    def answer(holds: bool | None, evidence: str) -> Rule:
        return Rule(
            rule="no data but the given subset of WIDER FACE", holds=holds, evidence=evidence
        )

    if origin is None:
        return answer(None, "what it was trained on is not recorded in this file")
    if origin.data.path == "synthetic":
        return answer(False, f"trained on {origin.images} built-in drawn scenes, not on WIDER FACE")
    inherited = _inherited_data(origin)
    if inherited:
        return answer(None, inherited)
    holdout = "hold-out included" if origin.with_holdout else "hold-out left out"
    fraction = f"share {origin.data.fraction:g}, " if origin.data.fraction < 1 else ""
    evidence = (
        f"trained on {origin.images:,} images of {origin.data.path} ({fraction}{holdout}, "
        f"fingerprint {origin.data_fingerprint}) and nothing else"
    )
    if origin.images > MAX_SHARE * TRAIN_IMAGES:
        return answer(
            False,
            f"{evidence}; that is more than a third of train "
            f"({TRAIN_IMAGES // 3:,}): use --fraction 0.333",
        )
    return answer(True, evidence)


def _inherited_data(origin: Origin) -> str | None:
    """What a start that was itself trained on faces leaves open; none where it saw the same
    images, or no faces."""
    start = origin.start
    while start is not None:
        if start.part == "detector":
            seen = start.trained_on
            if seen is None:
                return f"started from {start.source}; what that was trained on is not recorded"
            if (seen["path"], seen["data_fingerprint"]) != (
                origin.data.path,
                origin.data_fingerprint,
            ):
                return (
                    f"started from {start.source}, trained on {seen['images']:,} images of "
                    f"{seen['path']} (fingerprint {seen['data_fingerprint']}), others than "
                    "those it went on with"
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
            "; the configuration's own count is the same"
            if agree
            else f", but the configuration's own count is {cost.params:,} and "
            f"{cost.macs / 1e9:.4f} G"
        ),
    )
