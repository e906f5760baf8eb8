"""Trials that inherit weights: which parent, which of its checkpoints, and real training."""

import random
from pathlib import Path

import pytest
import torch

from detector.config.detector import Backbone, Detector, Head, Neck
from detector.config.recipe import Recipe
from detector.data.cache import cache_images
from detector.weights import checkpoint
from detector.weights.file_names import LAST
from nas.engine.weight_inheritance import INIT, parent_of, save_parent_checkpoint
from nas.study.storage import Study
from trials.record import Status
from trials.run import Segment, run_segment


@pytest.fixture
def search_with_inheritance(start_search, simulate):
    """Function: as `start_search` → driver, function that simulates its search. That checks that
    trials start from the checkpoint which their parent had when it was chosen."""

    def start(*args, **changes):
        driver = start_search(*args, inherit=True, **changes)
        start_record = driver._warm_start.start_record
        checkpoints = {
            r.number: (driver.workdir(r) / INIT).read_text()
            for r in driver.records
            if r.parent is not None and (driver.workdir(r) / INIT).exists()
        }

        def start_and_note(record, records):
            record = start_record(record, records)
            if record.parent is not None:
                checkpoints[record.number] = (driver.workdir(record) / INIT).read_text()
            return record

        def check(segment, epoch):
            if segment.init and epoch == 1:
                assert Path(segment.init).read_text() == checkpoints[segment.number]

        driver._warm_start.start_record = start_and_note
        return driver, lambda kill_after=None: simulate(driver, kill_after, check)

    return start


def test_trials_inherit_from_the_nearest_trained_design(search_with_inheritance):
    driver, run = search_with_inheritance(trials=12)
    run()
    records = driver.records
    assert records[0].parent is None
    children = [r for r in records if r.parent is not None]
    assert len(children) >= 8
    for record in children:
        parent = records[record.parent]
        assert parent.detector.backbone.kind == record.detector.backbone.kind
        assert not (driver.workdir(record) / INIT).exists()  # the trial has ended
    others = [r for r in records if r.parent is None and r.status is not Status.INFEASIBLE]
    kinds = [r.detector.backbone.kind for r in others]
    assert kinds.count("mobilenet_v1") == 1  # the baseline


def test_the_parent_is_the_design_with_the_fewest_differences(tmp_path, start_search, simulate):
    driver = start_search(trials=12)
    simulate(driver)
    candidates = [
        r
        for r in driver.records
        if r.status is not Status.INFEASIBLE and r.detector.backbone.kind == "mobilenet_v1"
    ]

    def folder_with_checkpoint(record):
        folder = tmp_path / "all"
        folder.mkdir(exist_ok=True)
        (folder / LAST).touch()
        return folder

    for record in candidates:
        if not record.params:
            continue
        parent = parent_of(record, candidates, folder_with_checkpoint)
        differences = {
            r.number: sum(r.params.get(name) != value for name, value in record.params.items())
            for r in candidates
            if r.params and r.number != record.number
        }
        assert parent.number == 0 or differences[parent.number] == min(differences.values())
    child = candidates[1]
    assert parent_of(child, candidates, lambda record: tmp_path / "none") is None
    equal = [child.evolve(number=90), child.evolve(number=80)]
    assert parent_of(child, equal, folder_with_checkpoint).number == 90  # the first one


def test_a_killed_search_resumes_with_the_same_parents(
    tmp_path, search_with_inheritance, without_times
):
    uninterrupted, run = search_with_inheritance("uninterrupted", trials=6)
    run()
    killed, run = search_with_inheritance("killed", trials=6)
    rng = random.Random(0)
    while not run(kill_after=rng.randrange(1, 9)):
        study = Study.open(tmp_path, "killed")
        killed, run = search_with_inheritance(study=study, trials=6)
    assert without_times(killed.records) == without_times(uninterrupted.records)
    assert sum(r.parent is not None for r in uninterrupted.records) >= 3


def test_real_training_with_inherited_weights(tmp_path, tiny_data):
    """A wider child: the record says what was copied, training differs from one from scratch, and
    two segments give the same weights as one."""
    train, holdout = (
        str(cache_images(images, tmp_path / "cache", None).folder)
        for images in (tiny_data.train, tiny_data.holdout)
    )

    def design(width):
        return Detector(
            backbone=Backbone(
                kind="mobilenet_v1", stem=4, widths=(4, 8, 8, width, width), depths=(1,) * 5
            ),
            neck=Neck(levels=(4, 5), width=width),
            head=Head(landmarks=False),
        )

    def trained(name, width, until, epochs_reported=0, init=None):
        segment = Segment(
            number=1,
            detector=design(width),
            recipe=Recipe(epochs=2, size=64, batch_size=10),
            until=until,
            evaluate_at=(2,),
            epochs_reported=epochs_reported,
            train=train,
            holdout=holdout,
            init=init,
            workdir=str(tmp_path / name),
            device="cpu",
        )
        reports = list(run_segment(segment))
        assert all(report.failure is None for report in reports), reports
        return reports

    trained("parent", 8, 2)
    for name in ("one", "two"):
        save_parent_checkpoint(tmp_path / "parent", tmp_path / name)
    init = str(tmp_path / "one" / INIT)
    one = trained("one", 16, 2, init=init)
    two = [
        *trained("two", 16, 1, init=init),
        *trained("two", 16, 2, epochs_reported=1, init=init),
    ]
    start = one[-1].notes["start"]
    assert 0 < start["copied"]["all"] < 1 and start["from_here"] and start["before"] is None
    assert two[-1].notes["start"] == start
    weights, others = (checkpoint.load(tmp_path / name / LAST).model for name in ("one", "two"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    scratch = trained("scratch", 16, 1)
    assert scratch[0].epoch.losses != one[0].epoch.losses and "start" not in scratch[0].notes
