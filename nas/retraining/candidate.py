"""What a retrain trains: a design of a study or a preset, and its recipe.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.cli import count
from detector.base.errors import UserError
from detector.base.yaml_file import read
from detector.config.detector import Detector
from detector.config.presets import load_design, section
from detector.config.recipe import Augmentation, DataChoice, Evaluation, Recipe
from detector.config.shipped import find_file
from nas.retraining.options import AUTO, RetrainOptions
from nas.search_space.dimensions import Params, Settings, parse
from nas.search_space.resolve import set_field
from trials.folders import SPACE, checked_name, newest_study, study_or_newest
from trials.objective import Objective
from trials.record import Cost, Status, best_of, learned, rank

if TYPE_CHECKING:
    from detector.data.types import ImageLabel

EPOCHS = 100
SIZE = 640
WATCH_SIZE = 640
"""Long side in px of the hold-out images that are evaluated during training."""
EVALUATIONS = 10
"""Default number of evaluations during training."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A design to train, with its recipe before the flags change it."""

    config: Detector
    recipe: Recipe
    proxy: bool
    """Whether the recipe is a search's short one."""
    title: str
    folder: Path
    """Where the model is saved."""
    trial: int | None = None
    """Its number in the study; None of a preset."""
    data: DataChoice | None = None
    """The study's, as the following three; None without a study."""
    fingerprint: str | None = None
    study: str | None = None
    space: str | None = None
    space_file: Path | None = None
    """The study's search space, which may change the recipe of full trainings (`full`)."""
    tuned: Settings = field(default_factory=dict)
    """What the search chose for this trial, by setting: a full training keeps its recipe.*"""
    objective: Objective = field(default_factory=Objective)
    cost: Cost | None = None
    """From the study's record, with the latency if it was measured."""

    @property
    def workdir(self) -> Path:
        """The folder to train in."""
        return self.folder.with_name(f"{self.folder.name}-training")


def choose_candidate(options: RetrainOptions) -> Candidate:
    """The candidate that the options name: a trial of a study, or a preset.

    Raises:
        UserError: there is no such study, trial or preset, or it cannot be trained.
    """
    from nas.study.storage import Study

    # A preset with its own --data needs no study; otherwise it is trained like the study's trials.
    standalone = options.preset is not None and options.data is not None
    name = options.study or (None if standalone else newest_study(options.runs_dir))
    if name is None and options.preset is None:
        name = study_or_newest(options.runs_dir, None, ", or give --preset NAME")
    if options.preset is not None:  # report an unknown one before the study is opened
        path = find_file(options.preset, "preset")
        config, recipe = load_design(path)
        preset = checked_name(path.stem)
    if name is None:
        return Candidate(
            config=config,
            recipe=recipe,
            proxy=False,
            title=f"preset {preset}",
            folder=options.runs_dir / preset / "best",
        )
    study = Study.open(options.runs_dir, name)
    manifest, records, space_file = study.manifest, study.records, study.folder / SPACE
    candidate = partial(
        Candidate,
        proxy=True,
        study=name,
        space=manifest.space,
        space_file=space_file if space_file.is_file() else None,
        data=manifest.data,
        fingerprint=manifest.data_fingerprint,
        objective=manifest.objective,
    )
    retrained = study.folder / "retrained"
    if options.preset is not None:
        if not records:
            raise UserError(
                f"study {name} has no trial yet to take the recipe from; start its "
                "search, or give --data to retrain without a study"
            )
        return candidate(
            config=config,
            recipe=records[0].recipe,
            title=f"preset {preset}, as study {name}",
            folder=retrained / preset,
        )
    if options.trial is not None:
        record = next((r for r in records if r.number == options.trial), None)
        if record is None:
            raise UserError(
                f"--trial {options.trial}: study {name} has the trials 0 to {len(records) - 1}"
            )
        if record.status is Status.INFEASIBLE:
            raise UserError(
                f"--trial {options.trial}: it is infeasible ({record.reason}); choose another"
            )
        folder = retrained / f"r{record.number:03d}"
    else:
        record, folder = best_of(records), study.folder / "best"
        if record is None:
            raise UserError(
                f"study {name} has no completed trial that has learned anything; resume the search "
                "(--resume), or choose one with --trial N"
            )
    return candidate(
        config=record.detector,
        recipe=record.recipe,
        title=f"trial {record.number} of study {name}",
        trial=record.number,
        folder=folder,
        tuned=_tuned(space_file, record.params),
        cost=record.cost,
    )


def _tuned(space_file: Path, params: Params) -> Settings:
    """The settings that follow from the parameters of a trial; none of a baseline's."""
    if not params or not space_file.is_file():
        return {}
    dimensions = read(space_file).data.get("dimensions") or {}
    parsed = (parse(name, given) for name, given in dimensions.items())
    return {
        setting: value
        for dimension in parsed
        if dimension.name in params
        for setting, value in dimension.settings(params[dimension.name]).items()
    }


def choose_top_candidates(options: RetrainOptions) -> list[Candidate]:
    """The best completed trials by score, as many as --top says, best first.

    Raises:
        UserError: there are fewer completed trials, or no study.
    """
    from nas.study.storage import Study

    assert options.top is not None
    name = study_or_newest(options.runs_dir, options.study)
    completed = learned(Study.open(options.runs_dir, name).records)
    if len(completed) < options.top:
        raise UserError(
            f"--top {options.top}: study {name} has {len(completed)} completed trials; "
            "give a smaller number, or resume the search (--resume)"
        )
    ranked = sorted(completed, key=rank)
    return [
        choose_candidate(replace(options, study=name, trial=record.number))
        for record in ranked[: options.top]
    ]


def full_recipe(candidate: Candidate, options: RetrainOptions) -> Recipe:
    """The recipe of the retrain: the candidate's, overridden by --recipe, then by the other flags.

    A published recipe keeps its schedule. A proxy's recipe keeps its optimiser, batch size and
    losses, and gets a cosine schedule over all epochs with a warm-up of at most 3, and
    RetinaFace's crops and photometric augmentation, except where its search varied these, then
    what its search space says under `full`. The learning rate follows the batch size, see
    `with_batch_size`; --batch-size auto is left to the caller, who knows the device.

    Raises:
        UserError: a value in the flags or the file is not allowed.
    """
    base = candidate.recipe
    if candidate.proxy:
        base = replace(
            base,
            epochs=EPOCHS,
            size=SIZE,
            evaluation=Evaluation(),
            augmentation=Augmentation(min_face=base.augmentation.min_face),
        )
    epochs = options.epochs or _with_files(base, candidate, options).epochs
    if candidate.proxy:
        base = replace(
            base,
            optimizer=replace(
                base.optimizer, schedule="cosine", warmup_epochs=min(3.0, max(1.0, 0.05 * epochs))
            ),
        )
        base = _with_tuned(base, candidate.tuned)
    base = _with_files(
        replace(
            base,
            cache_size=None,
            evaluation=replace(
                base.evaluation, size=WATCH_SIZE, every=max(1, epochs // EVALUATIONS)
            ),
        ),
        candidate,
        options,
    )
    if isinstance(options.batch_size, int):
        base = with_batch_size(base, options.batch_size)
    optimizer = base.optimizer
    if options.ema is not None:
        optimizer = replace(optimizer, ema=options.ema)
    evaluation = base.evaluation
    if options.eval_every is not None:
        evaluation = replace(evaluation, every=options.eval_every)
    return replace(
        base,
        epochs=epochs,
        optimizer=optimizer,
        evaluation=evaluation,
        size=options.size or base.size,
        seed=options.seed,
        weights=options.weights or options.init_from or base.weights,
        accumulate=options.accumulate or base.accumulate,
        precision=options.precision or base.precision,
    )


def _with_tuned(recipe: Recipe, tuned: Settings) -> Recipe:
    """`recipe` with the settings recipe.* of a trial; the size of its crops was the proxy's."""
    tree = recipe.to_dict()
    for setting, value in tuned.items():
        if setting.startswith("recipe.") and setting != "recipe.size":
            set_field(tree, setting.removeprefix("recipe."), value)
    return Recipe.from_dict(tree, "recipe")


def with_batch_size(recipe: Recipe, batch_size: int) -> Recipe:
    """`recipe` with another batch size, and the learning rate scaled in proportion (adamw: by the
    square root)."""
    factor = batch_size / recipe.batch_size
    lr = recipe.optimizer.lr * (factor if recipe.optimizer.kind == "sgd" else factor**0.5)
    return replace(recipe, batch_size=batch_size, optimizer=replace(recipe.optimizer, lr=lr))


def batch_size_or_auto(text: str) -> int | str:
    """A number of images, or auto; an argparse type."""
    if text == AUTO:
        return text
    try:
        return count(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or {AUTO}") from None


def _with_files(recipe: Recipe, candidate: Candidate, options: RetrainOptions) -> Recipe:
    """`recipe` with the changes of the study's space, then with those of --recipe."""
    if candidate.space_file is not None:
        recipe = section(read(candidate.space_file), "full", Recipe, recipe.to_dict())
    if options.recipe is None:
        return recipe
    return apply_recipe_file(recipe, find_file(options.recipe, "recipe"))


def apply_recipe_file(recipe: Recipe, path: Path) -> Recipe:
    """`recipe` with the changes in the section `recipe` of a YAML file.

    Raises:
        UserError: the file cannot be read, has other keys, or a value is not allowed.
    """
    document = read(path)
    for key in document.data:
        if key != "recipe":
            raise document.error(
                (key,),
                "unknown key; the only key of the file is recipe, with the changes to it",
            )
    return section(document, "recipe", Recipe, recipe.to_dict())


def limit_crop_size(size: int, labels: Sequence[ImageLabel]) -> int:
    """`size`, but at most the median short side of the images, rounded up to a multiple of 32:
    larger crops would only be scaled up. Images of unknown size do not count."""
    short_sides = sorted(min(label.size) for label in labels if label.size[0])
    return min(size, -(-short_sides[len(short_sides) // 2] // 32) * 32) if short_sides else size
