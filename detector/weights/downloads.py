"""Published ImageNet-1k weights as files in torch's download folder."""

from __future__ import annotations

from pathlib import Path

import torch

from detector.base.errors import UserError
from detector.base.files import sha256_of
from detector.config.detector import Detector
from detector.weights import pretrained
from detector.weights.pretrained import IMAGENET


def imagenet_file(config: Detector) -> Path:
    """The file of ImageNet-1k weights nearest to a design's backbone, in torch's download folder;
    missing files of torchvision are downloaded.

    Raises:
        UserError: there are none for this kind of backbone, or the file is damaged or cannot be
            downloaded.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if config.backbone.kind == "mobilenet_v1":
        path, sha256 = folder / pretrained.MOBILENET_V1_FILE, pretrained.MOBILENET_V1_SHA256
        if not path.is_file():
            raise UserError(
                f"weights: torchvision has no {IMAGENET} weights of mobilenet_v1; "
                f"put {path.name} of the RetinaFace repositories into {folder}, or "
                "give its path"
            )
        return _checked(path, sha256)
    name = pretrained.torchvision_name(config)
    if name is None:
        raise UserError(
            f"weights: {IMAGENET} has none for backbone.kind {config.backbone.kind}, "
            f"only for {', '.join(pretrained.IMAGENET_KINDS)}; give a file, or train from scratch"
        )
    import torchvision  # takes seconds

    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = folder / Path(url).name
    prefix = path.stem.rpartition("-")[2]  # <name>-<first 8 digits of sha256>
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except (OSError, RuntimeError) as error:  # URLError is an OSError, a wrong hash the other
            raise UserError(
                f"weights: {IMAGENET} of {name} could not be downloaded ({error}); "
                f"download {url} elsewhere and put it into {folder}"
            ) from error
    return _checked(path, prefix)


def _checked(path: Path, prefix: str) -> Path:
    if not sha256_of(path).startswith(prefix):
        raise UserError(
            f"{path}: is damaged, its sha256 does not begin with {prefix[:8]}; remove "
            "it and download it again"
        )
    return path
