"""The study of a search: a new one, or an existing one that is resumed unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import UserError
from detector.base.files import exists, write_text
from detector.base.output import print_wrapped
from nas.engine.enqueued import Queue, check_same_queue, queue_text, read_queue
from nas.engine.options import SearchOptions
from nas.samplers.proposer import DEFAULT, SAMPLERS
from nas.search_space.mac_budget import Budget
from nas.search_space.space import LONG, SHORT, SearchSpace
from nas.study.versions import versions
from trials.folders import CACHE, CONTENTS, MANIFEST, SPACE, new_study_name, newest_study
from trials.plugins import copy_plugins
from trials.stored import Manifest

if TYPE_CHECKING:
    from detector.config.recipe import DataChoice
    from detector.data.open import Data
    from detector.data.prepare import Part
    from nas.study.storage import Study

IN_MANIFEST = ("proxies", "sampler", "scheduler", "seed")
IN_DATA = ("fraction", "holdout", "select_on")
"""Flags that the study holds, in its manifest and in that of its images: they stay as they are."""
DEFAULT_TRIALS = 50
"""Designs that a search samples without --trials."""


def open_study(
    options: SearchOptions, space: SearchSpace, on_gpus: bool = False
) -> tuple[Study, Data]:
    """The study of a search and its images. Nothing is written before all checks have passed.

    Args:
        on_gpus: whether trials will train on GPUs.

    Raises:
        UserError: the study exists (without --resume), was started with other settings, or cannot
            be created.
    """
    from nas.study.storage import study_exists

    name = options.study
    if name is None:
        name = newest_study(options.runs_dir, space.name) if options.resume else None
        name = name or new_study_name(options.runs_dir, space.name)
    if not exists(options.runs_dir / name / MANIFEST):
        return _new_study(options, space, name, on_gpus)
    if not options.resume:
        raise study_exists(options.runs_dir, name)
    return _resumed_study(options, space, name)


def choose_proxies(options: SearchOptions, space: SearchSpace, data: Data, on_gpus: bool) -> str:
    """Whether a new search trains short or long proxies.

    Raises:
        UserError: the space or the images have no long ones.
    """
    if options.proxies == LONG and space.proxy_long is None:
        raise UserError(
            f"--proxies long: {space.path} has only short ones; leave the flag out, or give it "
            "the keys proxy_long and rungs_long"
        )
    if options.proxies == LONG and data.root is None:
        raise UserError(
            "--proxies long: the built-in scenes have only short ones; leave the flag out, or "
            "give photographs (--data)"
        )
    if options.proxies != "auto":
        return options.proxies
    has_long = space.proxy_long is not None and data.root is not None
    return LONG if has_long and on_gpus else SHORT


def proxies_note(space: SearchSpace) -> str:
    """What its proxies are; `space` is that of a study (`SearchSpace.on`)."""
    *earlier, last = space.rungs
    compared = f", compared after {', '.join(map(str, earlier))}" if earlier else ""
    return f"{last} epochs of {space.proxy.size} px crops{compared}"


def _new_study(
    options: SearchOptions, space: SearchSpace, name: str, on_gpus: bool
) -> tuple[Study, Data]:
    from detector.data.open import resolve_data
    from detector.data.prepare import space_for_caches
    from nas.engine.disk_space import check_disk
    from nas.engine.earlier_studies import PRIOR, learn_prior
    from nas.engine.gate import check_feasible
    from nas.study.storage import Study

    path, line = resolve_data(options.data)
    data = _open_data(replace(options.data_choice, path=path))
    print(f"study {name}: {line}")
    proxies = choose_proxies(options, space, data, on_gpus)
    studied = space.on(data, proxies)
    if proxies == LONG:
        print_wrapped(
            f"long proxies: {proxies_note(studied)} (--proxies short: {proxies_note(space)})"
        )
    if note := studied.objective.growth_note:
        print_wrapped(note)
    check_feasible(space)
    if studied.proxy.weights:
        from detector.weights.initialize import find_pretrained

        find_pretrained(space.base, studied.proxy.weights)  # raises if the file is missing
    queue = read_queue(options, studied, data)
    folder, trials = options.runs_dir / name, options.trials or DEFAULT_TRIALS
    print(check_disk(folder, studied, trials, options.inherit))
    space_for_caches(shared_images(studied, data), folder / CACHE).check()
    sampler = options.sampler or DEFAULT
    prior = None
    from_study = options.from_study and options.from_study.partition(":")[0]
    if options.prior and SAMPLERS[sampler].uses_prior:
        prior = learn_prior(options.runs_dir, data.name, proxies, without=from_study)
    manifest = Manifest(
        name=name,
        space=space.name,
        created=time.time(),
        trials=trials,
        seed=options.seed,
        sampler=sampler,
        scheduler=options.scheduler or "halving",
        proxies=proxies,
        space_hash=space_hash(space.path, proxies),
        budget=space.budget.to_dict() if space.budget else None,
        space_text=space.path.read_text(encoding="utf-8"),
        data=replace(options.data_choice, path=path),
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        images={"train": len(data.train), "holdout": len(data.holdout), "val": len(data.val)},
        objective=studied.objective,
        versions=versions(),
        inherit=options.inherit,
        enqueue=queue_text(options),
        from_study=options.from_study,
        learnt_from=prior.sources if prior else (),
    )

    def prepare(folder: Path) -> None:
        write_text(folder / SPACE, manifest.space_text)
        copy_plugins(folder)
        if queue != Queue():
            queue.write(folder)
        if prior is not None:
            prior.write(folder / PRIOR)

    study = Study.create(options.runs_dir, name, manifest, prepare)
    return study, data


def _resumed_study(options: SearchOptions, space: SearchSpace, name: str) -> tuple[Study, Data]:
    from detector.data.contents import check_contents
    from detector.data.open import resolve_data
    from nas.engine.disk_space import check_disk
    from nas.study.storage import Study

    study = Study.open(options.runs_dir, name)
    manifest = study.manifest
    check_unchanged(options, manifest, space)
    path, line = resolve_data(options.data or manifest.data.path)
    data = _open_data(replace(manifest.data, path=path))
    print(f"study {name}: {line}")
    check_contents(study.folder / CONTENTS, [data.train, data.selection], name, "start a new study")
    if manifest.data_fingerprint != data.fingerprint:
        raise UserError(
            f"study {name} was started with other images (fingerprint "
            f"{manifest.data_fingerprint}, now {data.fingerprint}); give the same images, or "
            "start a new study"
        )
    trials = options.trials or manifest.trials
    studied = space.on(data, manifest.proxies)
    print(check_disk(study.folder, studied, trials, manifest.inherit))
    return study, data


def _open_data(choice: DataChoice) -> Data:
    """The images; prints notes about them.

    Raises:
        UserError: they cannot be read, or have no faces to learn or to compare designs on.
    """
    from detector.data.open import open_data
    from detector.metrics.face_counts import check_faces

    data = open_data(choice)
    notes = check_faces(data.train, data.selection, choice.path)
    for warning in [*data.warnings, *notes]:
        print(f"note: {warning}")
    if not data.has_landmarks:
        print("note: these images have no landmarks, so the landmark loss is zero")
    if choice.select_on == "val":
        print(
            "note: designs are compared on the val images themselves (--select-on val), so their "
            "AP there is no longer an unbiased estimate"
        )
    return data


def check_unchanged(options: SearchOptions, manifest: Manifest, space: SearchSpace) -> None:
    """Check that the flags ask for the search that the study was started with.

    Raises:
        UserError: they do not.
    """
    if manifest.space_hash != space_hash(space.path, manifest.proxies):
        import difflib

        if manifest.space != space.name:
            raise UserError(
                f"study {manifest.name} is of space {manifest.space}, not of {space.name}; give "
                "that one with --space, or another --study"
            )
        before = manifest.space_text.splitlines()
        now = space.path.read_text(encoding="utf-8").splitlines()
        changed = [
            line
            for line in difflib.unified_diff(before, now, lineterm="", n=0)
            if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:2] != "#"
        ]
        raise UserError(
            f"study {manifest.name} was started with another {space.name} space; the first "
            f"differences: {' | '.join(changed[:3]) or 'white space'}; undo them, or "
            "start a new study"
        )
    if manifest.budget is not None and Budget.from_dict(manifest.budget) != space.budget:
        budget = Budget.from_dict(manifest.budget)
        raise UserError(
            f"study {manifest.name} was started with a budget of {budget}, now it is "
            f"{space.budget}; give --budget {budget.macs / 1e9:g}G, or start a new study"
        )
    stored = {key: getattr(manifest, key) for key in IN_MANIFEST}
    stored |= {key: getattr(manifest.data, key) for key in IN_DATA}
    for key, value in stored.items():
        if options.flags.get(key) not in (None, value):
            flag = key.replace("_", "-")
            raise UserError(
                f"study {manifest.name} was started with --{flag} {value}; leave the flag out, "
                "or start a new study"
            )
    if not options.prior and manifest.learnt_from:
        raise UserError(
            f"study {manifest.name} was started without --no-prior and has learnt from earlier "
            "studies; leave the flag out, or start a new study"
        )
    if options.inherit and not manifest.inherit:
        raise UserError(
            f"study {manifest.name} was started without --inherit; leave the flag out, or start "
            "a new study"
        )
    check_same_queue(options, manifest)


def shared_images(space: SearchSpace, data: Data) -> list[Part]:
    """The images that all trials share: those to train on, and those to be evaluated on."""
    from detector.data.prepare import Part

    return [
        Part(data.train, space.proxy.cache_size),
        Part(data.selection, space.proxy.evaluation.cache_size),
    ]


def space_hash(path: Path, proxies: str = SHORT) -> str:
    """Hash of what a search depends on, 12 hex digits: a space's content without comments, without
    `full`, which comes after the search, and without the long proxies if it trains short ones."""
    from detector.base.yaml_file import read

    unused = ("full",) if proxies == LONG else ("full", "proxy_long", "rungs_long")
    content = {key: value for key, value in read(path).data.items() if key not in unused}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
