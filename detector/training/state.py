"""All that a training carries from epoch to epoch: started, resumed, and stored in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.base.errors import UserError, first_line
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.network.model import build_detector
from detector.training import distributed
from detector.training.ema import ModelEMA
from detector.training.optim import load_optimizer_state, make_optimizer, optimizer_state
from detector.training.step import Precision, memory_format
from detector.weights import checkpoint
from detector.weights.file_kinds import DamagedCheckpoint
from detector.weights.pretrained import Teacher, repair_start


@dataclass(kw_only=True)
class TrainingState:
    """Model, optimiser and history between two epochs. Order of images and augmentation are
    functions of seed and epoch, so this is all that a training needs to resume."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    ema: ModelEMA | None
    """If the recipe has one."""
    start: dict | None = None
    """The `Start` of `detector.weights.pretrained` as plain data; None means from scratch."""
    teacher: dict | None = None
    """The `Teacher` of `detector.weights.pretrained` as plain data; None without one."""
    history: list[dict] = field(default_factory=list)
    """The finished epochs, as plain data."""

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated and saved: the EMA, or else the model itself."""
        return self.ema.module if self.ema else self.model

    def save(self, path: Path, config: Detector, recipe: Recipe) -> None:
        """Writes the checkpoint at `path`, with the last epoch as its readable metadata."""
        state: dict[str, Any] = {
            "optimizer": optimizer_state(self.optimizer),
            "history": self.history,
            "scaler": self.precision.scaler.state_dict(),
            "start": self.start,
            "teacher": self.teacher,
        }
        if self.ema:
            state |= {"model": self.model.state_dict(), "averaged": self.ema.updates}
        checkpoint.save(
            path, self.eval_model, config, recipe, state=state, metadata=self.history[-1]
        )

    def resume_from(self, saved: checkpoint.Checkpoint) -> None:
        """Restores what `save` stored."""
        self.eval_model.load_state_dict(saved.model)
        if self.ema:
            self.model.load_state_dict(saved.state["model"])
            self.ema.updates = saved.state["averaged"]
        load_optimizer_state(self.optimizer, saved.state["optimizer"])
        self.precision.scaler.load_state_dict(saved.state.get("scaler", {}))
        self.history, self.start = saved.state["history"], saved.state.get("start")


def start_or_resume(
    config: Detector,
    recipe: Recipe,
    path: Path,
    device: torch.device,
    init: str | None,
    teacher: Teacher | None = None,
) -> TrainingState:
    """The state stored at `path`; without that file, the state of a new training.

    Args:
        init: pretrained weights for a new training, in place of the recipe's.
        teacher: what is known of the teacher; None without one.

    Raises:
        UserError: the checkpoint has another design, recipe or teacher, or there are no such
            weights.
    """
    model = build_detector(config, recipe.seed, recipe.initialization)
    saved = _load(path) if path.exists() else None
    weights, start = init or recipe.weights, None
    if saved is not None:
        _check_same_training(saved, config, recipe, teacher, path)
    elif weights:
        from detector.weights.initialize import initialize_from

        start = initialize_from(model, config, weights, path.parent)
    # torch's stubs lack this overload
    model = model.to(device, memory_format=memory_format(recipe))  # type: ignore[call-overload]
    world_size = distributed.this_worker().world_size
    if recipe.norm == "sync" and device.type == "cuda" and world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    decay = recipe.optimizer.ema
    state = TrainingState(
        model=model,
        optimizer=make_optimizer(model, recipe.optimizer),
        precision=Precision(recipe, device),
        ema=ModelEMA(model, decay) if decay else None,
        start=start,
        teacher=teacher.to_dict() if teacher else None,
    )
    if saved is not None:
        try:
            state.resume_from(saved)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise DamagedCheckpoint(
                f"{path}: its weights or state do not fit its design ({first_line(error)}); remove "
                "it to start the training again"
            ) from error
    repair_start(path.parent, state.start)
    return state


def _load(path: Path) -> checkpoint.Checkpoint:
    try:
        return checkpoint.load(path)
    except DamagedCheckpoint as error:
        what = str(error).rpartition("; ")[0]
        raise DamagedCheckpoint(f"{what}; remove it to start the training again") from error


def _check_same_training(
    saved: checkpoint.Checkpoint,
    config: Detector,
    recipe: Recipe,
    teacher: Teacher | None,
    path: Path,
) -> None:
    """UserError if a checkpoint to resume from belongs to another training."""
    if arch_hash(saved.config) != arch_hash(config):
        raise UserError(
            f"{path}: holds design {arch_hash(saved.config)}, not {arch_hash(config)}; "
            "choose another folder or remove it"
        )
    # Gradient accumulation may change: a trial that ran out of memory uses more parts.
    comparable = replace(saved.recipe, accumulate=recipe.accumulate)
    difference = _first_difference(comparable.to_dict(), recipe.to_dict())
    if difference:
        raise UserError(
            f"{path}: was trained with another recipe ({difference}); choose another folder or "
            "remove it"
        )
    record = saved.state.get("teacher")
    before = Teacher.from_dict(record, f"{path}: teacher") if record else None
    there, here = (f"sha256 {t.weights.sha256[:12]}" if t else "none" for t in (before, teacher))
    if there != here:
        raise UserError(
            f"{path}: was trained with another teacher ({there} there, {here} here); give the same "
            "--teacher, or remove the folder to start again"
        )


def _first_difference(old: dict, new: dict, prefix: str = "") -> str | None:
    for key in new:
        if isinstance(new[key], dict):
            difference = _first_difference(old[key], new[key], f"{prefix}{key}.")
            if difference:
                return difference
        elif old[key] != new[key]:
            return f"{prefix}{key}: {old[key]} there, {new[key]} here"
    return None
