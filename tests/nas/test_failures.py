"""Failing trials are retried if that may help, then recorded as failed with their traceback."""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import helpers
import pytest

import detector.training.fit
from detector.base.errors import TrainingError
from detector.training.fit import Epoch
from nas.engine.driver import TrialSetup
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import Status
from trials.run import run_segment


@pytest.fixture
def driver(tmp_path, tiny_space, monkeypatch):
    """A driver whose training raises `faults`: trial number → the errors of its attempts (None:
    success). `parts` records into how many parts each attempt split the images of a step."""
    space = SearchSpace.load(tiny_space)
    for cache in ("a", "b"):
        (tmp_path / cache).mkdir()
    driver = helpers.driver(
        tmp_path,
        replace(space, rungs=(1,)),
        setup=TrialSetup(train=tmp_path / "a", holdout=tmp_path / "b"),
        max_failures=1.0,
    )
    faults = {
        1: [MemoryError("no memory"), RuntimeError("CUDA error: out of memory"), None],
        2: [MemoryError("no memory")] * 5,
        3: [TrainingError("loss not finite at epoch 1")],
        4: [RuntimeError("shapes (3, 4) and (5, 6) do not fit")],
        5: [OSError(5, "Input/output error"), ValueError("another")],
    }

    def fit(config, recipe, *images, workdir, **kwargs):
        driver.parts[int(workdir.name)].append(recipe.accumulate)
        errors = faults.get(int(workdir.name), [])
        if errors and (error := errors.pop(0)):
            raise error
        (workdir / "last.pt").write_text("a checkpoint")
        yield Epoch(
            epoch=1,
            losses={"total": 1.0},
            lr=0.1,
            seconds=1.0,
            images=1,
            ap=dict.fromkeys(("easy", "medium", "hard"), 0.5),
        )

    driver.parts = defaultdict(list)
    monkeypatch.setattr(detector.training.fit, "fit", fit)
    monkeypatch.setattr("detector.data.cache.CachedImages", lambda folder: SimpleNamespace())
    return driver


def test_every_kind_of_failure(driver):
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            break
        for report in run_segment(segment):
            driver.handle_report(report)
    records = driver.records
    ended = {r.number: (r.status, r.retries) for r in records}
    failed, completed = Status.FAILED, Status.COMPLETED
    assert ended == {
        0: (completed, 0),
        1: (completed, 0),
        2: (failed, 0),
        3: (failed, 0),
        4: (failed, 0),
        5: (failed, 1),
        6: (completed, 0),
    }
    assert [r.reason for r in records if r.status is failed] == [
        "MemoryError: no memory; even with one image at a time (16 parts a step)",
        "TrainingError: loss not finite at epoch 1",
        "RuntimeError: shapes (3, 4) and (5, 6) do not fit",
        "ValueError: another",
    ]
    assert Study.open(driver.study.folder.parent, "s").records == records
    assert driver.parts == {
        0: [1],
        1: [1, 2, 4],
        2: [1, 2, 4, 8, 16],
        3: [1],
        4: [1],
        5: [1, 1],
        6: [1],
    }
    assert {r.number: r.notes["accumulate"] for r in records if "accumulate" in r.notes} == {
        1: 4,
        2: 16,
    }
    assert {r.recipe.accumulate for r in records} == {1}
    for record in records:
        folder = driver.workdir(record)
        log = (folder / "log.txt").read_text()
        if record.status is failed:
            assert [path.name for path in folder.iterdir()] == ["log.txt"]
            assert record.traceback.startswith("Traceback")
            assert record.traceback.rstrip().endswith(record.reason.partition(";")[0])
            assert log.endswith(f"failed: {record.reason}\n")
        tries = len(driver.parts[record.number])
        assert log.count("Traceback") == tries - (record.status is completed)
        assert log.count("will be retried") == tries - 1
