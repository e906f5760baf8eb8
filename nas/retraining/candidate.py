"""What a retrain trains: a design of a study or a preset, and its recipe. Light to import."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from detector.base.cli import count
from detector.base.errors import UserError
from detector.base.yaml_file import read
from detector.config.detector import Detector
from detector.config.presets import load_design, section
from detector.config.recipe import Augmentation, DataChoice, Evaluation, Recipe
from detector.config.shipped import find_file
from nas.retraining.options import AUTO, RetrainOptions
from trials.folders import study_or_newest
from trials.objective import Objective
from trials.record import Cost, Status, best_of, rank

EPOCHS = 100
SIZE = 640
WATCH_SIZE = 640  # long side at which the hold-out is looked at while training
EVALUATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is to be trained, before the flags change its recipe."""

    config: Detector
    recipe: Recipe
    proxy: bool
    """The recipe is a search's short one."""
    title: str
    folder: Path
    """Where the model goes."""
    data: DataChoice | None = None
    """Of its study."""
    fingerprint: str | None = None
    study: str | None = None
    space: str | None = None
    objective: Objective = field(default_factory=Objective)
    cost: Cost | None = None
    """As its study has it, with the latency where that was measured."""

    @property
    def workdir(self) -> Path:
        """Where it trains."""
        return self.folder.with_name(f"{self.folder.name}-training")


def choose(options: RetrainOptions) -> Candidate:
    """The design and its recipe, from a study's records or a preset.

    Raises:
        UserError: no such study, trial or preset, or none that can be trained.
    """
    from nas.study.storage import Study, checked_name, newest

    # A preset with its own --data needs no study; else it is trained as the newest one's trials.
    alone = options.preset is not None and options.data is not None
    name = options.study or (None if alone else newest(options.runs_dir))
    if name is None and options.preset is None:
        name = study_or_newest(options.runs_dir, None, ", or give --preset NAME")
    if options.preset is not None:  # unknown? Say so before the study is opened
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
    manifest, records = study.manifest, study.records
    candidate = partial(
        Candidate,
        proxy=True,
        study=name,
        space=manifest.space,
        data=manifest.data,
        fingerprint=manifest.data_fingerprint,
        objective=manifest.objective,
    )
    retrained = study.folder / "retrained"
    if options.preset is not None:
        if not records:
            raise UserError(
                f"study {name} has no trial yet to take the recipe from; let the "
                "search begin, or give --data for a retrain without a study"
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
                f"study {name} has no completed trial yet; resume the search (--resume), or "
                "choose one with --trial N"
            )
    return candidate(
        config=record.detector,
        recipe=record.recipe,
        title=f"trial {record.number} of study {name}",
        folder=folder,
        cost=record.cost,
    )


def choose_top(options: RetrainOptions) -> list[Candidate]:
    """The --top best completed trials by score, best first.

    Raises:
        UserError: fewer completed trials, or none to choose by.
    """
    from nas.study.storage import Study

    assert options.top is not None
    name = study_or_newest(options.runs_dir, options.study)
    completed = [
        r for r in Study.open(options.runs_dir, name).records if r.status is Status.COMPLETED
    ]
    if len(completed) < options.top:
        raise UserError(
            f"--top {options.top}: study {name} has {len(completed)} completed trials; "
            "give a smaller number, or resume the search (--resume)"
        )
    ranked = sorted(completed, key=rank)
    return [
        choose(replace(options, study=name, trial=record.number))
        for record in ranked[: options.top]
    ]


def full_recipe(candidate: Candidate, options: RetrainOptions) -> Recipe:
    """The recipe of the retrain: what follows from the candidate's, then what --recipe says, then
    the flags.

    A published one keeps its schedule. A proxy's keeps what the search tuned (rate, decay, batch
    size, losses) and gets a cosine over the epochs, a warm-up of at most 3 of them, RetinaFace's
    crops and all photometric changes. The rate follows the batch size (see `with_batch_size`);
    --batch-size auto is left to the caller, who knows the device.

    Raises:
        UserError: a flag or the file breaks a rule.
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
    epochs = options.epochs or _changed_by_file(base, options).epochs
    if candidate.proxy:
        base = replace(
            base,
            optimizer=replace(
                base.optimizer, schedule="cosine", warmup_epochs=min(3.0, max(1.0, 0.05 * epochs))
            ),
        )
    base = _changed_by_file(
        replace(
            base,
            cache_size=None,
            evaluation=replace(
                base.evaluation, size=WATCH_SIZE, every=max(1, epochs // EVALUATIONS)
            ),
        ),
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


def with_batch_size(recipe: Recipe, images: int) -> Recipe:
    """`recipe` with so many images a step, the rate in proportion (adamw's: to the square root)."""
    share = images / recipe.batch_size
    lr = recipe.optimizer.lr * (share if recipe.optimizer.kind == "sgd" else share**0.5)
    return replace(recipe, batch_size=images, optimizer=replace(recipe.optimizer, lr=lr))


def images_a_step(text: str) -> int | str:
    """A number of images or auto, an argparse type."""
    if text == AUTO:
        return text
    try:
        return count(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or {AUTO}") from None


def _changed_by_file(recipe: Recipe, options: RetrainOptions) -> Recipe:
    if options.recipe is None:
        return recipe
    return changed_recipe(recipe, find_file(options.recipe, "recipe"))


def changed_recipe(recipe: Recipe, path: Path) -> Recipe:
    """`recipe` with what the `recipe` of a YAML file says.

    Raises:
        UserError: the file cannot be read, says something else, or breaks a rule.
    """
    document = read(path)
    for key in document.data:
        if key != "recipe":
            raise document.error(
                (key,),
                "unknown key; the file says what is different about a "
                "recipe, under the one key recipe",
            )
    return section(document, "recipe", Recipe, recipe.to_dict())


def fitting_size(size: int, labels) -> int:
    """`size`, or the multiple of 32 above the images' short side where that is less: larger crops
    would only be scaled up. Sizes that are not known yet do not count."""
    shorts = sorted(min(label.size) for label in labels if label.size[0])
    return min(size, -(-shorts[len(shorts) // 2] // 32) * 32) if shorts else size
