"""Shipped spaces are valid, conditions and presets hold, and draws resolve by a pure function."""

import pickle
from types import SimpleNamespace

import optuna
import pytest

from detector.architecture.cost import cost
from detector.base.errors import UserError
from detector.config.detector import arch_hash
from detector.config.presets import PRESETS, load_preset
from nas.search_space.random_trial import RandomTrial
from nas.search_space.space import SPACES, SearchSpace

SHIPPED = sorted(SPACES.glob("*.yaml"))
TINY = """
name: tiny
baseline: retinaface_mobile025
dimensions:
  backbone.kind: {choice: [mobilenet_v1, resnet]}
  v1.width: {sets: backbone.width, choice: [0.125, 0.25], when: {backbone.kind: mobilenet_v1}}
  res.block: {sets: backbone.block, choice: [basic, bottleneck], when: {backbone.kind: resnet}}
  res.width: {sets: backbone.width, float: [0.125, 0.25], when: {res.block: bottleneck}}
  neck.levels: {choice: [P3-P5, P2-P4]}
  head.landmarks: {choice: [true, false]}
  recipe.optimizer.lr: {float: [1e-3, 1e-1], log: true}
proxy: {size: 160}
rungs: [1, 3]
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return SearchSpace.load(path)


def draws(space, count, seed="draws"):
    trial = RandomTrial(seed)
    return [space.suggest(trial) for _ in range(count)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_draws_of_shipped_spaces_resolve_cost_and_hash(path):
    space = SearchSpace.load(path)
    assert space.name == path.stem
    designs = set()
    for params in draws(space, 200 if space.budget is None else 20):
        detector, recipe = space.resolve(params)
        again, recipe_again = space.resolve(dict(reversed(params.items())))
        assert (again, recipe_again) == (detector, recipe)
        count, macs = cost(detector)
        assert count > 0 and macs > 0
        assert all(w % 8 == 0 for w in (*detector.backbone.widths, detector.neck.width))
        assert recipe.epochs == space.rungs[-1]
        designs.add(arch_hash(detector))
    size = space.size() or 10**9
    assert len(designs) > (min(150, size / 2) if space.budget is None else 15)
    assert space.size() is None or space.size() >= len(designs)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_number_of_designs_in_the_header_is_right(path):
    assert f"{SearchSpace.load(path).size():,}" in path.read_text()


def test_flagship_is_mostly_cheap_and_seldom_infeasible():
    space = SearchSpace.load(SPACES / "retina.yaml")
    costs = [cost(space.resolve(params)[0]) for params in draws(space, 500)]
    macs = sorted(macs for _, macs in costs)
    assert 0.8e9 < macs[250] < 3e9
    assert macs[440] < 12e9
    assert macs[75] < 0.8e9
    assert 1 <= sum(params > 45e6 for params, _ in costs) <= 25


def test_a_level_has_its_own_kernel_and_middle_width(tmp_path):
    path = tmp_path / "kernels.yaml"
    path.write_text(
        "name: kernels\nbaseline: damofd_0.5g\nproxy: {}\nrungs: [1]\ndimensions:\n"
        "  backbone.kernel3: {choice: [3, 5]}\n  backbone.mid_width4: {choice: [0.5, 2]}\n"
        "  backbone.width4: {choice: [1, 2]}\n"
    )
    space = SearchSpace.load(path)
    detector, _ = space.resolve(
        {"backbone.kernel3": 5, "backbone.mid_width4": 0.5, "backbone.width4": 2}
    )
    backbone = detector.backbone
    assert backbone.kernels == (3, 5, 7, 5)
    assert backbone.mid_widths == (8, 40, 40, 120)  # at level 4, 40 × 2 × 0.5
    assert backbone.widths == (32, 64, 240, 160)
    path.write_text(path.read_text().replace("damofd_0.5g", "retinaface_mobile025"))
    with pytest.raises(UserError, match=r"mobilenet_v1 has no kernels of its own"):
        SearchSpace.load(path)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads(path):
    detector, recipe = load_preset(path.stem)
    assert cost(detector)[0] > 0 and recipe.epochs > 1


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'resnet' is unknown; there are .*retinaface_mobile025"):
        load_preset("resnet")


def test_a_bundle_has_several_settings_and_its_name_is_what_is_drawn(tmp_path):
    path = tmp_path / "bundles.yaml"
    path.write_text(
        "name: bundles\nbaseline: retinaface_mobile025\nproxy: {}\nrungs: [1]\ndimensions:\n"
        "  head:\n    choice:\n      plain: {head.score: softmax}\n"
        "      deep: {head.score: sigmoid, head.layers: 2, recipe.loss.class_loss: focal}\n"
        "  shape: {choice: {a: {backbone.widths: [8, 16, 24, 32, 40]}}, when: {head: deep}}\n"
        "  layers: {sets: head.layers, int: [0, 1], when: {head: plain}}\n"
        "  loss: {choice: {f: {recipe.loss.class_loss: focal}}, when: {head: plain}}\n"
    )
    space = SearchSpace.load(path)
    assert space.size() == 2 + 1
    assert {tuple(params) for params in draws(space, 30)} == {
        ("head", "shape"),
        ("head", "layers", "loss"),
    }
    detector, recipe = space.resolve({"head": "deep", "shape": "a"})
    assert (detector.head.score, detector.head.layers) == ("sigmoid", 2)
    assert detector.backbone.widths == (8, 16, 24, 32, 40)
    assert recipe.loss.class_loss == "focal"
    assert space.distributions({"head": "deep", "shape": "a"})["head"].choices == ("plain", "deep")


def test_conditions_follow_their_parents(tiny):
    seen = {frozenset(params) for params in draws(tiny, 200)}
    always = {"backbone.kind", "neck.levels", "head.landmarks", "recipe.optimizer.lr"}
    assert seen == {
        frozenset(always | extra)
        for extra in ({"v1.width"}, {"res.block"}, {"res.block", "res.width"})
    }


def test_what_is_not_varied_stays_as_in_the_baseline(tiny):
    point = {
        "backbone.kind": "mobilenet_v1",
        "v1.width": 0.25,
        "neck.levels": "P3-P5",
        "head.landmarks": True,
        "recipe.optimizer.lr": 0.01,
    }
    detector, recipe = tiny.resolve(point)
    assert detector == tiny.baseline[0] == load_preset("retinaface_mobile025")[0]
    assert (recipe.size, recipe.epochs, recipe.optimizer.lr) == (160, 3, 0.01)
    detector, _ = tiny.resolve(point | {"neck.levels": "P2-P4", "v1.width": 0.125})
    assert detector.neck.levels == (2, 3, 4)
    assert (detector.backbone.stem, detector.backbone.widths) == (8, (8, 16, 32, 64, 128))
    basic = {
        "backbone.kind": "resnet",
        "res.block": "basic",
        "neck.levels": "P3-P5",
        "head.landmarks": True,
        "recipe.optimizer.lr": 0.01,
    }
    backbone = tiny.resolve(basic)[0].backbone
    assert (backbone.stem, backbone.widths, backbone.depths) == (
        64,
        (64, 128, 256, 512),
        (2, 2, 2, 2),
    )
    assert backbone.activation == "leaky_relu"  # of the baseline


def test_blocks_of_a_level_are_spread_over_its_rows(tmp_path):
    path = tmp_path / "v2.yaml"
    path.write_text(
        "name: v2\nbaseline: retinaface_mobile025\ndimensions:\n"
        "  backbone.kind: {choice: [mobilenet_v2]}\n"
        "  backbone.depth4: {int: [2, 9]}\n  backbone.width5: {choice: [0.5, 1]}\n"
        "proxy: {}\nrungs: [1]\n"
    )
    space = SearchSpace.load(path)
    rows = {
        blocks: space.resolve(
            {"backbone.kind": "mobilenet_v2", "backbone.depth4": blocks, "backbone.width5": 0.5}
        )[0].backbone
        for blocks in range(2, 10)
    }
    assert [rows[n].depths[3:5] for n in (2, 3, 4, 7)] == [(1, 1), (2, 1), (2, 2), (4, 3)]
    assert all(sum(rows[n].depths[3:5]) == n for n in rows)
    assert rows[2].widths == (16, 24, 32, 64, 96, 80, 160)


def test_params_of_another_space_are_refused(tiny):
    point = draws(tiny, 1)[0]
    for wrong in (
        point | {"v1.depth3": 2},
        {k: point[k] for k in list(point)[1:]},
        point | {"neck.levels": "P3-P6"},
        point | {"head.landmarks": 1},
    ):
        with pytest.raises(UserError, match="do not fit this space"):
            tiny.resolve(wrong)


def test_distributions_rebuild_a_draw(tiny):
    study = optuna.create_study()
    for params in draws(tiny, 20):
        distributions = tiny.distributions(params)
        assert list(distributions) == list(params)
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=0.0))
        trial = optuna.trial.FixedTrial(tiny.to_internal(params))
        assert tiny.suggest(trial) == params  # the same from an Optuna trial
    assert tiny.distributions({}) == {}


def test_a_space_can_be_sent_to_another_process(tiny):
    assert pickle.loads(pickle.dumps(tiny)) == tiny


def test_size_counts_designs(tiny, tmp_path):
    assert tiny.size() is None  # res.width is continuous
    path = tmp_path / "counted.yaml"
    path.write_text(TINY.replace("float: [0.125, 0.25],", "float: [0.125, 0.25], step: 0.0625,"))
    assert SearchSpace.load(path).size() == (2 + 1 + 3) * 2 * 2


def test_the_built_in_scenes_have_a_proxy_of_their_own(tmp_path):
    """Its keys differ from the proxy's, all others are the same."""
    path = tmp_path / "two.yaml"
    path.write_text(
        "name: two\nbaseline: retinaface_mobile025\nrungs: [1, 3]\n"
        "proxy: {size: 192, evaluation: {size: 448, keep: 9}}\n"
        "proxy_synthetic: {size: 96, evaluation: {size: 160}}\n"
        "dimensions: {neck.width: {choice: [16, 32]}}\n"
    )
    space = SearchSpace.load(path)
    photographs = space.on(SimpleNamespace(root=tmp_path)).proxy
    drawn = space.on(SimpleNamespace(root=None)).proxy
    assert [(r.size, r.evaluation.size, r.evaluation.keep) for r in (photographs, drawn)] == [
        (192, 448, 9),
        (96, 160, 9),
    ]
    assert photographs.epochs == drawn.epochs == 3
    assert space.on(SimpleNamespace(root=None)).baseline[1] == drawn
