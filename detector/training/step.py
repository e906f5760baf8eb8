"""One step of gradient descent: its precision, its parts, and what normalisation remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from detector.boxes.anchors import priors
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.loader import Batch
from detector.losses.detection import (
    Counts,
    assign,
    by_predictions,
    count,
    detection_losses,
    total_loss,
)
from detector.training import distributed

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Precision:
    """What forward passes compute in, and the loss scaling that fp16 needs (Micikevicius et al.
    2018): a step whose gradients overflow is left out and halves the scale."""

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
        """The factor of the loss, on its device; none where losses are not scaled, or before the
        first step."""
        return self.scaler._scale if self.scaler.is_enabled() else None


def fast_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 by hardware; without, autocast is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16") or flags.get("bf16"))


def layout(recipe: Recipe) -> torch.memory_format:
    return torch.contiguous_format if recipe.precision == "fp32" else torch.channels_last


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: Detector,
    recipe: Recipe,
    precision: Precision,
) -> dict[str, float]:
    """One step of gradient descent on a batch as the loader gives it; returns each loss term and
    `total`. Waits for the device: `gradient_step` does not."""
    device = next(model.parameters()).device
    parts = [part.to(device, layout(recipe)) for part in batch.parts(recipe.accumulate)]
    losses = gradient_step(model, optimizer, parts, config, recipe, precision)
    return dict(zip(losses, torch.stack(list(losses.values())).tolist()))  # one transfer


def gradient_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Batch],
    config: Detector,
    recipe: Recipe,
    precision: Precision,
) -> dict[str, Tensor]:
    """One step of gradient descent; returns each loss term and `total`, scalars on the device.

    The parts of a batch go through the network one after the other, and with several workers each
    has its share of it. What a loss is divided by is counted over all parts of all workers, so
    losses and gradients are those of the batch in one piece, unless normalisation takes the
    statistics of each part. Where the counts hang on what the network predicts (see
    `losses.by_predictions`), more parts than one take a second forward pass.

    Never waits for a GPU, and does the same for every batch of as many images and faces, so that it
    can be captured as a graph.

    Args:
        parts: on the model's device (`Batch.to`).
    """
    device = parts[0].images.device
    boxes = priors(config, parts[0].images.shape[2:], device)

    def forward(part: Batch) -> dict[str, Tensor]:
        with precision.autocast:
            return model(part.images)

    def normalizers(part: Batch, outputs: Mapping[str, Tensor] | None) -> tuple:
        matches = assign(outputs, part.faces, boxes, recipe.loss)
        return matches, count(outputs, part.faces, matches, recipe.loss)

    if len(parts) == 1:
        outputs = forward(parts[0])
        known = [normalizers(parts[0], outputs)]
    else:
        with torch.no_grad():
            known = [
                normalizers(part, forward(part) if by_predictions(recipe.loss) else None)
                for part in parts
            ]
    counts = Counts(
        *distributed.total(
            torch.stack([torch.stack([n.float() for n in own]) for _, own in known]).sum(0)
        )
    )

    optimizer.zero_grad(set_to_none=True)
    shares = []
    for part, (matches, _) in zip(parts, known):
        losses = detection_losses(
            outputs if len(parts) == 1 else forward(part),
            part.faces,
            boxes,
            recipe.loss,
            matches,
            counts,
        )
        losses["total"] = total_loss(losses, recipe.loss)
        precision.scaler.scale(losses["total"]).backward()
        shares.append(torch.stack([loss.detach() for loss in losses.values()]))
    distributed.add_gradients(model)
    precision.scaler.unscale_(optimizer)
    if recipe.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    return dict(zip(losses, distributed.total(torch.stack(shares).sum(0)).unbind()))


def to_train(model: nn.Module, recipe: Recipe) -> None:
    """Training mode; frozen normalisation stays as in evaluation."""
    model.train()
    if recipe.norm == "frozen":
        for norm in _norms(model):
            norm.eval()


@torch.no_grad()
def settle_norms(
    model: nn.Module, images: Iterable[Tensor], recipe: Recipe, precision: Precision
) -> None:
    """Batch normalisation's running statistics, taken anew from the weights as they are.

    Running averages trail the weights by some tens of steps, more than an epoch of a proxy, and
    would make its early evaluations measure that lag. Training itself never reads them. Several
    workers take the mean of theirs; frozen normalisation keeps what it has.

    Args:
        images: batches [B, 3, H, W] to take them from.
    """
    if recipe.norm == "frozen":
        return
    norms = _norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    model.train()
    device = next(model.parameters()).device
    for number, batch in enumerate(images, 1):
        for norm in norms:
            # The plain mean over the batches; torch's own (momentum None) asks the GPU for a count.
            norm.momentum = 1 / number
        with precision.autocast:
            model(batch.to(device, memory_format=layout(recipe)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    workers = distributed.place().workers
    if workers > 1:
        for norm in norms:
            for statistics in (norm.running_mean, norm.running_var):
                distributed.total(statistics).div_(workers)


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, NORMS)]
