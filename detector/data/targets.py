"""What a batch has to learn: the faces of all its images, in one piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_BUCKET = 128


@dataclass(frozen=True, eq=False)
class Targets:
    """The faces of a batch of images, image by image. Boxes without area do not exist."""

    boxes: Tensor
    """float32 [F, 4] xyxy px."""
    landmarks: Tensor
    """float32 [F, 5, 2] px; NaN where unknown."""
    ignore: Tensor
    """bool [F]: neither learnt nor background."""
    image: Tensor
    """int64 [F]: the image of the batch that each face is in."""
    images: int
    """Images of the batch."""

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
        """The faces of some neighbouring images (start and stop given), on the CPU alone."""
        start, stop = torch.searchsorted(self.image, torch.tensor([images.start, images.stop]))
        return Targets(
            self.boxes[start:stop],
            self.landmarks[start:stop],
            self.ignore[start:stop],
            self.image[start:stop] - images.start,
            images.stop - images.start,
        )

    def rows(self, kept: Tensor) -> Targets:
        """Those of the faces for which `kept` (bool [F]) is true."""
        return Targets(*(own[kept] for own in self.tensors), self.images)

    def by_image(self) -> list[dict[str, Tensor]]:
        """As `of` takes them; on the CPU alone."""
        counts = torch.bincount(self.image, minlength=self.images).tolist()
        return [
            {"boxes": boxes, "landmarks": landmarks, "ignore": ignore}
            for boxes, landmarks, ignore in zip(
                self.boxes.split(counts), self.landmarks.split(counts), self.ignore.split(counts)
            )
        ]

    @property
    def exists(self) -> Tensor:
        """bool [F]: the box has an area."""
        return (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)

    def padded(self) -> Targets:
        """The same and faces that do not exist, so many that few lengths F occur: powers of two
        from SMALLEST_BUCKET on. A graph of the step is captured for each length."""
        more = bucket(len(self.boxes)) - len(self.boxes)
        return Targets(
            *(torch.cat((own, own.new_zeros(more, *own.shape[1:]))) for own in self.tensors),
            self.images,
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.boxes, self.landmarks, self.ignore, self.image

    def to(self, device: torch.device) -> Targets:
        return Targets(*(own.to(device, non_blocking=True) for own in self.tensors), self.images)

    def pin_memory(self) -> Targets:
        return Targets(*(own.pin_memory() for own in self.tensors), self.images)


def bucket(faces: int) -> int:
    """The length to which so many faces are padded."""
    return max(SMALLEST_BUCKET, 1 << (faces - 1).bit_length())
