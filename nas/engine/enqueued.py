"""Designs to try first, as the user gives them: --enqueue and --from-study. Light to import."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import write_text
from detector.base.struct import Struct
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from nas.engine.options import SearchOptions
from nas.search_space.dimensions import Value
from trials.record import Status, TrialRecord, identity_of, rank
from trials.stored import Manifest

QUEUE = "queue.json"
KINDS = ("params", "preset", "config")
TRIES = 100
"""Completions of partial parameters until one is legal."""


@dataclass(frozen=True, kw_only=True)
class Entry(Struct):
    """A design to try, or one of which all is known."""

    origin: str
    """Such as "seeds.yaml, design 2" or "study retina-001 trial 7"."""
    detector: Detector
    recipe: Recipe
    params: dict
    """Of the space; empty for a design that was given as it is."""
    known: TrialRecord | None = None
    """The completed record of the very same training, if there is one."""

    @property
    def identity(self) -> str:
        """As `TrialRecord.identity`."""
        return identity_of(arch_hash(self.detector), self.recipe)


@dataclass(frozen=True, kw_only=True)
class Queue(Struct):
    """Written to a study's folder before the study begins; what is left of it follows from the
    records."""

    entries: tuple[Entry, ...] = ()
    baseline: Entry | None = None
    """The baseline, where another study knows its result."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / QUEUE, json.dumps(self.to_dict()) + "\n")

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Queue:
        """The queue of a study; empty where it was begun without one.

        Raises:
            UserError: it is missing or damaged.
        """
        if not manifest.enqueue and not manifest.from_study:
            return cls()
        path = folder / QUEUE
        try:
            return cls.from_dict(json.loads(path.read_text()), str(path))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); restore it from a copy, or start a new study"
            ) from error


def add_queue_flags(made: ArgumentParser) -> None:
    first = made.add_argument_group("designs to try first (they count among --trials)")
    first.add_argument(
        "--enqueue",
        metavar="FILE",
        type=Path,
        help="YAML or JSON, {designs: [...]}; each design is {params: {...}} of the "
        "space (what is not given is drawn), {preset: NAME} or {config: FILE}, "
        "in the space or not; a sampler learns from the former alone",
    )
    first.add_argument(
        "--from-study",
        metavar="S[:K]",
        help="the K best completed designs of another study (default: all), best "
        "first; a result is taken over, without training, where design, "
        "recipe, images and seed are the same, the baseline's too",
    )


def read_queue(options: SearchOptions, space, data) -> Queue:
    """What the flags ask for, each design checked against the space.

    Args:
        space: for this data (`SearchSpace.on`).

    Raises:
        UserError: a design that cannot be (names the line), or no such study.
    """
    entries, baseline = [], None
    if options.enqueue is not None:
        entries += _from_file(options.enqueue, space, options.seed)
    if options.from_study is not None:
        found, baseline = _from_study(options.from_study, options.runs_dir, space, data)
        entries += found
    different = {entry.identity: entry for entry in reversed(entries)}
    kept = tuple(entry for entry in entries if different[entry.identity] is entry)
    if entries:
        known = sum(entry.known is not None for entry in kept)
        print(
            f"designs to try first: {len(kept)}"
            + (f", of {known} of them the result is known" if known else "")
            + (f" ({len(entries) - len(kept)} stood twice)" if len(entries) > len(kept) else "")
        )
    return Queue(entries=kept, baseline=baseline)


def queue_text(options: SearchOptions) -> str | None:
    """The content of --enqueue as a study's manifest keeps it."""
    return _text(options.enqueue) if options.enqueue else None


def check_same_queue(options: SearchOptions, manifest: Manifest) -> None:
    """That a study is resumed with the queue it was started with.

    Raises:
        UserError: the flags say otherwise.
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


def _text(path: Path) -> str:
    from detector.base.yaml_file import read

    return json.dumps(read(path).data, sort_keys=True)


def _from_file(path: Path, space, seed: int) -> list[Entry]:
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
        _entry(document, place, given, space, f"{seed}/enqueue/{place}")
        for place, given in enumerate(designs)
    ]


def _entry(document, place: int, given, space, seed: str) -> Entry:
    from detector.config.presets import load_design, load_preset

    keys = ("designs", str(place))
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in KINDS:
        raise document.error(
            keys,
            f"design {place + 1} must have one of {', '.join(KINDS)}, such "
            "as {preset: retinaface_mobile025}",
        )
    ((kind, value),) = given.items()
    if kind == "params":
        if not isinstance(value, dict):
            raise document.error(
                (*keys, kind), f"{value!r} must be a mapping of the space's names to values"
            )
        params = _completed(document, (*keys, kind), value, space, seed)
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
        origin=f"{document.path.name}, design {place + 1}",
        params=params,
        detector=detector,
        recipe=recipe,
    )


def _completed(document, keys: tuple[str, ...], given: dict, space, seed: str) -> dict:
    """The given values and, for what they leave open, drawn ones; legal ones if that can be."""
    from nas.engine.gate import evaluate_cost
    from nas.search_space.random_trial import RandomTrial

    known = {d.name: d for d in space.dimensions}
    for name, value in given.items():
        if name not in known:
            raise document.error(
                (*keys, str(name)), "the space has no such dimension; it has " + ", ".join(known)
            )
        if not known[name].has(value):
            values = known[name].values()
            allowed = (
                f"one of {', '.join(map(str, values))}"
                if values is not None
                else f"between {known[name].low:g} and {known[name].high:g}"
            )
            raise document.error(
                (*keys, name), f"cannot be {value!r} in this space, only {allowed}"
            )
    for attempt in range(TRIES):
        rng, params = RandomTrial(f"{seed}/{attempt}"), dict[str, Value]()
        for dimension in space.dimensions:
            if dimension.active(params):
                drawn = dimension.suggest(rng)
                params[dimension.name] = given.get(dimension.name, drawn)
        if set(given) <= set(params) and evaluate_cost(space, params).violation is None:
            break
    idle = [name for name in given if name not in params]
    if idle:
        conditions = ", ".join(
            f"{name}: {' or '.join(map(str, values))}"
            for name, values in known[idle[0]].when.items()
        )
        raise document.error(
            (*keys, idle[0]), f"is active only with {conditions}; add that, or leave it out"
        )
    return params


def _from_study(spec: str, runs_dir: Path, space, data) -> tuple[list[Entry], Entry | None]:
    from analysis.records.load import load_records
    from trials.folders import find_study, read_manifest

    name, _, count = spec.partition(":")
    if count and not (count.isdecimal() and int(count)):
        raise UserError(f"--from-study {spec}: {count} must be a number of designs, at least 1")
    folder = find_study(runs_dir, name)
    manifest = read_manifest(folder)
    completed = [
        r.evolve(speed_score=space.objective.speed_score(r.cost))
        for r in load_records(folder)
        if r.status is Status.COMPLETED
    ]
    if not completed:
        raise UserError(f"--from-study {spec}: study {name} has no completed trial")
    same_images = (
        manifest.data_fingerprint == data.fingerprint and manifest.data.select_on == data.select_on
    )
    ranked = sorted(completed, key=rank)
    sampled = [r for r in ranked if r.number][: int(count) if count else None]
    entries = list(_of_records(sampled, name, space, same_images))
    baselines = [
        entry
        for entry in _of_records([r for r in ranked if not r.number], name, space, same_images)
        if entry.known
    ]
    return entries, next(iter(baselines), None)


def _of_records(
    records: list[TrialRecord], study: str, space, same_images: bool
) -> Iterator[Entry]:
    for record in records:
        params, recipe = {}, space.proxy
        if record.params:
            try:
                resolved, its_recipe = space.resolve(record.params)
            except UserError:  # another space: the design as it is, under this one's recipe
                resolved = None
            if resolved is not None and arch_hash(resolved) == record.design:
                params, recipe = record.params, its_recipe
        same = same_images and record.parent is None and record.recipe == recipe
        yield Entry(
            origin=f"study {study} trial {record.number}",
            detector=record.detector,
            recipe=recipe,
            params=params,
            known=record if same else None,
        )
