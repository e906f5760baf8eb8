"""Trained models on disk: weights with their design, recipe and origin.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.base.files import is_file, names_in, write_text
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from nas.models.report_files import write_network
from trials.hints import command
from trials.stored import METRICS, Metrics, Origin, read_metrics

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, CONFIG = "weights.pt", "config.yaml"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A detector with trained weights."""

    config: Detector
    net: nn.Module
    recipe: Recipe | None
    """None for weights of other programs."""
    origin: Origin | None
    """None if the file does not record it."""
    path: Path

    @property
    def title(self) -> str:
        return self.origin.title if self.origin else self.path.name

    @property
    def folder(self) -> Path | None:
        """The folder of a retrained model; None for other weights."""
        return self.path.parent if (self.path.parent / METRICS).is_file() else None


def load_model(path: Path, preset: str | None = None, preset_flag: str = "--preset") -> Model:
    """Load weights with their detector.

    Args:
        preset: the design, for weights that do not contain it (those of other programs).
        preset_flag: the flag that gives it, for messages.

    Raises:
        UserError: no such file, not weights, or weights of another design.
    """
    from detector.config.presets import load_design
    from detector.config.shipped import find_file
    from detector.network.model import build_detector
    from detector.weights import checkpoint
    from detector.weights.file_kinds import DamagedCheckpoint
    from detector.weights.files import detector_weights
    from detector.weights.onnx_weights import is_onnx

    config = load_design(find_file(preset, "preset"))[0] if preset is not None else None
    saved = None
    if config is None and is_onnx(path) and is_file(path):
        raise UserError(
            f"{path}: is an ONNX graph; name the design of its weights with {preset_flag}, or "
            "score the graph itself with nas.evaluate --model"
        )
    try:
        if config is None or not is_onnx(path):
            saved = checkpoint.load(path)
    except DamagedCheckpoint as error:
        if (path.parent / METRICS).exists():
            raise UserError(
                f"{error}; or train it again: add --resume to the command that did"
            ) from error
        raise
    except checkpoint.NonFiniteWeights:
        raise
    except UserError as error:
        if preset is None:
            hint = f"; or name the design of another program's weights with {preset_flag}"
            raise UserError(f"{error}{hint if is_file(path) else ''}") from error
    if config is None:
        assert saved is not None
        config = saved.config
    weights = detector_weights(config, str(path))  # before the network takes memory
    net = build_detector(config)
    net.load_state_dict(weights.state, strict=False)  # older files lack unused counters
    origin = saved.state.get("origin") if saved else None
    return Model(
        config=config,
        net=net.eval(),
        recipe=saved.recipe if saved else None,
        path=path,
        origin=Origin.from_dict(origin, f"{path}: origin") if origin else None,
    )


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The trained model that a command uses; by default the most recently retrained one."""

    runs_dir: Path = Path("runs")
    study: str | None = None
    checkpoint: Path | None = None
    preset: str | None = None
    """The design of a checkpoint of another program."""
    model: Path | None = None
    """An exported model."""

    def __post_init__(self):
        if len(self.named_by) > 1:
            raise UserError(f"{' and '.join(self.named_by)}: give only one of them")
        if self.preset is not None and self.checkpoint is None:
            raise UserError("--preset: needs --checkpoint; add that, or leave it out")

    @classmethod
    def of(cls, args: Namespace) -> ModelChoice:
        """From the parsed command line.

        Raises:
            UserError: flags that do not go together.
        """
        return cls(
            runs_dir=args.runs_dir,
            study=args.study,
            checkpoint=args.checkpoint,
            preset=args.preset,
            model=getattr(args, "model", None),
        )

    @property
    def named_by(self) -> list[str]:
        """The flags that name the model, at most one; none for the most recently retrained one."""
        flags = {"--study": self.study, "--checkpoint": self.checkpoint, "--model": self.model}
        return [flag for flag, value in flags.items() if value is not None]


def chosen_model(choice: ModelChoice) -> Model:
    """Load the model that a choice names.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from nas.study.storage import Study
    from trials.folders import checked_name

    if choice.model is not None:
        from detector.export.runtime import load_exported

        net = load_exported(choice.model)
        return Model(config=net.config, net=net, recipe=None, origin=None, path=choice.model)
    if choice.checkpoint is not None:
        return load_model(choice.checkpoint, choice.preset)
    if choice.study is None:
        return load_model(last_retrained(choice.runs_dir) / WEIGHTS)
    folder = choice.runs_dir / checked_name(choice.study) / "best"
    if not is_file(folder / METRICS):
        Study.open(choice.runs_dir, choice.study)  # raises if the study does not exist
        raise UserError(
            f"{folder}: no retrained model of study {choice.study} yet; run "
            + command(
                "nas.retrain", {"best": True, "study": choice.study, "runs_dir": choice.runs_dir}
            )
        )
    return load_model(folder / WEIGHTS)


def save_model(
    folder: Path,
    net: nn.Module,
    config: Detector,
    metrics: Metrics,
    extra_files: Sequence[Path] = (),
) -> None:
    """Write weights.pt, config.yaml, metrics.json and network.json, and copies of `extra_files`.

    An older model in `folder` is replaced after the new one is complete.
    """
    from detector.weights import checkpoint

    new_folder = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new_folder, ignore_errors=True)
    new_folder.mkdir(parents=True)
    recipe, origin = metrics.recipe, metrics.origin
    checkpoint.save(new_folder / WEIGHTS, net, config, recipe, {"origin": origin.to_dict()})
    write_config(new_folder, origin.title, config, recipe.to_dict())
    metrics.write(new_folder / METRICS)
    write_network(new_folder, config)
    for path in extra_files:
        shutil.copy(path, new_folder)
    _replace(folder, new_folder)


def write_config(folder: Path, title: str, config: Detector, recipe: dict) -> None:
    """Write config.yaml.

    Args:
        recipe: a `Recipe` as plain data, or a part of one.
    """
    import yaml

    text = yaml.safe_dump(
        {"detector": config.to_dict(), "recipe": recipe},
        sort_keys=False,
        default_flow_style=None,
        width=100,
    )
    write_text(folder / CONFIG, f"# {title}, in the format of a preset\n{text}")


def copy_model(source: Path, folder: Path) -> None:
    """Copy the model in `source` to `folder`, as if it had just been retrained."""
    new_folder = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new_folder, ignore_errors=True)
    shutil.copytree(source, new_folder)
    metrics = read_metrics(new_folder)
    assert metrics is not None, source
    replace(metrics, folder=str(folder), finished=time.time()).write(new_folder / METRICS)
    _replace(folder, new_folder)


def _replace(folder: Path, new_folder: Path) -> None:
    old_folder = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old_folder, ignore_errors=True)
    if folder.exists():
        folder.rename(old_folder)
    new_folder.rename(folder)
    shutil.rmtree(old_folder, ignore_errors=True)


def last_retrained(runs_dir: Path) -> Path:
    """The folder of the most recently retrained model.

    Raises:
        UserError: there is none.
    """
    folders = [
        path.parent
        for name in names_in(runs_dir)
        for pattern in ("best", "retrained/*")
        for path in (runs_dir / name).glob(f"{pattern}/{METRICS}")
    ]
    if not folders:
        raise UserError(
            f"{runs_dir}: contains no retrained model yet; run "
            f"{command('nas.retrain', {'best': True, 'runs_dir': runs_dir})}, or give "
            "--checkpoint FILE"
        )
    return max(folders, key=_finished)


def _finished(folder: Path) -> float:
    metrics = read_metrics(folder)
    return metrics.finished if metrics else 0.0
