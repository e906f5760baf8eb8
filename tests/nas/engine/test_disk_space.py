"""Estimates of the disk space for checkpoints, and searches that are refused for lack of it."""

from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from detector.base.errors import UserError
from detector.network.model import build_detector
from detector.training.optim import make_optimizer
from detector.weights import checkpoint
from nas.engine import disk_space
from nas.search_space.space import SPACES, SearchSpace
from trials.record import Cost

SPACE = SearchSpace.load(SPACES / "quick.yaml")
Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_estimated_size_of_a_checkpoint(tmp_path, kind):
    torch.set_num_threads(1)
    detector, recipe = SPACE.baseline
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, kind=kind))
    model = build_detector(detector)
    optimizer = make_optimizer(model, recipe.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    checkpoint.save(
        tmp_path / "last.pt", model, detector, recipe, {"optimizer": optimizer.state_dict()}
    )
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    estimate = disk_space.checkpoint_bytes(Cost.of(detector).params, recipe)
    assert size == pytest.approx(estimate, rel=0.1)


def test_existing_checkpoints_need_no_more_space(tmp_path):
    needed = disk_space.checkpoints_needed(SPACE, 20)
    assert disk_space.checkpoints_needed(SPACE, 200) == pytest.approx(10 * needed, rel=0.1)
    line = disk_space.check_disk(tmp_path / "s", SPACE, 20)
    assert f"about {needed / 1e6:.1f} MB at most" in line
    folder = tmp_path / "s" / "trials" / "0001"
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(bytes(needed))
    assert "about 0.0 MB at most" in disk_space.check_disk(tmp_path / "s", SPACE, 20)


def test_too_little_space_is_an_error_before_the_search_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: Usage(free=20_000_000))
    with pytest.raises(
        UserError,
        match=r"runs/s: the checkpoints of 500 trials need about "
        r"[\d.]+ GB, but only 20.0 MB are free; free some",
    ):
        disk_space.check_disk(tmp_path / "runs" / "s", SPACE, 500)
    assert not list(tmp_path.iterdir())
