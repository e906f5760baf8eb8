"""The one training loop: a generator of epochs, for proxy trials and full runs alike."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detector import checkpoint
from detector.anchors import priors
from detector.config import Detector, arch_hash
from detector.data.loader import Batch, batches
from detector.data.types import ImageSet
from detector.errors import TrainingError, UserError
from detector.losses import detection_losses, total_loss
from detector.model import build_detector
from detector.optim import lr_at, make_optimizer, set_lr
from detector.recipe import Recipe

LAST = "last.pt"
NORM_IMAGES = 96  # at least so many of an epoch's last ones give the statistics of normalisation

Progress = Callable[[int, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of training, as it is told to the caller."""

    epoch: int
    """1 after the first epoch."""
    losses: dict[str, float]
    """Mean over the epoch of each loss term, and of `total`, their weighted sum."""
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Training and evaluation."""
    ap: dict[str, float] | None
    """easy, medium, hard AP in [0, 1] on the hold-out, where the epoch was evaluated."""
    images: int
    """Training images seen in the epoch."""


def fit(config: Detector, recipe: Recipe, train: ImageSet, holdout: ImageSet | None, *,
        workdir: Path, device: str = "auto", until: int | None = None,
        evaluate_at: Collection[int] = (), told: int | None = None,
        workers: int | None = None, init: str | None = None,
        progress: Progress | None = None) -> Iterator[Epoch]:
    """Trains a detector and yields each epoch once its checkpoint is on disk.

    Goes on from `workdir`/last.pt where there is one, exactly as if it had never stopped; on a
    CPU two runs with the same number of threads are equal bit for bit. `detector.checkpoint.load`
    reads last.pt; last.json beside it is readable.

    Args:
        train: images to learn from, best a cache.
        holdout: images for AP; none: no evaluation.
        device: auto (a GPU where there is one), cpu or cuda.
        until: the last epoch of this call, evaluated too; none: the recipe's last.
        evaluate_at: epochs evaluated beside those that the recipe asks for.
        told: epochs that the caller has heard of; those that last.pt has beyond are told first (the
            caller was killed between a checkpoint and its report). None: all of them.
        init: weights to start from, in place of the recipe's; as for `detector.start`.
        workers: threads that prepare batches; none: 0 on a CPU, up to 8 beside a GPU.
        progress: called after each step with epoch, step, steps of the epoch, and the step's
            losses with `total`.

    Raises:
        UserError: no GPU for `cuda`, no training images, weights or a last.pt of another design
            or recipe, a full disk.
        TrainingError: a loss that is not finite; last.pt stays at the epoch before.
    """
    chosen = choose_device(device)
    if not len(train):
        raise UserError(f"{train.name}: no training images; choose other data or hold out fewer")
    if workers is None:
        workers = min(os.cpu_count() or 1, 8) if chosen.type == "cuda" else 0
    path = Path(workdir) / LAST
    model, optimizer, history, start = _start(config, recipe, path, chosen, init)
    autocast = precision(recipe, chosen)
    last = min(recipe.epochs, until or recipe.epochs)

    if told is not None:
        yield from (Epoch(**entry) for entry in history[told:last])
    for epoch in range(len(history) + 1, last + 1):
        started = time.perf_counter()
        model.train()
        steps = max(len(train) // recipe.batch_size, 1)
        sums: dict[str, float] = {}
        images = 0
        recent = deque(maxlen=-(-NORM_IMAGES // recipe.batch_size))
        for step, batch in enumerate(batches(train, recipe, epoch=epoch, seed=recipe.seed,
                                             workers=workers)):
            lr = lr_at((epoch - 1) * steps + step, steps, recipe)
            set_lr(optimizer, lr)
            losses = train_step(model, optimizer, batch, config, recipe, autocast)
            if not all(map(math.isfinite, losses.values())):
                raise TrainingError(f"loss not finite at epoch {epoch}, step {step + 1} of {steps} "
                                    f"({_shown(losses)}); a lower learning rate than {lr:g} or "
                                    "optimizer.clip_norm may help")
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            images += len(batch.images)
            recent.append(batch.images)
            if progress:
                progress(epoch, step + 1, steps, losses)
        every = recipe.evaluation.every
        ap = None
        if epoch == last or epoch in evaluate_at or (every and epoch % every == 0):
            settle_norms(model, recent, recipe, autocast)
            if holdout is not None:
                ap = _evaluate(model, config, recipe, holdout, chosen, autocast)
        result = Epoch(epoch=epoch, losses={name: total / steps for name, total in sums.items()},
                       lr=lr, seconds=time.perf_counter() - started, ap=ap, images=images)
        history.append(asdict(result))
        # All there is to resume from: order and augmentation are functions of seed and epoch.
        checkpoint.save(path, model, config, recipe, metadata=history[-1],
                        state={"optimizer": optimizer.state_dict(), "history": history,
                               "start": start})
        yield result


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, config: Detector,
               recipe: Recipe, autocast: AbstractContextManager) -> dict[str, float]:
    """One step of gradient descent; returns each loss term and `total`."""
    device = next(model.parameters()).device
    images = batch.images.to(device, non_blocking=True, memory_format=layout(recipe))
    targets = [{key: value.to(device, non_blocking=True) for key, value in target.items()}
               for target in batch.targets]
    with autocast:
        outputs = model(images)
    losses = detection_losses(outputs, targets, priors(config, images.shape[2:], device),
                              recipe.loss)
    losses["total"] = total_loss(losses, recipe.loss)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    if recipe.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
    optimizer.step()
    values = torch.stack([loss.detach() for loss in losses.values()]).tolist()  # one transfer
    return dict(zip(losses, values))


@torch.no_grad()
def settle_norms(model: nn.Module, images: Iterable[Tensor], recipe: Recipe,
                 autocast: AbstractContextManager) -> None:
    """Batch normalisation's running statistics, taken anew from the weights as they are.

    Running averages trail the weights by some tens of steps, more than an epoch of a proxy, and
    would make its early evaluations measure that lag. Training itself never reads them.

    Args:
        images: batches [B, 3, H, W] to take them from.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    model.train()
    device = next(model.parameters()).device
    for batch in images:
        with autocast:
            model(batch.to(device, memory_format=layout(recipe)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def choose_device(name: str) -> torch.device:
    """The device that auto, cpu or cuda means here."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: {name!r} is not one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda asked for, but torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def fast_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 by hardware; without, autocast is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16") or flags.get("bf16"))


def layout(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.autocast else torch.contiguous_format


def precision(recipe: Recipe, device: torch.device) -> AbstractContextManager:
    """bf16 autocast where the recipe wants it and the device is faster with it, else fp32."""
    return torch.autocast(device.type, torch.bfloat16,
                          enabled=recipe.autocast and fast_bf16(device))


def _start(config: Detector, recipe: Recipe, path: Path, device: torch.device, init: str | None
           ) -> tuple[nn.Module, torch.optim.Optimizer, list[dict], dict | None]:
    """Model, optimiser, the epochs so far and what training started from: new, or as `path` holds
    them."""
    model = build_detector(config, seed=recipe.seed)
    saved, start = checkpoint.load(path) if path.exists() else None, None
    if saved is not None:
        _same(saved, config, recipe, path)
        model.load_state_dict(saved.model)
        start = saved.state.get("start")
    elif init or recipe.weights:
        from detector.start import begin
        start = begin(model, config, init or recipe.weights, path.parent)
    model = model.to(device, memory_format=layout(recipe))
    optimizer = make_optimizer(model, recipe.optimizer)
    if saved is None:
        return model, optimizer, [], start
    optimizer.load_state_dict(saved.state["optimizer"])
    return model, optimizer, saved.state["history"], start


def _same(saved: checkpoint.Checkpoint, config: Detector, recipe: Recipe, path: Path) -> None:
    """UserError where a checkpoint to resume from is of another training."""
    if arch_hash(saved.config) != arch_hash(config):
        raise UserError(f"{path}: holds design {arch_hash(saved.config)}, not {arch_hash(config)}; "
                        "choose another folder or remove it")
    key = _difference(saved.recipe.to_dict(), recipe.to_dict())
    if key:
        raise UserError(f"{path}: was trained with another recipe ({key}); "
                        "choose another folder or remove it")


def _difference(old: dict, new: dict, prefix: str = "") -> str | None:
    for key in new:
        if isinstance(new[key], dict):
            found = _difference(old[key], new[key], f"{prefix}{key}.")
            if found:
                return found
        elif old[key] != new[key]:
            return f"{prefix}{key}: {old[key]} there, {new[key]} here"
    return None


def _evaluate(model: nn.Module, config: Detector, recipe: Recipe, holdout: ImageSet,
              device: torch.device, autocast: AbstractContextManager) -> dict[str, float]:
    from detector.predict import evaluate

    model.eval()
    with autocast:
        return evaluate(model, config, holdout, recipe.evaluation, device)


def _shown(losses: Mapping[str, float | Tensor]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in losses.items())
