"""What a new search learns from: studies of the same kind of images, and recorded tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from detector.base.errors import UserError, first_line
from nas.samplers.features import features
from nas.samplers.gaussian_process import at_full_budget
from nas.samplers.prior import MAX_DESIGNS, MIN_DESIGNS, Prior, Source
from nas.search_space.space import SHORT, SPACES
from trials.folders import read_manifest, study_folders
from trials.record import Cost
from trials.stored import Manifest

PRIOR = "prior.json"
MAX_STUDIES = 8
"""Studies that count, the newest of those that fit."""


def learn_prior(
    runs_dir: Path, data_name: str, proxies: str, without: str | None = None
) -> Prior | None:
    """What the studies in `runs_dir` and the shipped tables say about designs on such images.

    Prints what it learnt from, or which study it could not read.

    Args:
        data_name: of the images; studies of others are left out.
        proxies: short or long, as in `Manifest`; studies of the other kind are left out. Short
            ones favour what learns fast, and say nothing about long ones (docs/samplers.md).
        without: a study that does not count, as the search knows its results already.
    """
    sources = list(itertools.islice(_studies(runs_dir, data_name, proxies, without), MAX_STUDIES))
    if proxies == SHORT:
        sources += _tables(data_name)
    prior = Prior.fit(sources)
    if prior is not None:
        print(
            f"earlier results: {', '.join(prior.sources)}; the search starts from what they say "
            f"about designs, and learns how far it holds here (--no-prior: without)"
        )
    return prior


def stored_prior(folder: Path, manifest: Manifest) -> Prior | None:
    """What a study learnt from earlier ones when it was created.

    Raises:
        UserError: its file is missing or damaged.
    """
    return Prior.load(folder / PRIOR) if manifest.learnt_from else None


def _studies(runs_dir: Path, data_name: str, proxies: str, without: str | None) -> Iterator[Source]:
    """Studies with enough designs, the newest first. The result of a design with its recipe counts
    once: later ones may be copies of it (`--from-study`, or the same seed), by which a model would
    seem to predict designs that it has not seen."""
    from analysis.records.load import load_records

    manifests, seen = [], set[str]()
    for folder in study_folders(runs_dir):
        if folder.name == without:
            continue
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            print(f"note: nothing is learnt from {folder.name}: {first_line(error)}")
            continue
        if (manifest.data_name, manifest.proxies) == (data_name, proxies):
            manifests.append((manifest.created, folder))
    for _, folder in sorted(manifests, reverse=True):
        try:
            records = load_records(folder)
        except UserError as error:
            print(f"note: nothing is learnt from {folder.name}: {first_line(error)}")
            continue
        trained = [
            record
            for record in records
            if record.number and record.params and record.last_evaluation is not None
            if not record.reused and record.identity not in seen
        ][-MAX_DESIGNS:]
        seen.update(record.identity for record in trained)
        results = [
            {e.epoch: e.accuracy_score for e in r.epochs if e.accuracy_score is not None}
            for r in trained
        ]
        if len(trained) >= MIN_DESIGNS:
            rows = [features(r.detector, r.recipe, r.cost) for r in trained]
            yield Source(name=folder.name, features=rows, accuracy=at_full_budget(results))


def _tables(data_name: str) -> Iterator[Source]:
    from nas.study.recorded_table import Table

    for path in sorted(SPACES.glob("*.json")):
        table, space = Table.load(path)
        if table.made.get("data") != data_name:
            continue
        rows = [
            features(detector, recipe, Cost.of(detector))
            for detector, recipe in (space.resolve(row.params) for row in table.rows)
        ]
        yield Source(name=path.name, features=rows, accuracy=table.accuracy[:, -1])
