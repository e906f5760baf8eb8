"""A competition entry packed: what is packed is evaluated, and then read back and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.cli import PartialFailure
from detector.base.errors import UserError, size_text
from detector.base.files import write_text
from detector.config.recipe import Evaluation
from detector.weights.name_maps import parts_of
from nas.evaluation.check_entry import other_design, rescored
from nas.evaluation.model import Scored, score, settings_text
from nas.evaluation.options import EvaluateOptions
from nas.evaluation.subject import of_model
from nas.models import entry_files, entry_report
from nas.models.competition_rules import Rule, broken_rules
from nas.models.entry_record import EntryFacts
from nas.models.model_folder import WEIGHTS, Model, ModelChoice, chosen_model, write_config
from nas.models.report_files import NETWORK, write_network
from nas.study.versions import versions
from nas.tracking.runs import track_evaluation
from trials.record import Cost
from trials.tracking.mlflow_store import check_store

if TYPE_CHECKING:
    from detector.network.counters import ThopProfile


@dataclass(frozen=True, kw_only=True)
class EntryOptions:
    """The flags by which an entry is packed."""

    model: ModelChoice = field(default_factory=ModelChoice)
    output: Path | None = None
    """The folder to write; None means `entry_files.default_folder`."""
    overwrite: bool = False
    zip: bool = False
    onnx: bool = False
    data: str | None = None
    """Folder of the images, or synthetic; None means the data that the model was trained on."""
    ground_truth: Path | None = None
    """Folder of the official lists; None means the one in the data folder, if any."""
    settings: Evaluation = field(default_factory=Evaluation)
    settings_of: str | None = None
    """The preset whose settings these are, unless flags say otherwise."""
    device: str = "auto"
    tracking_uri: str = "none"


def pack_entry(options: EntryOptions) -> dict:
    """Pack a model into a new folder; returns what --json writes.

    Raises:
        UserError: the model, the data or the folder cannot be used; nothing is written then.
        PartialFailure: it is packed, but breaks a rule, or some images cannot be read.
    """
    source = chosen_model(options.model)
    # report a wrong URI before the evaluation
    check_store(options.tracking_uri, source.origin.space if source.origin else None)
    by_config = options.model.preset is not None
    folder = options.output or entry_files.default_folder(source.path)
    entry_files.check_target(folder, archive=options.zip, overwrite=options.overwrite)
    history = entry_report.history_of(source)
    with entry_files.new_folder(folder) as staged:
        with entry_files.writing(folder):
            weights = _copy_weights(source, staged, by_config, options)
        model = entry_files.load_packed(staged, by_config)
        thop = _count(model)
        subject = replace(of_model(model), title=source.title, path=folder / weights.name)
        scored = score(
            subject,
            EvaluateOptions(
                model=options.model,
                data=options.data,
                ground_truth=options.ground_truth,
                settings=options.settings,
                settings_of=options.settings_of,
                device=options.device,
            ),
        )
        result = scored.result | {"entry": _facts(options, by_config, thop)}
        with entry_files.writing(folder):
            _write_files(staged, model, scored, result, thop, history)
        if options.onnx:
            _export(model, staged / entry_files.GRAPH, options.settings)
        with entry_files.writing(folder):
            settings = settings_text(options.settings)
            text = entry_report.report(folder, weights, model, history, result, settings)
            write_text(staged / entry_files.REPORT, text)
            count = entry_files.write_sums(staged)
        _check(staged, model, scored)
        names = [*entry_files.files_of(staged), entry_files.SUMS]
        size = sum((staged / name).stat().st_size for name in names)
        if options.zip:
            entry_files.write_zip(staged, entry_files.zip_path(folder), folder.name)
    _print_packed(folder, count, size, options, result)
    files = (entry_files.REPORT, entry_files.RESULT, entry_files.THOP, entry_files.SUMS)
    track_evaluation(  # the run that nas.evaluate makes of the same weights
        options.tracking_uri,
        options.model.runs_dir,
        result | {"checkpoint": str(source.path)},
        subject.design,
        source.path,
        source.origin,
        [folder / name for name in files],
    )
    return checked_rules(
        folder,
        {
            "entry": str(folder),
            "zip": str(entry_files.zip_path(folder)) if options.zip else None,
            "files": count + 1,
            "bytes": size,
            "evaluation": result,
        },
        result,
    )


def checked_rules(folder: Path, output: dict, result: Mapping) -> dict:
    """`output`, if all rules hold and all images could be read.

    Raises:
        PartialFailure: otherwise.
    """
    found = broken_rules([Rule.from_dict(rule) for rule in result["rules"]])
    if unreadable := result["unreadable"]:
        found.append(
            f"{len(unreadable)} of {result['images']} val images cannot be read (the first is "
            f"{unreadable[0]}) and count as having no detections"
        )
    if found:
        raise PartialFailure(f"{folder}: packed, but: {'; '.join(found)}", output)
    return output


def _copy_weights(source: Model, staged: Path, by_config: bool, options: EntryOptions) -> Path:
    """Copy the weights, and write config.yaml; returns the copy, the first if they are several."""
    recipe = source.recipe
    known = recipe.to_dict() if recipe is not None and not by_config else None
    # Without a recipe it has the settings of the evaluation, which nas.evaluate --preset takes.
    evaluation = options.settings.to_dict()
    write_config(staged, source.title, source.config, known or {"evaluation": evaluation})
    if not by_config:
        return Path(shutil.copyfile(source.path, staged / WEIGHTS))
    copies = [
        shutil.copyfile(path, staged / f"{entry_files.WEIGHTS_STEM}{ending or '.bin'}")
        for ending, path in parts_of(source.path).items()
    ]
    return Path(copies[0])


def _count(model: Model) -> ThopProfile:
    """thop's count of a network.

    Raises:
        UserError: it is not that of the configuration.
    """
    from detector.network.counters import thop_profile

    thop, cost = thop_profile(model.net), Cost.of(model.config)
    if (thop.all_params, thop.macs) != (cost.params, cost.macs):
        raise UserError(
            f"thop counts {thop.all_params:,} parameters and {thop.macs:,} MACs in the packed "
            f"network, the configuration gives {cost.params:,} and {cost.macs:,}: the figures of "
            "an entry must be the same; report this design as a bug"
        )
    return thop


def _facts(options: EntryOptions, by_config: bool, thop: ThopProfile) -> dict:
    """What an entry adds to evaluation.json."""
    lists = options.ground_truth
    return EntryFacts(
        by_config=by_config,
        lists=None if lists is None else str(lists),
        thop={
            "params": thop.params,
            "macs": thop.macs,
            "without_rule": dict(thop.without_rule),
        },
        versions=versions(),
    ).to_dict()


def _write_files(
    staged: Path,
    model: Model,
    scored: Scored,
    result: Mapping,
    thop: ThopProfile,
    history: entry_report.History,
) -> None:
    from detector.metrics.wider_files import write_predictions

    write_predictions(staged / entry_files.PREDICTIONS, scored.predictions)
    write_text(staged / entry_files.RESULT, json.dumps(result, indent=2) + "\n")
    write_text(staged / entry_files.THOP, _thop_text(thop, Cost.of(model.config)))
    write_network(staged, model.config)
    if history.training is not None:
        history.training.write(staged / entry_files.TRAINING)
    if history.space is not None:
        shutil.copyfile(history.space, staged / entry_files.SPACE)


def _thop_text(thop: ThopProfile, cost: Cost) -> str:
    """thop.txt: what thop printed, and how it compares with the configuration."""
    text = (
        f"{thop.text}\nFrom the configuration, layer by layer ({NETWORK}):\n"
        f"{cost.macs:,} MACs and {cost.params:,} parameters, the same"
    )
    if thop.without_rule:
        counts = ", ".join(f"{number:,} of {name}" for name, number in thop.without_rule.items())
        text += f" with those of the modules that thop has no rule for\nand counts as 0: {counts}"
    return f"{text}.\n"


def _export(model: Model, path: Path, settings: Evaluation) -> None:
    """Write the ONNX graph.

    Raises:
        UserError: it differs from torch.
    """
    from detector.export.exporter import check, export

    print("exporting to ONNX ...", flush=True)
    export(model.net, model.config, path, "nms", settings)
    if not check(model.net, path).passed:
        raise UserError(
            f"{entry_files.GRAPH}: differs from torch by more than rounding; pack without --onnx, "
            "and see nas.export"
        )


def _check(staged: Path, model: Model, scored: Scored) -> None:
    """Read the entry back from disk.

    Raises:
        UserError: it is not what was written.
    """
    found = [
        *entry_files.changed_files(staged),
        *other_design(staged, model),
        *rescored(staged, scored.images, scored.truth),
    ]
    if found:
        raise UserError(f"what was packed reads back differently: {found[0]}; check the disk")


def _print_packed(
    folder: Path, count: int, size: int, options: EntryOptions, result: Mapping
) -> None:
    held = sum(rule["holds"] is True for rule in result["rules"])
    note = entry_report.val_note(result)
    if note:
        print(f"note: {note}")
    print(f"packed   {folder}: {count + 1:,} files, {size_text(size)}")
    if options.zip:
        archive = entry_files.zip_path(folder)
        print(f"         {archive}: {size_text(archive.stat().st_size)}")
    print(
        "checked  thop's count of the packed network is that of its configuration\n"
        "         all files read back with their SHA-256\n"
        f"         the {result['images']:,} prediction files give exactly this AP\n"
        f"         {held} of {len(result['rules'])} rules hold"
    )
