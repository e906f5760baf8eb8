"""Retrains and searches without disk space for decoded images."""

import json
from collections import namedtuple

import torch

from detector.data import prepare
from nas import search
from nas.models.model_folder import load_model
from nas.search_space.space import SPACES
from nas.terminal import cli

Usage = namedtuple("Usage", "free")


def test_a_retrain_without_space_has_the_same_result(retrained, tiny_study, monkeypatch):
    def result() -> tuple[dict, dict]:
        code, out, err = retrained("--trial", "0", "--epochs", "2")
        assert (code, err) == (0, "")
        assert ("decoded again in every epoch" in out) is disk_is_full
        folder = tiny_study.folder / "retrained" / "r000"
        metrics = json.loads((folder / "metrics.json").read_text())
        return metrics, load_model(folder / "weights.pt").net.state_dict()

    disk_is_full = False
    before, weights = result()
    disk_is_full = True
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: Usage(free=1_000_000))
    after, other_weights = result()
    assert before["ap"] == after["ap"]
    assert [e["losses"] for e in before["epochs"]] == [e["losses"] for e in after["epochs"]]
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_several_workers_need_the_space(retrained, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: Usage(free=1_000_000))
    code, _, err = retrained("--best", "--epochs", "1", "--workers", "2")
    assert code == 2 and err.count("\n") == 1
    assert "a cache of 19 decoded images needs 4" in err and "1.0 MB are free there" in err
    assert "another --runs-dir, a smaller --fraction or a smaller cache_size" in err


def test_a_search_without_space_creates_no_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: Usage(free=40_000_000))
    code = cli.main(
        search.make_parser(),
        search.run,
        [
            "--space",
            str(SPACES / "quick.yaml"),
            "--data",
            "synthetic",
            "--trials",
            "2",
            "--study",
            "s",
            "--runs-dir",
            str(tmp_path / "runs"),
            "--tracking-uri",
            "none",
            "--device",
            "cpu",
        ],
    )
    err = capsys.readouterr().err
    assert code == 2 and "a cache of 320 decoded images needs" in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
