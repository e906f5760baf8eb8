"""One optimiser step: mixed precision and gradient accumulation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from detector.architecture.cost import fewest_normalized_cells
from detector.base.errors import UserError
from detector.boxes.anchors import priors
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.loader import Batch
from detector.losses.criterion import Criterion, Normalizers
from detector.training import distributed
from detector.training.teacher import TeacherFile, TeacherNetwork

BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm


class Precision:
    """Mixed precision: autocast for forward passes, and the loss scaling that fp16 needs
    (Micikevicius et al. 2018). A step whose gradients overflow is skipped and halves the scale."""

    def __init__(self, recipe: Recipe, device: torch.device):
        kind = recipe.precision
        if kind == "auto":
            kind = "bf16" if fast_bf16(device) else "fp32"
        self.autocast: AbstractContextManager = torch.autocast(
            device.type, torch.float16 if kind == "fp16" else torch.bfloat16, enabled=kind != "fp32"
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=kind == "fp16")

    @property
    def scale(self) -> Tensor | None:
        """The factor of the loss, on its device; None without loss scaling and before the first
        step."""
        return self.scaler._scale if self.scaler.is_enabled() else None


def fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16; if it does not, autocast is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16") or flags.get("bf16"))


def memory_format(recipe: Recipe) -> torch.memory_format:
    """Channels-last, except in fp32."""
    return torch.contiguous_format if recipe.precision == "fp32" else torch.channels_last


def load_teacher(
    file: TeacherFile | None, student: Detector, recipe: Recipe, device: torch.device
) -> TeacherNetwork | None:
    """The teacher for a training of `student`; None without one. See `TeacherNetwork`."""
    if file is None:
        return None
    return TeacherNetwork(file, student, recipe.distillation, device, memory_format(recipe))


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: Detector,
    recipe: Recipe,
    precision: Precision,
    teacher: TeacherNetwork | None = None,
) -> dict[str, float]:
    """`gradient_step` on a batch from the loader; returns each loss term and `total` as numbers.

    Waits for the device, which `gradient_step` does not.
    """
    device = next(model.parameters()).device
    parts = [part.to(device, memory_format(recipe)) for part in batch.parts(recipe.accumulate)]
    losses = gradient_step(model, optimizer, parts, config, recipe, precision, teacher)
    return dict(zip(losses, torch.stack(list(losses.values())).tolist()))  # one transfer


def gradient_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Batch],
    config: Detector,
    recipe: Recipe,
    precision: Precision,
    teacher: TeacherNetwork | None = None,
) -> dict[str, Tensor]:
    """One step of gradient descent; returns each loss term and `total`, scalars on the device.

    Gradient accumulation: the parts of a batch pass through the network one after the other, and
    each worker takes its shard of the batch. The normalizers of the losses are summed over all
    parts and workers, so losses and gradients equal those of the undivided batch, except that batch
    normalisation sees each part alone. If the normalizers depend on the network's outputs (see
    `Criterion.needs_outputs`), several parts take a second forward pass.

    Never waits for a GPU, and runs the same kernels for all batches with the same numbers of images
    and faces, so that it can be captured as a CUDA graph.

    Args:
        parts: on the model's device (`Batch.to`).
        teacher: whose predictions are learned, too (`DistillationLoss`); its losses are in `total`.
    """
    device = parts[0].images.device
    boxes = priors(config, parts[0].image_size, device)
    criterion = Criterion(recipe.loss)

    def forward(part: Batch) -> dict[str, Tensor]:
        with precision.autocast:
            return model(part.images)

    if len(parts) == 1:
        outputs = forward(parts[0])
        assignments = [criterion.assign(outputs, parts[0].faces, boxes)]
    else:
        with torch.no_grad():
            assignments = [
                criterion.assign(
                    forward(part) if criterion.needs_outputs else None, part.faces, boxes
                )
                for part in parts
            ]
    own = torch.stack([torch.stack(assignment.normalizers) for assignment in assignments]).sum(0)
    normalizers = Normalizers(*distributed.all_reduce_sum(own))
    if teacher is not None:
        with precision.autocast:
            soft_targets = [teacher.targets(part.images, boxes) for part in parts]
        soft_normalizer = distributed.all_reduce_sum(
            torch.stack([targets.normalizer for targets in soft_targets]).sum()
        )

    optimizer.zero_grad(set_to_none=True)
    shares = []
    for index, (part, assignment) in enumerate(zip(parts, assignments)):
        if len(parts) > 1:
            outputs = forward(part)
        losses = criterion(outputs, part.faces, boxes, assignment._replace(normalizers=normalizers))
        if teacher is not None:
            taught = teacher.loss(outputs, boxes, soft_targets[index], soft_normalizer)
            losses |= taught | {"total": losses["total"] + taught["total"]}
        precision.scaler.scale(losses["total"]).backward()
        shares.append(torch.stack([loss.detach() for loss in losses.values()]))
    distributed.all_reduce_gradients(model)
    precision.scaler.unscale_(optimizer)
    if recipe.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    return dict(zip(losses, distributed.all_reduce_sum(torch.stack(shares).sum(0)).unbind()))


def check_normalization(
    config: Detector, recipe: Recipe, batch_size: int, device: torch.device
) -> None:
    """Check that batch normalisation has more than one value of each channel in every part of a
    step; torch computes no variance of one.

    Args:
        batch_size: images of a step of all workers.

    Raises:
        UserError: it has not.
    """
    world_size = distributed.this_worker().world_size
    synchronized = recipe.norm == "sync" and device.type == "cuda" and world_size > 1
    fewest = max(batch_size // world_size // recipe.accumulate, 1)  # images of a part
    if recipe.norm == "frozen" or synchronized or fewest > 1:
        return
    if fewest_normalized_cells(config, (recipe.size, recipe.size)) == 1:
        workers = f", {world_size} workers" * (world_size > 1)
        raise UserError(
            f"size: {recipe.size} with one image at a time (batch_size {batch_size}, accumulate "
            f"{recipe.accumulate}{workers}): batch normalisation needs more than one value of a "
            "channel, but the coarsest map has one cell; use larger crops, or more images at a time"
        )


def set_train_mode(model: nn.Module, recipe: Recipe) -> None:
    """Training mode; frozen batch normalisation stays in evaluation mode."""
    model.train()
    if recipe.norm == "frozen":
        for norm in batchnorms(model):
            norm.eval()


def batchnorms(model: nn.Module) -> list[BatchNorm]:
    """Its layers of batch normalisation."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]
