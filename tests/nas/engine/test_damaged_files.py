"""Damaged checkpoints and changed images of a search: trials start again, images are compared."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import helpers
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.contents import save_contents
from detector.data.open import open_data
from nas import search
from nas.engine.enqueued import read_queue
from nas.engine.failures import MAX_DAMAGED_CHECKPOINTS
from nas.engine.open_study import open_study
from nas.engine.options import SearchOptions
from nas.engine.run_search import trial_setup
from nas.search_space.space import SearchSpace
from trials.folders import CONTENTS
from trials.record import EpochResult, Status
from trials.run import Failure, SegmentReport


@pytest.fixture
def space(tiny_space):
    return SearchSpace.load(tiny_space)


@pytest.fixture
def driver(tmp_path, space):
    return helpers.driver(tmp_path, replace(space, rungs=(1, 2)))


def report_epoch(driver, segment, epoch):
    result = EpochResult(
        epoch=epoch, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=helpers.equal_ap(0.5)
    )
    ended = epoch == segment.until
    driver.handle_report(SegmentReport(number=segment.number, epoch=result, ended=ended))


def report_damage(driver, segment):
    """What a worker reports, which removes the checkpoint."""
    (driver.workdir(driver.records[segment.number]) / "last.pt").unlink(missing_ok=True)
    failure = Failure(reason="DamagedCheckpoint: last.pt: cut off", checkpoint_damaged=True)
    driver.handle_report(SegmentReport(number=segment.number, failure=failure, ended=True))
    driver.check()


def test_a_trial_starts_again(driver, caplog):
    """Also the baseline; and nothing counts as failed."""
    segment = replace(driver.next_segment(), until=2)
    assert segment.number == 0
    workdir = driver.workdir(driver.records[0])
    workdir.mkdir(parents=True)
    (workdir / "last.pt").write_text("a checkpoint")
    report_epoch(driver, segment, 1)
    report_damage(driver, segment)
    assert "trial 0 starts again: DamagedCheckpoint: last.pt" in caplog.text
    assert "starts again" in (workdir / "log.txt").read_text()
    segment = driver.next_segment()
    assert (segment.number, segment.epochs_reported) == (0, 0)
    report_epoch(driver, segment, 1)
    record = driver.records[0]
    assert [epoch.epoch for epoch in record.epochs] == [1] and record.status is not Status.FAILED
    assert driver.stop_reason() is None and record.retries == 0


def test_a_disk_that_damages_every_checkpoint_ends_it(driver):
    for _ in range(MAX_DAMAGED_CHECKPOINTS):
        segment = driver.next_segment()
        assert segment.number == 0
        report_damage(driver, segment)
    report_damage(driver, driver.next_segment())
    assert driver.records[0].status is Status.FAILED


def test_damaged_images_stop_the_search_but_no_trial(driver):
    segment = driver.next_segment()
    failure = Failure(reason="DamagedCache: labels.npz", images_damaged=True)
    driver.handle_report(SegmentReport(number=segment.number, failure=failure, ended=True))
    with pytest.raises(UserError, match=r"labels\.npz"):
        driver.check()
    assert driver.records[0].status is Status.RUNNING


@pytest.fixture
def root(tmp_path):
    return helpers.photographs(tmp_path, 24, (64, 64))


def options(tmp_path, root, *flags):
    parsed = search.make_parser().parse_args(
        [
            *("--space", str(tmp_path / "tiny.yaml"), "--runs-dir", str(tmp_path / "runs")),
            *("--data", str(root), "--study", "one", "--trials", "2", *flags),
        ]
    )
    return SearchOptions.of(parsed)


@pytest.fixture
def started(tmp_path, root, space):
    """A study whose images have been decoded."""
    study, data = open_study(options(tmp_path, root), space)
    trial_setup(study, space.on(data), data, SimpleNamespace(device="cpu", cpus=1))
    assert (study.folder / CONTENTS).exists()
    return study


def change(root):
    path = root / "train" / "images" / "0--E" / "7.bmp"
    cv2.imwrite(str(path), np.full((64, 64, 3), 99, np.uint8))
    return path


def test_a_changed_image_is_noticed_on_resume(tmp_path, root, space, started):
    open_study(options(tmp_path, root, "--resume"), space)
    path = change(root)
    with pytest.raises(UserError, match=r"7\.bmp: has changed since study one began, as 1 of") as e:
        open_study(options(tmp_path, root, "--resume"), space)
    assert str(path) in str(e.value) and str(e.value).endswith("or start a new study")


def test_a_copy_of_the_images_is_accepted(tmp_path, root, space, started):
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    study, _ = open_study(options(tmp_path, copy, "--resume"), space)
    assert study.name == "one"


def test_a_study_without_stored_contents_is_resumed(tmp_path, root, space, started):
    (started.folder / CONTENTS).unlink()
    change(root)
    open_study(options(tmp_path, root, "--resume"), space)


def test_results_on_changed_images_are_not_reused(tmp_path, root, space, started, capsys):
    detector, recipe = space.baseline
    record = helpers.trial_record(
        0,
        detector=detector,
        recipe=recipe,
        epochs=(
            EpochResult(
                epoch=2, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=helpers.equal_ap(0.5)
            ),
        ),
    )
    started.add(record, {})
    flags = replace(options(tmp_path, root), study="two", from_study="one")
    data = open_data(started.manifest.data)
    assert read_queue(flags, space.on(data), data).baseline is not None
    change(root)
    assert read_queue(flags, space.on(data), data).baseline is None
    assert "7.bmp: has changed since study one began" in capsys.readouterr().out


def test_new_contents_are_stored_for_an_old_study(tmp_path, root, space, started):
    (started.folder / CONTENTS).unlink()
    data = open_data(started.manifest.data)
    save_contents(started.folder / CONTENTS, [data.train, data.selection])
    change(root)
    with pytest.raises(UserError, match="has changed"):
        open_study(options(tmp_path, root, "--resume"), space)
