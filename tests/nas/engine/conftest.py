"""Searches with simulated training."""

import random
from pathlib import Path

import helpers
import pytest

from nas.engine.warm_start import WarmStart
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.record import EpochResult
from trials.run import SegmentReport

SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.kind: {choice: [mobilenet_v1, resnet]}
  backbone.width: {choice: [0.125, 0.25, 0.5, 3.0]}
  backbone.block: {choice: [basic, bottleneck], when: {backbone.kind: resnet}}
  neck.width: {choice: [16, 32, 64]}
  context.kind: {choice: [ssh, none]}
proxy: {size: 64, batch_size: 4}
rungs: [1, 2, 4]
eta: 2
constraints: {max_params: 20000000}
"""


@pytest.fixture(scope="module")
def mixed_space(tmp_path_factory):
    """A space with two kinds of backbones."""
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    return SearchSpace.load(path)


@pytest.fixture
def start_search(tmp_path, mixed_space):
    """Function: study's name → its driver; the study is created, or given as `study`."""

    def start(name="s", *, study=None, space=mixed_space, queue=None, inherit=False, trials=8):
        if study is None:
            manifest = helpers.manifest(name, data_fingerprint="abc")
            study = Study.create(tmp_path, name, manifest)
        warm_start = WarmStart(space, study.folder, queue, inherit)
        return helpers.driver(tmp_path, space, study=study, trials=trials, warm_start=warm_start)

    return start


@pytest.fixture
def simulate():
    """Function: runs the search of a driver; returns False if it was killed after `kill_after`
    epochs, else True. `check` is called before each epoch.

    A checkpoint contains the trial's number and the epoch.
    """

    def run(driver, kill_after=None, check=lambda segment, epoch: None):
        epochs = 0
        while True:
            try:
                segment = driver.next_segment()
            except StopIteration:
                driver.close()
                return True
            for epoch in range(segment.epochs_reported + 1, segment.until + 1):
                check(segment, epoch)
                if epochs == kill_after:
                    return False
                _train(driver, segment, epoch)
                epochs += 1

    return run


def _train(driver, segment, epoch):
    folder = Path(segment.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "temporary"
    temporary.write_text(f"{segment.number}/{epoch}")
    temporary.replace(folder / "last.pt")  # as `fit` does: hard links to the old one stay
    rng = random.Random(f"{driver.records[segment.number].design}/{epoch}")
    ap = helpers.equal_ap(0.5 * rng.random() + 0.05 * epoch)
    driver.handle_report(
        SegmentReport(
            number=segment.number,
            ended=epoch == segment.until,
            epoch=EpochResult(
                epoch=epoch,
                losses={"total": 1.0},
                lr=0.1,
                seconds=1.0,
                ap=ap if epoch in segment.evaluate_at else None,
            ),
        )
    )
