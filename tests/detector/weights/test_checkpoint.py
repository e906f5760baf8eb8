"""Checkpoints come back equal, and are never half-written."""

import json
import pickle

import pytest
import torch
from torch import nn

from detector.base.errors import UserError
from detector.config.detector import Backbone, Detector, Neck, arch_hash
from detector.config.recipe import Optimizer, Recipe
from detector.weights import checkpoint

CONFIG = Detector(
    backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1)),
    neck=Neck(levels=(3, 4), width=8),
)
RECIPE = Recipe(epochs=3, size=64, optimizer=Optimizer(lr=0.3))


def stepped():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 1, 5, 5)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_comes_back_equal(tmp_path):
    model, optimizer = stepped()
    path = tmp_path / "new" / "last.pt"
    checkpoint.save(
        path,
        model,
        CONFIG,
        RECIPE,
        {"optimizer": optimizer.state_dict(), "epoch": 2},
        metadata={"epoch": 2},
    )
    found = checkpoint.load(path)
    assert (found.config, found.recipe, found.state["epoch"]) == (CONFIG, RECIPE, 2)
    for name, value in model.state_dict().items():
        assert found.model[name].equal(value)
    momentum = found.state["optimizer"]["state"][0]["momentum_buffer"]
    assert momentum.equal(optimizer.state_dict()["state"][0]["momentum_buffer"])
    readable = json.loads(path.with_suffix(".json").read_text())
    assert readable["epoch"] == 2
    assert readable["design"] == arch_hash(CONFIG)
    assert Recipe.from_dict(readable["recipe"]) == RECIPE
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.json", "last.pt"]


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    model, _ = stepped()
    path = tmp_path / "last.pt"
    checkpoint.save(path, model, CONFIG, RECIPE, {"epoch": 1})
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: cannot be written \(No space left on device\)"):
        checkpoint.save(path, model, CONFIG, RECIPE, {"epoch": 2})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.pt"]


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(path)
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        checkpoint.load(path)
    model, _ = stepped()
    checkpoint.save(path, model, CONFIG, RECIPE, {})
    path.write_bytes(path.read_bytes()[:-200])  # cut off
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(path)


class Trap:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    path = tmp_path / "trap.pt"
    torch.save({"format": 1, "model": Trap()}, path)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(path)
    assert "run" not in capsys.readouterr().out
