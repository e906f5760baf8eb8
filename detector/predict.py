"""Images in, detections and average precision out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from detector.anchors import priors
from detector.config import Detector
from detector.data.cache import limit
from detector.data.types import ImageSet, UnreadableImage
from detector.exported import Exported
from detector.metrics.wider import GroundTruth, height_ground_truth, wider_ap
from detector.postprocess import Detections, postprocess
from detector.recipe import Evaluation

# Pixels of a batch: small images are worth batching on a CPU, large ones are not.
_BATCH_PIXELS = {"cpu": 2**20, "cuda": 2**24}


def detect(model: nn.Module, config: Detector, images: ImageSet, settings: Evaluation,
           device: torch.device | str = "cpu", *,
           progress: Callable[[int, int], None] | None = None,
           unreadable: list[str] | None = None) -> dict[str, np.ndarray]:
    """Faces in each image, as the rows of a WIDER prediction file.

    Args:
        model: `build_detector(config)` with its weights, moved to `device`, used in evaluation
            mode, and left in the mode it was in; or a model that `load_exported` made.
        settings: `size` limits the long side of what the network sees; nothing is scaled up or
            padded.
        progress: called with the images done and all of them, after each batch.
        unreadable: takes the names of images that cannot be decoded; they get no detections.

    Returns:
        image's name → float64 [n, 5]: x, y, w, h in whole pixels of the original image (see
        `wider_rows`) and score, best first; n may be 0. In the order of the set.
    """
    device = torch.device(device)
    found = {label.name: np.zeros((0, 5)) for label in images.labels}
    training = model.training
    model.to(device).eval()
    done = 0
    try:
        for indices, batch in _batches(images, settings.size, _BATCH_PIXELS.get(device.type, 2**20),
                                       unreadable):
            height, width = batch[0].shape[:2]
            detections = detect_batch(model, config, np.stack(batch), settings, device)
            for index, (own_width, own_height), result in zip(*indices, detections):
                found[images.labels[index].name] = wider_rows(
                    result, (own_width / width, own_height / height))
            done += len(batch)
            if progress:
                progress(done, len(images))
    finally:
        model.train(training)
    return found


@torch.inference_mode()
def detect_batch(model: nn.Module, config: Detector, images: np.ndarray, settings: Evaluation,
                 device: torch.device | str = "cpu") -> list[Detections]:
    """Detections in images of one size, in pixels of these, on the CPU.

    Args:
        model: on `device`, in evaluation mode; or one that `load_exported` made.
        images: uint8 [B, H, W, 3], BGR.
    """
    device = torch.device(device)
    # Of the order of bytes of the images themselves: channels last.
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    if isinstance(model, Exported):
        return model.detections(pixels, settings)
    found = postprocess(model(pixels), priors(config, images.shape[1:3], device), settings)
    return [Detections(d.boxes.cpu(), d.scores.cpu(),
                       None if d.landmarks is None else d.landmarks.cpu()) for d in found]


def wider_rows(detections: Detections, scale: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """float64 [n, 5] x, y, w, h, score, as the usual writer of WIDER prediction files has them.

    Corners are truncated to whole pixels (towards 0), width and height are their differences.

    Args:
        scale: original pixels for each pixel of the detections, along x and y.
    """
    corners = np.trunc(detections.boxes.numpy().astype(np.float64) * np.array(scale * 2))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2],
                           detections.scores.numpy().astype(np.float64)[:, None]], axis=1)


def evaluate(model: nn.Module, config: Detector, images: ImageSet, settings: Evaluation,
             device: torch.device | str = "cpu", truth: GroundTruth | None = None, *,
             progress: Callable[[int, int], None] | None = None,
             unreadable: list[str] | None = None) -> dict[str, float]:
    """easy, medium, hard AP in [0, 1]; arguments as those of `detect`.

    Args:
        truth: which faces count; none: by their height, from the labels of `images`. Official
            lists: `official_ground_truth(folder).only(label.name for label in images.labels)`.
    """
    found = detect(model, config, images, settings, device, progress=progress,
                   unreadable=unreadable)
    return wider_ap(found, height_ground_truth(images.labels) if truth is None else truth)


_Indices = tuple[Sequence[int], Sequence[tuple[int, int]]]


def _batches(images: ImageSet, size: int | None, pixels: int, unreadable: list[str] | None,
             ) -> Iterator[tuple[_Indices, list[np.ndarray]]]:
    """Neighbours of one shape together: (indices, original (width, height)), images to detect in.

    Images of one size come one after the other, so that few are in memory at once.
    """
    def shape(index: int) -> tuple[int, int]:
        width, height = images.labels[index].size
        scale = min(1.0, size / max(width, height, 1)) if size else 1.0
        return round(width * scale), round(height * scale)

    indices, sizes, batch = [], [], []
    for index in sorted(range(len(images)), key=shape):
        label = images.labels[index]
        try:
            original = images.image(index)
        except UnreadableImage:
            if unreadable is not None:
                unreadable.append(label.name)
            continue
        image = limit(original, size)
        if batch and (image.shape != batch[0].shape
                      or (len(batch) + 1) * image.shape[0] * image.shape[1] > pixels):
            yield (indices, sizes), batch
            indices, sizes, batch = [], [], []
        indices.append(index)
        sizes.append(label.size if label.size[0] else (original.shape[1], original.shape[0]))
        batch.append(image)
    if batch:
        yield (indices, sizes), batch
