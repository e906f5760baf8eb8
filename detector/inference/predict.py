"""Images in, detections and average precision out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from detector.boxes.anchors import priors
from detector.boxes.postprocess import Detections, postprocess
from detector.config.detector import Detector
from detector.config.recipe import Evaluation
from detector.data.ahead import in_order
from detector.data.types import ImageSet, UnreadableImage
from detector.export.runtime import Exported
from detector.inference.tta import mirrored, resized, scaled, view_size, vote
from detector.metrics.wider import GroundTruth, height_ground_truth, wider_ap

READERS = min(os.cpu_count() or 1, 8)
"""Threads that read and decode images ahead of a GPU."""

FEW_SIZES = 8
"""Of images in one call, up to which cuDNN's plans pay."""

# Pixels of a batch: small images are worth batching on a CPU, large ones are not.
_BATCH_PIXELS = {"cpu": 2**20, "cuda": 2**24}

NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), None)


def detect(
    model: nn.Module,
    config: Detector,
    images: ImageSet,
    settings: Evaluation,
    device: torch.device | str = "cpu",
    *,
    progress: Callable[[int, int], None] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Detections]:
    """Faces in each image, by its name, in the order of the set.

    Boxes and landmarks are in px of the original image, as it is stored: as annotations are.

    Args:
        model: `build_detector(config)` with its weights, moved to `device`, used in evaluation
            mode, and left in the mode it was in; or a model that `load_exported` made.
        settings: its sizes say in which views each image is looked at; nothing is padded.
        progress: called with the images done and all of them, after each batch.
        unreadable: takes the names of images that cannot be decoded; they get no detections.
    """
    device = torch.device(device)
    found = dict.fromkeys((label.name for label in images.labels), NOTHING)
    training = model.training
    model.to(device).eval()
    done, planned = 0, _plans_pay(images, settings, device)
    try:
        for indices, batch in _batches(
            images,
            settings,
            _BATCH_PIXELS.get(device.type, 2**20),
            READERS if device.type == "cuda" else 0,
            unreadable,
        ):
            with nullcontext() if planned else torch.backends.cudnn.flags(enabled=False):
                detections = detect_views(model, config, batch, settings, device)
            for index, image, own in zip(indices, batch, detections):
                label, (height, width) = images.labels[index], image.shape[:2]
                if label.size[0]:  # a cache may have scaled it down
                    own = scaled(own, (label.size[0] / width, label.size[1] / height))
                found[label.name] = own
            done += len(batch)
            if progress:
                progress(done, len(images))
    finally:
        model.train(training)
    return found


def _plans_pay(images: ImageSet, settings: Evaluation, device: torch.device) -> bool:
    """Whether cuDNN is worth using: it plans each convolution anew for each size of an image, which
    takes longer than all else where images have many sizes."""
    sizes = {view_size(label.size, settings) for label in images.labels}
    known = all(label.size[0] for label in images.labels)
    return device.type != "cuda" or (known and len(sizes) <= FEW_SIZES)


def detect_views(
    model: nn.Module,
    config: Detector,
    images: Sequence[np.ndarray],
    settings: Evaluation,
    device: torch.device | str = "cpu",
) -> list[Detections]:
    """Detections in images, in px of each, from all views that `settings` ask for.

    Args:
        model: on `device`, in evaluation mode; or one that `load_exported` made.
        images: uint8 [H, W, 3], BGR, all of one `view_size`.
    """
    own_size = images[0].shape[1::-1]
    views: list[list[Detections]] = []
    for factor in settings.scales:
        width, height = view_size(own_size, settings, factor)
        batch = np.stack([resized(image, (width, height)) for image in images])
        looks = [detect_batch(model, config, batch, settings, device)]
        if settings.flip:
            # `copy`: a column of 1 px would stay turned around in memory, which torch refuses.
            flipped = detect_batch(model, config, batch[:, :, ::-1].copy(), settings, device)
            looks.append([mirrored(found, width) for found in flipped])
        views += [
            [
                scaled(found, (image.shape[1] / width, image.shape[0] / height))
                for image, found in zip(images, look)
            ]
            for look in looks
        ]
    return views[0] if len(views) == 1 else [vote(own, settings) for own in zip(*views)]


@torch.inference_mode()
def detect_batch(
    model: nn.Module,
    config: Detector,
    images: np.ndarray,
    settings: Evaluation,
    device: torch.device | str = "cpu",
) -> list[Detections]:
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
    return [
        Detections(
            d.boxes.cpu(), d.scores.cpu(), None if d.landmarks is None else d.landmarks.cpu()
        )
        for d in found
    ]


def rows(detections: Detections) -> np.ndarray:
    """float64 [n, 5] x, y, w, h, score, best first, as `coco_ap` takes them."""
    return _rows(detections.boxes.numpy().astype(np.float64), detections)


def wider_rows(detections: Detections) -> np.ndarray:
    """The same as the usual writer of WIDER prediction files has them: corners are truncated to
    whole pixels (towards 0), width and height are their differences."""
    return _rows(np.trunc(detections.boxes.numpy().astype(np.float64)), detections)


def _rows(corners: np.ndarray, detections: Detections) -> np.ndarray:
    return np.concatenate(
        [
            corners[:, :2],
            corners[:, 2:] - corners[:, :2],
            detections.scores.numpy().astype(np.float64)[:, None],
        ],
        axis=1,
    )


def evaluate(
    model: nn.Module,
    config: Detector,
    images: ImageSet,
    settings: Evaluation,
    device: torch.device | str = "cpu",
    truth: GroundTruth | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, float]:
    """easy, medium, hard AP in [0, 1]; arguments as those of `detect`.

    Args:
        truth: which faces count; none: by their height, from the labels of `images`. Official
            lists: `official_ground_truth(folder).only(label.name for label in images.labels)`.
    """
    found = detect(
        model, config, images, settings, device, progress=progress, unreadable=unreadable
    )
    return wider_ap(
        {name: wider_rows(own) for name, own in found.items()},
        height_ground_truth(images.labels) if truth is None else truth,
    )


def _batches(
    images: ImageSet, settings: Evaluation, pixels: int, readers: int, unreadable: list[str] | None
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Neighbours of one view size together: indices, images as they are stored.

    Images of one size come one after the other, so that few are in memory at once.
    """

    def shape(image: np.ndarray) -> tuple[int, int]:
        return view_size(image.shape[1::-1], settings)

    order = sorted(range(len(images)), key=lambda i: view_size(images.labels[i].size, settings))
    indices: list[int] = []
    batch: list[np.ndarray] = []
    for index, image in zip(order, _read(images, order, readers)):
        if image is None:
            if unreadable is not None:
                unreadable.append(images.labels[index].name)
            continue
        width, height = view_size(image.shape[1::-1], settings, max(settings.scales))
        if batch and (
            shape(image) != shape(batch[0]) or (len(batch) + 1) * width * height > pixels
        ):
            yield indices, batch
            indices, batch = [], []
        indices.append(index)
        batch.append(image)
    if batch:
        yield indices, batch


def _read(images: ImageSet, order: Sequence[int], readers: int) -> Iterator[np.ndarray | None]:
    """Images in the given order, None for one that cannot be decoded; by so many threads, which are
    at most two images each ahead, or when they are asked for."""

    def read(index: int) -> np.ndarray | None:
        try:
            return images.image(index)
        except UnreadableImage:
            return None

    return in_order(read, order, readers, ahead=2 * readers)
