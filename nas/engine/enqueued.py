"""Designs to try first, from --enqueue and --from-study. No heavy imports (torch, Ray, MLflow)."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.base.files import write_text
from detector.base.json_file import read_json
from detector.base.struct import Struct
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from nas.engine.options import SearchOptions
from nas.search_space.dimensions import Params
from trials.record import TrialRecord, identity_of, learned, rank
from trials.stored import Manifest

if TYPE_CHECKING:
    from detector.base.yaml_file import Document
    from detector.data.open import Data
    from nas.search_space.space import SearchSpace

QUEUE = "queue.json"
KINDS = ("params", "preset", "config")
"""Keys of the designs in an --enqueue file."""
MAX_COMPLETIONS = 100
"""Random completions of partial parameters that are tried to get a feasible design."""


@dataclass(frozen=True, kw_only=True)
class Entry(Struct):
    """A design to try, or one whose result is reused."""

    origin: str
    """Such as "seeds.yaml, design 2" or "study retina-001 trial 7"."""
    detector: Detector
    recipe: Recipe
    params: dict
    """Parameters of the space; empty for a design that is not given by parameters."""
    known: TrialRecord | None = None
    """A completed record of exactly this training in another study, if there is one."""

    @property
    def identity(self) -> str:
        """As `TrialRecord.identity`."""
        return identity_of(arch_hash(self.detector), self.recipe)


@dataclass(frozen=True, kw_only=True)
class Queue(Struct):
    """The designs to try first: queue.json, written before the study starts and never changed.

    Which of them are still pending follows from the records.
    """

    entries: tuple[Entry, ...] = ()
    baseline: Entry | None = None
    """The baseline, if its result in another study is reused."""

    def write(self, folder: Path) -> None:
        """Write queue.json into a study's folder, which is created if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / QUEUE, json.dumps(self.to_dict()) + "\n")

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> Queue:
        """The queue of a study; empty if the study was started without one.

        Raises:
            UserError: queue.json is missing or damaged.
        """
        if not manifest.enqueue and not manifest.from_study:
            return cls()
        path = folder / QUEUE
        try:
            return cls.from_dict(read_json(path), str(path))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); restore it from a copy, or start a new study"
            ) from error


def add_queue_flags(parser: ArgumentParser) -> None:
    """Add --enqueue and --from-study, which `read_queue` reads."""
    group = parser.add_argument_group("designs to try first (included in --trials)")
    group.add_argument(
        "--enqueue",
        metavar="FILE",
        type=Path,
        help="YAML or JSON file, {designs: [...]}; each design is {params: {...}} of the space "
        "(missing ones are sampled), or {preset: NAME} or {config: FILE}, which need not be in "
        "the space; samplers learn from the former only",
    )
    group.add_argument(
        "--from-study",
        metavar="S[:K]",
        help="the K best completed designs of another study (default: all), best first; a result "
        "is reused without training if design, recipe, images and seed are the same, also the "
        "baseline's",
    )


def read_queue(options: SearchOptions, space: SearchSpace, data: Data) -> Queue:
    """The queue that the flags describe, each design checked against the space.

    Args:
        space: for this data (`SearchSpace.on`).

    Raises:
        UserError: a design is invalid (the message has its line), or there is no such study.
    """
    entries, baseline = [], None
    if options.enqueue is not None:
        entries += _from_file(options.enqueue, space, options.seed)
    if options.from_study is not None:
        others, baseline = _from_study(options.from_study, options.runs_dir, space, data)
        entries += others
    first_of = {entry.identity: entry for entry in reversed(entries)}
    unique = tuple(entry for entry in entries if first_of[entry.identity] is entry)
    if entries:
        reused = sum(entry.known is not None for entry in unique)
        duplicates = len(entries) - len(unique)
        print(
            f"designs to try first: {len(unique)}"
            + (f", results reused: {reused}" if reused else "")
            + (f", duplicates left out: {duplicates}" if duplicates else "")
        )
    return Queue(entries=unique, baseline=baseline)


def queue_text(options: SearchOptions) -> str | None:
    """The content of the --enqueue file as `Manifest.enqueue` has it; None without one."""
    return _content(options.enqueue) if options.enqueue else None


def check_same_queue(options: SearchOptions, manifest: Manifest) -> None:
    """Check that the flags ask for the queue that the study was started with.

    Raises:
        UserError: they do not.
    """
    for flag, given, stored in (
        ("--enqueue", queue_text(options), manifest.enqueue),
        ("--from-study", options.from_study, manifest.from_study),
    ):
        if given is not None and given != stored:
            raise UserError(
                f"study {manifest.name} was started with "
                + (f"another {flag}" if stored else f"no {flag}")
                + "; leave the flag out, or start a new study"
            )


def _content(path: Path) -> str:
    from detector.base.yaml_file import read

    return json.dumps(read(path).data, sort_keys=True)


def _from_file(path: Path, space: SearchSpace, seed: int) -> list[Entry]:
    from detector.base.yaml_file import read

    document = read(path)
    for key in document.data:
        if key != "designs":
            raise document.error((str(key),), "unknown key; the only one is designs, a list")
    designs = document.data.get("designs")
    if not isinstance(designs, list) or not designs:
        raise document.error(
            ("designs",),
            "must be a list of designs, such as "
            "[{preset: retinaface_mobile025}, {params: {neck.width: 32}}]",
        )
    return [
        _entry(document, index, design, space, f"{seed}/enqueue/{index}")
        for index, design in enumerate(designs)
    ]


def _entry(document: Document, index: int, design: object, space: SearchSpace, seed: str) -> Entry:
    from detector.config.presets import load_design, load_preset

    keys = ("designs", str(index))
    if not isinstance(design, dict) or len(design) != 1 or next(iter(design)) not in KINDS:
        raise document.error(
            keys,
            f"design {index + 1} must have one of {', '.join(KINDS)}, such "
            "as {preset: retinaface_mobile025}",
        )
    ((kind, value),) = design.items()
    if kind == "params":
        if not isinstance(value, dict):
            raise document.error(
                (*keys, kind), f"{value!r} must be a mapping of the space's names to values"
            )
        params = _complete(document, (*keys, kind), value, space, seed)
        detector, recipe = space.resolve(params)
    else:
        try:
            detector, _ = (
                load_preset(str(value)) if kind == "preset" else load_design(Path(str(value)))
            )
        except UserError as error:
            raise document.error((*keys, kind), str(error)) from error
        params, recipe = {}, space.proxy
    return Entry(
        origin=f"{document.path.name}, design {index + 1}",
        params=params,
        detector=detector,
        recipe=recipe,
    )


def _complete(
    document: Document, keys: tuple[str, ...], given: dict, space: SearchSpace, seed: str
) -> dict:
    """The given parameters and random values for the others, feasible ones if possible."""
    from nas.engine.gate import evaluate_cost
    from nas.search_space.random_trial import RandomTrial

    dimensions = {d.name: d for d in space.dimensions}
    chosen: Params = {}
    for name, value in given.items():
        if name not in dimensions:
            raise document.error(
                (*keys, str(name)),
                "the space has no such dimension; it has " + ", ".join(dimensions),
            )
        found = dimensions[name].find(value)
        if found is None:
            values = dimensions[name].values()
            allowed = (
                f"one of {', '.join(map(str, values))}"
                if values is not None
                else f"between {dimensions[name].low:g} and {dimensions[name].high:g}"
            )
            raise document.error(
                (*keys, name), f"cannot be {value!r} in this space, only {allowed}"
            )
        chosen[name] = found
    for attempt in range(MAX_COMPLETIONS):
        trial, params = RandomTrial(f"{seed}/{attempt}"), Params()
        for dimension in space.dimensions:
            if dimension.active(params):
                sampled = dimension.suggest(trial)
                params[dimension.name] = chosen.get(dimension.name, sampled)
        if set(given) <= set(params) and evaluate_cost(space, params).violation is None:
            break
    inactive = [name for name in given if name not in params]
    if inactive:
        conditions = ", ".join(
            f"{name}: {' or '.join(map(str, values))}"
            for name, values in dimensions[inactive[0]].when.items()
        )
        raise document.error(
            (*keys, inactive[0]), f"is active only with {conditions}; add that, or leave it out"
        )
    return params


def _from_study(
    spec: str, runs_dir: Path, space: SearchSpace, data: Data
) -> tuple[list[Entry], Entry | None]:
    """Entries for the designs that NAME or NAME:K selects, and for the baseline if its result can
    be reused."""
    from analysis.records.load import load_records
    from detector.data.contents import changed_files
    from trials.folders import CONTENTS, find_study, read_manifest

    name, _, count = spec.partition(":")
    if count and not (count.isdecimal() and int(count)):
        raise UserError(f"--from-study {spec}: {count} must be a number of designs, at least 1")
    folder = find_study(runs_dir, name)
    manifest = read_manifest(folder)
    completed = [space.objective.applied_to(r) for r in learned(load_records(folder))]
    if not completed:
        raise UserError(
            f"--from-study {spec}: study {name} has no completed trial that has learned anything"
        )
    same_images = (
        manifest.data_fingerprint == data.fingerprint and manifest.data.select_on == data.select_on
    )
    contents = folder / CONTENTS  # studies of older versions have none
    changed = (
        changed_files(contents, [data.train, data.selection])
        if same_images and contents.exists()
        else []
    )
    if changed:
        same_images = False
        print(
            f"note: {changed[0]}: has changed since study {name} began, as {len(changed)} images "
            "have; so its results are not reused, its designs are trained again"
        )
    ranked = sorted(completed, key=rank)
    sampled = [r for r in ranked if r.number][: int(count) if count else None]
    entries = [_from_record(r, name, space, same_images) for r in sampled]
    baselines = [_from_record(r, name, space, same_images) for r in ranked if not r.number]
    return entries, next((entry for entry in baselines if entry.known), None)


def _from_record(record: TrialRecord, study: str, space: SearchSpace, same_images: bool) -> Entry:
    params, recipe = {}, space.proxy
    if record.params:
        try:
            resolved, resolved_recipe = space.resolve(record.params)
        except UserError:  # params of another space: the design as it is, with this space's recipe
            resolved = None
        if resolved is not None and arch_hash(resolved) == record.design:
            params, recipe = record.params, resolved_recipe
    reusable = same_images and record.parent is None and record.recipe == recipe
    return Entry(
        origin=f"study {study} trial {record.number}",
        detector=record.detector,
        recipe=recipe,
        params=params,
        known=record if reusable else None,
    )
