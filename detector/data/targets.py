"""Targets of a batch: the faces of all its images, in one set of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_BUCKET = 128
"""Least number of faces, padding included."""


@dataclass(frozen=True, eq=False)
class Targets:
    """The faces of a batch of images, image by image. Boxes without area are padding."""

    boxes: Tensor
    """float32 [F, 4] xyxy px."""
    landmarks: Tensor
    """float32 [F, 5, 2] px; NaN where unknown."""
    ignore: Tensor
    """bool [F]: neither positive nor background."""
    image: Tensor
    """int64 [F]: index in the batch of each face's image."""
    images: int
    """Number of images in the batch."""

    @classmethod
    def of(cls, targets: Sequence[Mapping[str, Tensor]] | Targets) -> Targets:
        """From `boxes`, `ignore` and maybe `landmarks` of each image, as in `Batch.targets`."""
        if isinstance(targets, Targets):
            return targets
        boxes = torch.cat([target["boxes"] for target in targets])
        landmarks = (
            torch.cat([target["landmarks"] for target in targets])
            if all("landmarks" in target for target in targets)
            else boxes.new_full((len(boxes), 5, 2), torch.nan)
        )
        counts = torch.tensor([len(target["boxes"]) for target in targets])
        return cls(
            boxes,
            landmarks,
            torch.cat([target["ignore"] for target in targets]),
            torch.arange(len(counts)).repeat_interleave(counts).to(boxes.device),
            len(targets),
        )

    def __getitem__(self, images: slice) -> Targets:
        """The faces of consecutive images; needs start and stop, and tensors on the CPU."""
        start, stop = torch.searchsorted(self.image, torch.tensor([images.start, images.stop]))
        return Targets(
            self.boxes[start:stop],
            self.landmarks[start:stop],
            self.ignore[start:stop],
            self.image[start:stop] - images.start,
            images.stop - images.start,
        )

    def by_image(self) -> list[dict[str, Tensor]]:
        """The inverse of `of`; needs tensors on the CPU."""
        counts = torch.bincount(self.image, minlength=self.images).tolist()
        return [
            {"boxes": boxes, "landmarks": landmarks, "ignore": ignore}
            for boxes, landmarks, ignore in zip(
                self.boxes.split(counts), self.landmarks.split(counts), self.ignore.split(counts)
            )
        ]

    @property
    def exists(self) -> Tensor:
        """bool [F]: a face, not padding: the box has an area."""
        return (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)

    def padded(self) -> Targets:
        """Padded with boxes without area to a power of two of at least SMALLEST_BUCKET, so that few
        lengths F occur: a CUDA graph of the step is captured for each length."""
        padding = bucket(len(self.boxes)) - len(self.boxes)
        return self.map(lambda own: torch.cat((own, own.new_zeros(padding, *own.shape[1:]))))

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.boxes, self.landmarks, self.ignore, self.image

    def map(self, function: Callable[[Tensor], Tensor]) -> Targets:
        """`function` applied to each of the four tensors."""
        return Targets(
            function(self.boxes),
            function(self.landmarks),
            function(self.ignore),
            function(self.image),
            self.images,
        )

    def to(self, device: torch.device) -> Targets:
        return self.map(lambda own: own.to(device, non_blocking=True))

    def pin_memory(self) -> Targets:
        return self.map(lambda own: own.pin_memory())


def bucket(faces: int) -> int:
    """The length to which this number of faces is padded."""
    return max(SMALLEST_BUCKET, 1 << (faces - 1).bit_length())
