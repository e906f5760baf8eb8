"""Plugins from a search to an evaluation, as a user gives them."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import manifest, registrations_undone, trial_record

from detector.base.errors import ConfigError, UserError
from detector.base.plugins import load_plugin
from detector.losses.tables import BOX_LOSSES
from detector.metrics.custom import custom_metrics, register_metric
from nas.samplers.proposer import Proposer, register_sampler
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.hints import command as hint
from trials.plugins import check_plugins, copied_plugins, copy_plugins

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/plugins"
OWN = """\
from detector.metrics.custom import register_metric
from nas.samplers.proposer import register_sampler

@register_metric("faces_found")
def faces_found(predictions, labels):
    return sum(len(rows) for rows in predictions.values())

@register_sampler("narrowest", description="the first choice of each dimension")
class Narrowest:
    def __init__(self, space):
        self.space = space

    def ask(self, records, seed):
        values = {d.name: d.values()[0] for d in self.space.dimensions}
        return values | {"neck.width": (16, 32, 48)[len(records) % 3]}
"""
SPACE = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.kind: {choice: [ghost, mobilenet_v1]}
  neck.width: {choice: [16, 32, 48]}
proxy: {size: 64, batch_size: 16, evaluation: {every: 0}, loss: {box_loss: wasserstein}}
objective: {score: "2 * accuracy - over_budget(macs, 0.5e9)"}
rungs: [1, 2]
eta: 2
"""


@pytest.fixture(autouse=True)
def undone():
    with registrations_undone():
        yield


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_sampler(own, tiny_space):
    load_plugin(own)
    proposer = Proposer(SearchSpace.load(tiny_space), "narrowest")
    expected = {"backbone.width": 0.125, "neck.width": 16, "context.kind": "ssh"}
    assert proposer.ask() == expected
    assert proposer.ask(attempt=1) != proposer.ask(attempt=2)  # it is asked once, then random draws


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"neck.width": 16, "context.kind": "ssh"}, "lacks backbone.width"),
        ({"neck.widht": 16}, "gives neck.widht, which is no dimension"),
        (
            {"backbone.width": 0.125, "neck.width": 17, "context.kind": "ssh"},
            "gives neck.width 17, which the space does not have",
        ),
        (None, "sampler wrong fails: TypeError"),
    ],
)
def test_a_sampler_that_gives_no_design_is_named(params, told, tiny_space):
    @register_sampler("wrong", description="")
    class Wrong:
        def __init__(self, space): ...

        def ask(self, records, seed):
            return params

    with pytest.raises(ConfigError, match=told):
        Proposer(SearchSpace.load(tiny_space), "wrong").ask()


def test_an_objective_scores_numbers_and_arrays():
    load_plugin(EXAMPLES / "own_objective.py")
    space = SearchSpace.load(EXAMPLES / "budget.yaml")
    costs = [trial_record().cost.__class__(params=1, macs=macs) for macs in (10**8, 10**9, 2**31)]
    alone = [space.objective.score_of(0.5, cost) for cost in costs]
    assert alone == pytest.approx([1.0, 0.5, 1 - 0.5 * np.log2(2**31 / 0.5e9)])
    np.testing.assert_allclose(space.objective.scores(np.full(3, 0.5), costs), alone)


def test_an_objective_without_its_plugin():
    with pytest.raises(UserError, match=r"objective → score: .* over_budget is unknown"):
        SearchSpace.load(EXAMPLES / "budget.yaml")


def test_a_box_loss():
    """Equal boxes cost nothing; for a shift d of centres the loss is 1 - exp(-d / 12.8)."""
    import torch

    load_plugin(EXAMPLES / "wasserstein_loss.py")
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    targets = torch.tensor([[3.0, 4, 13, 14], [0, 0, 10, 10]])
    loss = BOX_LOSSES["wasserstein"].loss(boxes, targets)
    assert loss[0].item() == pytest.approx(1 - np.exp(-5 / 12.8), abs=1e-4)
    assert loss[1].item() == pytest.approx(0, abs=1e-3)


def test_a_metric_that_fails_is_named():
    register_metric("broken")(lambda predictions, labels: predictions["x"])
    with pytest.raises(ConfigError, match="metric broken fails: KeyError: 'x'"):
        custom_metrics({}, [])


def test_a_study_runs_only_with_its_plugins(own, tmp_path):
    load_plugin(own)
    study = Study.create(tmp_path, "s", manifest(), copy_plugins)
    (copy,) = copied_plugins(study.folder)
    assert Path(copy).read_text() == OWN
    check_plugins(study.folder)
    assert f"--plugin {own}" in hint("nas.retrain", {"best": True})
    with registrations_undone():
        from detector.base import plugins

        plugins._loaded.clear()
        with pytest.raises(
            UserError, match=r"study s needs its plugin own.py.*: add --plugin .*s/"
        ):
            Study.open(tmp_path, "s")
        own.write_text("x = 1\n")
        load_plugin(own)
        with pytest.raises(UserError, match="has changed since study s was created; give its copy"):
            Study.open(tmp_path, "s")


@pytest.mark.slow
def test_from_a_search_to_a_detection(command, own, tmp_path):
    """Two workers train a backbone, a loss and an objective that they know from the study's copies;
    the other commands know them from their flags."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    names = ("ghost_backbone.py", "own_objective.py", "wasserstein_loss.py")
    for name in names:
        shutil.copy(EXAMPLES / name, tmp_path)
    plugins = [word for name in (*names, "own.py") for word in ("--plugin", name)]
    search = ("--space", "tiny.yaml", "--trials", "2", "--sampler", "narrowest")
    data = ("--data", "synthetic", "--fraction", "0.1")
    common = ("--study", "own", "--tracking-uri", "none")
    code, out, err = command("nas.search", *plugins, *search, *data, *common)
    assert code == 0, err
    assert "ghost" in out
    next_line = next(line for line in out.splitlines() if "nas.retrain --best" in line)
    assert all(name in next_line for name in names)

    code, _, err = command("nas.retrain", "--best", *common)
    assert code == 2 and "study own needs its plugin" in err
    words = shlex.split(next_line.strip())[3:]
    small = ("--epochs", "1", "--size", "64")
    code, out, err = command("nas.retrain", *words, *small)
    assert code == 0, err
    code, out, err = command("nas.evaluate", *plugins, *common, "--json", "result.json")
    assert code == 0, err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["faces_found"] >= 0 and "own      faces_found" in out
    code, out, err = command("nas.search", *search[:2], "--resume", *common)
    assert code == 2 and "study own needs its plugin ghost_backbone.py" in err
