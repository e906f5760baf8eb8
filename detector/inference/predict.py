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
from detector.config.detector import Detector, Pixels
from detector.config.recipe import Evaluation
from detector.data.prefetch import prefetch_map
from detector.data.types import ImageSet, UnreadableImage
from detector.export.runtime import Exported
from detector.foreign.graph import ForeignGraph
from detector.inference.tta import (
    Canvases,
    box_voting,
    canvas_size,
    canvases,
    flip_detections,
    input_size,
    pad_images,
    resize_image,
    scale_detections,
)
from detector.metrics.wider import GroundTruth, height_ground_truth, wider_ap
from detector.network.folding import fold_batchnorm

READER_THREADS = min(os.cpu_count() or 1, 8)
"""Threads that read and decode images ahead for a GPU."""

MAX_CUDNN_SIZES = 8
"""With more image sizes in one call, cuDNN is slower than torch's own kernels."""

# Pixels of a batch: on a CPU only small images are worth batching.
_BATCH_PIXELS = {"cpu": 2**20, "cuda": 2**24}

NO_DETECTIONS = Detections(torch.zeros(0, 4), torch.zeros(0), None)


def detect(
    model: nn.Module,
    config: Detector | None,
    images: ImageSet,
    settings: Evaluation,
    device: torch.device | str = "cpu",
    *,
    progress: Callable[[int, int], None] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Detections]:
    """Detects faces; returns the detections of each image by its name, in the order of the set.

    Boxes and landmarks are in px of the original image as stored, like labels.

    Args:
        model: `build_detector(config)` with its weights, moved to `device`, used in evaluation
            mode, and left in the mode it was in; or a model that `load_exported` returned, or
            `load_foreign`.
        config: None for a model of `load_foreign`.
        settings: test size, padding and test-time augmentation.
        progress: called after each batch with the number of images done and of all.
        unreadable: receives the names of images that cannot be decoded; they get no detections.
    """
    device = torch.device(device)
    results = dict.fromkeys((label.name for label in images.labels), NO_DETECTIONS)
    training = model.training
    network = for_detection(model, device)
    done, use_cudnn = 0, _cudnn_pays(images, settings, device)
    try:
        for indices, batch in _batches(
            images,
            settings,
            _BATCH_PIXELS.get(device.type, 2**20),
            READER_THREADS if device.type == "cuda" else 0,
            unreadable,
        ):
            with nullcontext() if use_cudnn else torch.backends.cudnn.flags(enabled=False):
                detections = detect_tta(network, config, batch, settings, device)
            for index, image, own in zip(indices, batch, detections):
                label, (height, width) = images.labels[index], image.shape[:2]
                if label.size[0]:  # a cache may have scaled it down
                    own = scale_detections(own, (label.size[0] / width, label.size[1] / height))
                results[label.name] = own
            done += len(batch)
            if progress:
                progress(done, len(images))
    finally:
        model.train(training)
    return results


def for_detection(model: nn.Module, device: torch.device) -> nn.Module:
    """The network that detects: `model`, moved to the device and in evaluation mode; on a CPU a
    copy without batch normalisation (`fold_batchnorm`)."""
    model = model.to(device).eval()
    return fold_batchnorm(model) if device.type == "cpu" else model


def _cudnn_pays(images: ImageSet, settings: Evaluation, device: torch.device) -> bool:
    """Whether cuDNN is worth using: it plans each convolution again for each image size, which is
    slow if images have many sizes."""
    sizes = {canvas_size(label.size, settings) for label in images.labels}
    known = all(label.size[0] for label in images.labels)
    return device.type != "cuda" or (known and len(sizes) <= MAX_CUDNN_SIZES)


def detect_tta(
    model: nn.Module,
    config: Detector | None,
    images: Sequence[np.ndarray],
    settings: Evaluation,
    device: torch.device | str = "cpu",
) -> list[Detections]:
    """Detections with the test-time augmentation of `settings`, in px of each image.

    Args:
        model, config: as for `detect`, the model on `device` and in evaluation mode.
        images: uint8 [H, W, 3], BGR, all with the same `canvases`.
    """
    sizes, pixels = [image.shape[1::-1] for image in images], _pixels(model, config)
    passes: list[list[Detections]] = []
    for factor, canvas in zip(settings.scales, canvases(sizes[0], settings)):
        inputs = [input_size(size, settings, factor) for size in sizes]
        batch = [
            resize_image(image, size, settings.interpolation) for image, size in zip(images, inputs)
        ]
        padded = pad_images(batch, canvas, pixels)
        of_scale = [detect_batch(model, config, padded, settings, device)]
        if settings.flip:
            padded = pad_images([image[:, ::-1] for image in batch], canvas, pixels)
            flipped = detect_batch(model, config, padded, settings, device)
            of_scale.append(
                [flip_detections(own, width) for own, (width, _) in zip(flipped, inputs)]
            )
        passes += [
            [
                scale_detections(own, (size[0] / width, size[1] / height))
                for own, size, (width, height) in zip(of_pass, sizes, inputs)
            ]
            for of_pass in of_scale
        ]
    return passes[0] if len(passes) == 1 else [box_voting(own, settings) for own in zip(*passes)]


def _pixels(model: nn.Module, config: Detector | None) -> Pixels:
    if isinstance(model, ForeignGraph):
        return model.pixels
    assert config is not None
    return config.pixels


@torch.inference_mode()
def detect_batch(
    model: nn.Module,
    config: Detector | None,
    images: np.ndarray,
    settings: Evaluation,
    device: torch.device | str = "cpu",
) -> list[Detections]:
    """Detections in images of one size, in px of the images, on the CPU.

    Args:
        model, config: as for `detect`, the model on `device` and in evaluation mode.
        images: uint8 [B, H, W, 3], BGR.
    """
    device = torch.device(device)
    # The bytes stay in the order of the images: channels-last.
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    if isinstance(model, Exported | ForeignGraph):
        return model.detections(pixels, settings)
    assert config is not None
    batch = postprocess(model(pixels), priors(config, images.shape[1:3], device), settings)
    return [
        Detections(
            d.boxes.cpu(), d.scores.cpu(), None if d.landmarks is None else d.landmarks.cpu()
        )
        for d in batch
    ]


def coco_rows(detections: Detections) -> np.ndarray:
    """float64 [n, 5]: x, y, w, h, score, highest score first, for `coco_ap`."""
    return _rows(detections.boxes.numpy().astype(np.float64), detections)


def wider_rows(detections: Detections) -> np.ndarray:
    """The same with the rounding of the usual writer of WIDER prediction files: corners are
    truncated to whole pixels (towards 0), width and height are their differences."""
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
    """AP of each level (easy, medium, hard) in [0, 1]; arguments as for `detect`.

    Args:
        truth: the faces that count. None: by their height, from the labels of `images`. Official
            lists: `official_ground_truth(folder).subset(label.name for label in images.labels)`.
    """
    detections = detect(
        model, config, images, settings, device, progress=progress, unreadable=unreadable
    )
    return wider_ap(
        {name: wider_rows(own) for name, own in detections.items()},
        height_ground_truth(images.labels) if truth is None else truth,
    )


def _batches(
    images: ImageSet, settings: Evaluation, pixels: int, threads: int, unreadable: list[str] | None
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Indices and stored images of batches with one canvas and at most `pixels` pixels.

    Images are sorted by their canvas, so that few are in memory at once.
    """
    order = sorted(range(len(images)), key=lambda i: canvases(images.labels[i].size, settings))
    common: Canvases = ()
    indices: list[int] = []
    batch: list[np.ndarray] = []
    for index, image in zip(order, _read(images, order, threads)):
        if image is None:
            if unreadable is not None:
                unreadable.append(images.labels[index].name)
            continue
        own = canvases(image.shape[1::-1], settings)
        largest = max(width * height for width, height in own)
        if batch and (own != common or (len(batch) + 1) * largest > pixels):
            yield indices, batch
            indices, batch = [], []
        common = own
        indices.append(index)
        batch.append(image)
    if batch:
        yield indices, batch


def _read(images: ImageSet, order: Sequence[int], threads: int) -> Iterator[np.ndarray | None]:
    """Images in the given order, None for one that cannot be decoded; each thread reads at most two
    images ahead, without threads none."""

    def read(index: int) -> np.ndarray | None:
        try:
            return images.image(index)
        except UnreadableImage:
            return None

    return prefetch_map(read, order, threads, ahead=2 * threads)
