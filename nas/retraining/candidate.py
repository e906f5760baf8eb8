"""What a retrain trains: a design of a study or a preset, and its recipe. Light to import."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path

from detector.base.cli import count
from detector.base.errors import UserError
from detector.base.yaml_file import read
from detector.config.detector import Detector
from detector.config.presets import load_design, section
from detector.config.recipe import Augmentation, DataChoice, Evaluation, Recipe
from detector.config.shipped import find_file
from trials.objective import Objective
from trials.record import Cost, Status

EPOCHS = 100
SIZE = 640
WATCH_SIZE = 640  # long side at which the hold-out is looked at while training
LOOKS = 10
AUTO = "auto"
"""--batch-size that suits the device."""


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


def choose(args: Namespace) -> Candidate:
    """The design and its recipe, from a study's records or a preset.

    Raises:
        UserError: no such study, trial or preset, or none that can be trained.
    """
    from nas.study.storage import Study, checked_name, newest

    # A preset with its own --data needs no study; else it is trained as the newest one's trials.
    alone = args.preset is not None and args.data is not None
    name = args.study or (None if alone else newest(args.runs_dir))
    if name is None and args.preset is None:
        raise UserError(
            f"{args.runs_dir}: no study there yet; run python -m nas.search --space "
            "search_spaces/quick.yaml first, or give --preset NAME"
        )
    if args.preset is not None:  # unknown? Say so before the study is opened
        path = find_file(args.preset, "preset")
        config, recipe = load_design(path)
        preset = checked_name(path.stem)
    if name is None:
        return Candidate(
            config=config,
            recipe=recipe,
            proxy=False,
            title=f"preset {preset}",
            folder=args.runs_dir / preset / "best",
        )
    study = Study.open(args.runs_dir, name)
    manifest, records = study.manifest, study.records
    shared = {
        "proxy": True,
        "study": name,
        "space": manifest["space"],
        "data": DataChoice.from_dict(manifest["data"]),
        "fingerprint": manifest["data_fingerprint"],
        "objective": Objective.from_dict(manifest["objective"]),
    }
    retrained = study.folder / "retrained"
    if args.preset is not None:
        if not records:
            raise UserError(
                f"study {name} has no trial yet to take the recipe from; let the "
                "search begin, or give --data for a retrain without a study"
            )
        return Candidate(
            config=config,
            recipe=records[0].recipe,
            title=f"preset {preset}, as study {name}",
            folder=retrained / preset,
            **shared,
        )
    if args.trial is not None:
        record = next((r for r in records if r.number == args.trial), None)
        if record is None:
            raise UserError(
                f"--trial {args.trial}: study {name} has the trials 0 to {len(records) - 1}"
            )
        if record.status is Status.INFEASIBLE:
            raise UserError(
                f"--trial {args.trial}: it is infeasible ({record.reason}); choose another"
            )
        folder = retrained / f"r{record.number:03d}"
    else:
        completed = [r for r in records if r.status is Status.COMPLETED]
        if not completed:
            raise UserError(
                f"study {name} has no completed trial yet; go on with the search "
                "(--resume), or choose one with --trial N"
            )
        record, folder = max(completed, key=lambda r: r.score), study.folder / "best"
    return Candidate(
        config=record.detector,
        recipe=record.recipe,
        title=f"trial {record.number} of study {name}",
        folder=folder,
        cost=record.cost,
        **shared,
    )


def choose_top(args: Namespace) -> list[Candidate]:
    """The --top best completed trials by score, best first.

    Raises:
        UserError: fewer completed trials, or none to choose by.
    """
    from nas.study.storage import Study, newest

    if args.top < 1:
        raise UserError(f"--top {args.top}: must be at least 1")
    name = args.study or newest(args.runs_dir)
    if name is None:
        raise UserError(
            f"{args.runs_dir}: no study there yet; run python -m nas.search --space "
            "search_spaces/quick.yaml first"
        )
    completed = [r for r in Study.open(args.runs_dir, name).records if r.status is Status.COMPLETED]
    if len(completed) < args.top:
        raise UserError(
            f"--top {args.top}: study {name} has {len(completed)} completed trials; "
            "give a smaller number, or go on with the search (--resume)"
        )
    ranked = sorted(completed, key=lambda r: (-r.score, r.number))
    return [
        choose(Namespace(**vars(args) | {"study": name, "trial": record.number}))
        for record in ranked[: args.top]
    ]


def full_recipe(candidate: Candidate, args: Namespace) -> Recipe:
    """The recipe of the retrain: what follows from the candidate's, then what --recipe says, then
    the flags.

    A published one keeps its schedule. A proxy's keeps what the search tuned (rate, decay, batch
    size, losses) and gets a cosine over the epochs, a warm-up of at most 3 of them, RetinaFace's
    crops and all photometric changes. The rate follows the batch size (see `with_batch_size`);
    --batch-size auto is left to the caller, who knows the device.

    Raises:
        UserError: a flag or the file breaks a rule.
    """
    _check_flags(args)
    base = candidate.recipe
    if candidate.proxy:
        base = replace(
            base,
            epochs=EPOCHS,
            size=SIZE,
            evaluation=Evaluation(),
            augmentation=Augmentation(min_face=base.augmentation.min_face),
        )
    epochs = args.epochs or _as_the_file_says(base, args).epochs
    if candidate.proxy:
        base = replace(
            base,
            optimizer=replace(
                base.optimizer, schedule="cosine", warmup_epochs=min(3.0, max(1.0, 0.05 * epochs))
            ),
        )
    base = _as_the_file_says(
        replace(
            base,
            cache_size=None,
            evaluation=replace(base.evaluation, size=WATCH_SIZE, every=max(1, epochs // LOOKS)),
        ),
        args,
    )
    if args.batch_size not in (None, AUTO):
        base = with_batch_size(base, args.batch_size)
    optimizer = base.optimizer
    if args.ema is not None:
        optimizer = replace(optimizer, ema=args.ema)
    evaluation = base.evaluation
    if args.eval_every is not None:
        evaluation = replace(evaluation, every=args.eval_every)
    return replace(
        base,
        epochs=epochs,
        optimizer=optimizer,
        evaluation=evaluation,
        size=args.size or base.size,
        seed=args.seed,
        weights=args.weights or args.init_from or base.weights,
        accumulate=args.accumulate or base.accumulate,
        precision=args.precision or base.precision,
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


def _check_flags(args: Namespace) -> None:
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs {args.epochs}: must be at least 1")
    if args.eval_every is not None and args.eval_every < 0:
        raise UserError(f"--eval-every {args.eval_every}: must be at least 0")
    if args.ema is not None and not 0 <= args.ema < 1:
        raise UserError(f"--ema {args.ema}: must be at least 0 and below 1, such as 0.999")
    if args.size is not None and (args.size < 32 or args.size % 32):
        raise UserError(f"--size {args.size}: must be a multiple of 32, such as 416 or 640")


def _as_the_file_says(recipe: Recipe, args: Namespace) -> Recipe:
    if args.recipe is None:
        return recipe
    return changed_recipe(recipe, find_file(args.recipe, "recipe"))


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
