"""Plugins from a search to an evaluation, as a user gives them."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY_DETECTOR, manifest, registrations_undone, trial_record

from detector.base.errors import ConfigError, UserError
from detector.base.plugins import load_plugin
from detector.config.recipe import Evaluation, Recipe
from detector.data.types import image_key
from detector.export.exporter import traced_bytes
from detector.export.runtime import Graph
from detector.losses.tables import BOX_LOSSES
from detector.metrics.custom import custom_metrics, register_metric
from detector.network.model import build_detector
from nas.retraining.candidate import Candidate
from nas.retraining.options import RetrainOptions
from nas.retraining.retrain import retrain
from nas.samplers.proposer import Proposer, register_sampler
from nas.search_space.space import SearchSpace
from nas.study.storage import Study
from trials.counts import built_counts
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


def test_a_metric_gets_the_detections_of_all_labels_by_their_names(tiny_data):
    """Prediction files have names without the image's suffix, and may be missing."""
    labels = tiny_data.train.labels[:2]
    rows = np.ones((3, 5))
    register_metric("count")(lambda found, labels: sum(len(found[one.name]) for one in labels))
    for name in (labels[0].name, image_key(labels[0].name)):
        assert custom_metrics({name: rows}, labels) == {"count": 3}


def test_a_loss_that_fails_is_named_but_not_what_memory_lacks(tmp_path):
    path = tmp_path / "losses.py"
    path.write_text(
        "from detector.losses.tables import register_box_loss\n"
        "@register_box_loss('wrong')\n"
        "def wrong(predicted, target):\n"
        "    return predicted + target[:, :3]\n"
        "@register_box_loss('greedy')\n"
        "def greedy(predicted, target):\n"
        "    raise MemoryError\n"
    )
    load_plugin(path)
    boxes = torch.zeros(2, 4)
    with pytest.raises(ConfigError, match=r"box loss wrong fails: .* \(losses.py, line 4\)"):
        BOX_LOSSES["wrong"].loss(boxes, boxes)
    with pytest.raises(MemoryError):  # which trials and retrains know what to do about
        BOX_LOSSES["greedy"].loss(boxes, boxes)


LAYER = """\
from dataclasses import dataclass

import torch

from detector.architecture.custom import register_predictor
from detector.architecture.layers import Conv, CustomLayer


@register_predictor("odd")
@dataclass(frozen=True)
class Odd(CustomLayer):
    cin: int
    width: int

    @property
    def cout(self):
        return self.width

    @property
    def conv(self):
        return Conv(self.cin, self.cout, COUNTED, bias=True, norm=False)

    def leaves(self, size, name):
        yield from self.conv.leaves(size, name)

    def module(self):
        class Module(torch.nn.Module):
            def __init__(self, cin, cout):
                super().__init__()
                self.conv = torch.nn.Conv2d(cin, cout, 3, padding=1)

            def forward(self, x):
                return FORWARD

        return Module(self.cin, self.width)
"""


@pytest.fixture
def odd(tmp_path):
    """Function: a design whose heads are of a plugin's layer, in whose text names are replaced."""

    def make(counted: int = 3, forward: str = "self.conv(x)"):
        path = tmp_path / "odd.py"
        path.write_text(LAYER.replace("COUNTED", str(counted)).replace("FORWARD", forward))
        load_plugin(path)
        return replace(TINY_DETECTOR, head=replace(TINY_DETECTOR.head, predictor="odd"))

    return make


def test_a_layer_that_counts_too_little_ends_a_retrain_before_it_starts(odd, tmp_path, few_images):
    design = odd(counted=1)
    candidate = Candidate(
        title="odd", config=design, recipe=Recipe(), proxy=False, folder=tmp_path / "odd"
    )
    with pytest.raises(UserError, match="mend params and macs, or leaves, of the plugin's layers"):
        retrain(candidate, RetrainOptions(preset="odd", runs_dir=tmp_path, tracking_uri="none"))
    assert not candidate.folder.exists()


def test_a_layer_that_fails_is_named(odd):
    with pytest.raises(ConfigError, match=r"layer of the network fails: .* \(odd.py, line 33\)"):
        built_counts(odd(forward="self.conv(x[:, 1:])"))


def test_a_layer_that_onnx_lacks_is_one_line(odd):
    design = odd(forward="torch.special.i0e(self.conv(x))")
    net = build_detector(design)
    with pytest.raises(UserError, match=r"cannot be written as ONNX: .*i0e.*; let its module use"):
        traced_bytes(net, Graph(detector=design, post="none", settings=Evaluation()))
    assert net.training


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
