"""The page of a competition entry: what the model is, its figures, how it was made, the rules.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.base.errors import size_text
from detector.base.files import is_file
from detector.config.detector import arch_hash
from nas.models import entry_files
from nas.models.model_folder import CONFIG, Model
from nas.models.report_files import NETWORK
from nas.terminal.format import duration
from trials.folders import MANIFEST, read_manifest
from trials.hints import command
from trials.record import TrialRecord
from trials.stored import Manifest, Metrics, Origin, read_metrics

VAL_IMAGES = 3_226
"""Of WIDER FACE."""
ANSWERS = {True: "yes", False: "**NO**", None: "**unknown**"}
CONTENTS = {
    CONFIG: "the design and its recipe, in the format of a preset",
    entry_files.PREDICTIONS: "a prediction file for each val image, in WIDER FACE's format",
    entry_files.RESULT: "the evaluation: AP, score, cost, latency, settings, rules, versions",
    entry_files.THOP: "thop's own count of this network, as thop prints it",
    NETWORK: "parameters and MACs of every layer",
    entry_files.TRAINING: "the training, epoch by epoch",
    entry_files.SPACE: "the search space that the design comes from",
    entry_files.GRAPH: "the model with non-maximum suppression as an ONNX graph",
    entry_files.SUMS: "SHA-256 of all files, for `sha256sum -c`",
}


@dataclass(frozen=True, kw_only=True)
class History:
    """What is known of how a model was found and trained, besides what its weights contain."""

    manifest: Manifest | None = None
    """study.json of its study; None without a study, or if its folder is not at hand."""
    space: Path | None = None
    """The study's search space."""
    records: Sequence[TrialRecord] = ()
    training: Metrics | None = None
    """metrics.json beside the weights; None for other weights."""


def history_of(model: Model) -> History:
    """What the folders around a model's weights say of it.

    Raises:
        UserError: a file there cannot be read.
    """
    from analysis.records.load import load_records
    from trials.folders import DATABASE, SPACE

    training = read_metrics(model.path.parent)
    name = model.origin.study if model.origin else None
    # RUNS_DIR/STUDY/best, or RUNS_DIR/STUDY/retrained/NAME; another study may have this name
    for folder in model.path.resolve().parents[1:3]:
        if name == folder.name and is_file(folder / MANIFEST):
            space = folder / SPACE
            return History(
                manifest=read_manifest(folder),
                space=space if is_file(space) else None,
                records=load_records(folder) if is_file(folder / DATABASE) else (),
                training=training,
            )
    return History(training=training)


def report(
    folder: Path, weights: Path, model: Model, history: History, result: Mapping, settings: str
) -> str:
    """README.md of an entry.

    Args:
        folder: where the entry will be.
        weights: their file.
        model: the packed one.
        result: evaluation.json.
        settings: of the evaluation, in words.
    """
    names = {name.partition("/")[0] for name in entry_files.files_of(weights.parent)}
    contents = {weights.name: "the weights", **CONTENTS}
    if result["entry"]["by_config"]:
        contents[CONFIG] = "the design, and the settings of the evaluation"
    listed = [
        [f"`{name}`", text]
        for name, text in contents.items()
        if name in names or name == entry_files.SUMS
    ]
    parts = [
        f"# Entry: {result['model']}\n",
        f"A one-stage face detector: `{result['describe']}`. Packed by `python -m nas.entry` on "
        f"{time.strftime('%Y-%m-%d', time.localtime(result['finished']))}.\n",
        "## Figures\n",
        _table(["", ""], _figures(result, weights, settings)),
        "## Rules of the competition\n",
        _table(
            ["rule", "holds", "evidence"],
            [[r["rule"], ANSWERS[r["holds"]], r["evidence"]] for r in result["rules"]],
        ),
        "## How it was found\n",
        _found(folder, model, history),
        "## How it was trained\n",
        _trained(folder, model, history),
        "## Use and check it\n",
        _use(folder, weights.name, model, result),
        "## Files\n",
        _table(["file", "content"], listed),
    ]
    return "\n".join(parts)


def val_note(result: Mapping) -> str | None:
    """A note if the val images are not all of WIDER FACE's."""
    if result["data"] == "synthetic" or result["images"] == VAL_IMAGES:
        return None
    return f"{result['images']:,} val images are scored, WIDER FACE has {VAL_IMAGES:,}"


def _figures(result: Mapping, weights: Path, settings: str) -> list[list[str]]:
    ap, thop = result["ap"], result["entry"]["thop"]
    note = val_note(result)
    passes = len(result["scales"]) * (1 + result["flip"])
    uncounted = (
        ""
        if thop["params"] == result["params"]
        else f"; thop has no rule for {', '.join(thop['without_rule'])} and shows "
        f"{thop['params']:,}, see {entry_files.THOP}"
    )
    return [
        ["parameters", f"{result['params']:,}{uncounted}"],
        ["MACs at 640×640", f"{result['macs'] / 1e9:.4f} G, by thop and by the configuration"],
        ["weights", f"{size_text(weights.stat().st_size)} (`{weights.name}`)"],
        *([f"AP {level}", f"{value:.4f}"] for level, value in ap.items()),
        ["accuracy score, their mean", f"{result['accuracy_score']:.4f}"],
        ["speed score", f"{result['speed_score']:.4f}"],
        ["**score**", f"**{result['score']:.4f}**"],
        ["latency", f"{result['latency_ms']:.1f} ms a 640×640 image ({result['machine']})"],
        [
            "evaluated on",
            f"{result['images']:,} val images of {result['data']}; {result['ground_truth']}"
            + (f". Note: {note}" if note else ""),
        ],
        [
            "settings",
            settings
            if passes == 1
            else f"{settings}; {passes} forward passes per image, while MACs, latency and speed "
            "score are those of one",
        ],
    ]


def _found(folder: Path, model: Model, history: History) -> str:
    origin, manifest = model.origin, history.manifest
    if origin is None:
        return "Not recorded: these are weights of another program.\n"
    if origin.study is None:
        return f"It was not searched: {origin.title}.\n"
    if manifest is None:
        return (
            f"{origin.title}, space {origin.space}. The study's folder was not at hand when this "
            "was packed.\n"
        )
    statuses = Counter(record.status.value for record in history.records)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    epochs = sum(record.epochs_spent for record in history.records)
    text = (
        f"{origin.title[:1].upper()}{origin.title[1:]}, a search of the space {manifest.space} "
        f"with the sampler {manifest.sampler}, seed {manifest.seed}, on "
        f"{_images(manifest.images)}: {counts}; {epochs:,} epochs trained."
    )
    trial = next((r for r in history.records if r.design == arch_hash(model.config)), None)
    if trial is not None and trial.score is not None:
        text += f" As a proxy this design (trial {trial.number}) scored {trial.score:.3f}."
    if manifest.enqueue is not None:
        text += " Designs were given to it (--enqueue), which the command below lacks."
    space = folder / entry_files.SPACE if history.space else manifest.space
    search = {
        "space": space,
        "budget": manifest.budget and f"{manifest.budget['macs'] / 1e9:g}G",
        "trials": manifest.trials or None,
        "sampler": manifest.sampler,
        "scheduler": manifest.scheduler,
        "proxies": manifest.proxies,
        "inherit": manifest.inherit,
        "from_study": manifest.from_study,
        "data": manifest.data.path,
        **_split(manifest.data),
        "seed": manifest.seed,
        "study": manifest.name,
    }
    return f"{text}\n\n{_code(command('nas.search', search))}"


def _trained(folder: Path, model: Model, history: History) -> str:
    origin, recipe, training = model.origin, model.recipe, history.training
    if origin is None or recipe is None:
        return "Not recorded: these are weights of another program.\n"
    start = f"started with {origin.start}" if origin.start else "from scratch"
    if origin.start is None and recipe.weights is not None:
        start = f"started from {recipe.weights}"
    if origin.teacher is not None:
        start += f", taught by {origin.teacher.weights.title} ({origin.teacher.describe})"
    optimizer = recipe.optimizer
    text = (
        f"{recipe.epochs} epochs on {origin.images:,} images of {origin.data.path} "
        f"({origin.data_name}, fingerprint {origin.data_fingerprint}, hold-out "
        f"{'included' if origin.with_holdout else 'left out'}), {start}; crops of {recipe.size} "
        f"px, batches of {recipe.batch_size}, {optimizer.kind} at a learning rate of "
        f"{optimizer.lr:g}, seed {recipe.seed}. All of the recipe is in {CONFIG}."
    )
    if training is not None:
        text += f" It took {duration(training.seconds)}"
        if training.ap is not None:
            text += ", and AP on the hold-out is " + " / ".join(
                f"{value:.4f}" for value in training.ap.values()
            )
        text += f". Versions: {_versions(training.versions)}."
    if recipe.seed != origin.data.seed:
        text += (
            f" The hold-out was drawn with seed {origin.data.seed}; the command below draws it "
            "with its own."
        )
    return f"{text}\n\n{_code(retrain_command(folder, origin, model))}"


def retrain_command(folder: Path, origin: Origin, model: Model) -> str:
    """The command that trains the design of an entry once more, with the recipe in its config.yaml.

    Args:
        folder: the entry's.
    """
    assert model.recipe is not None
    whole = origin.start is not None and origin.start.part == "detector"
    flags = {
        "preset": folder / CONFIG,
        "data": origin.data.path,
        **_split(origin.data, select_on=False),
        "with_holdout": origin.with_holdout,
        "init_from": model.recipe.weights if whole else None,
        "teacher": origin.teacher and origin.teacher.weights.source,
        "teacher_preset": origin.teacher and origin.teacher.preset,
        "seed": model.recipe.seed,
    }
    return command("nas.retrain", flags)


def _split(data, select_on: bool = True) -> dict[str, object]:
    """The flags that differ from their defaults."""
    default = type(data)()
    names = ("fraction", "holdout", *(("select_on",) if select_on else ()))
    return {
        name: getattr(data, name) if getattr(data, name) != getattr(default, name) else None
        for name in names
    }


def _use(folder: Path, weights: str, model: Model, result: Mapping) -> str:
    chosen: dict[str, object] = {"checkpoint": folder / weights}
    if result["entry"]["by_config"]:
        chosen["preset"] = folder / CONFIG
    scales = ",".join(f"{scale:g}" for scale in result["scales"])
    settings = {
        "data": result["data"],
        "test_size": result["test_size"] if result["test_size"] != "original" else None,
        "flip": result["flip"],
        "scales": scales if scales != "1" else None,
    }
    predictions = {
        "predictions": folder / entry_files.PREDICTIONS,
        "data": result["data"],
        "listed_only": True,
    }
    return _code(
        f"(cd {shlex.quote(str(folder))} && sha256sum --quiet -c {entry_files.SUMS})",
        command("nas.entry", {"check": folder}),
        command("nas.evaluate", chosen | settings),
        command("nas.evaluate", predictions),
        f"{command('nas.detect', chosen)} photos",
    )


def _images(images: Mapping[str, int]) -> str:
    names = {"train": "training", "holdout": "hold-out"}
    return (
        ", ".join(f"{count:,} {names.get(part, part)} images" for part, count in images.items())
        or "its images"
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"


def _code(*lines: str) -> str:
    return "```sh\n" + "\n".join(lines) + "\n```\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
