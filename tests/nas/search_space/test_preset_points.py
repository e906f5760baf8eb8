"""Published detectors are points of the shipped spaces."""

from dataclasses import replace

import helpers
import pytest

from detector.config.detector import arch_hash
from detector.config.presets import load_preset
from nas.search_space.space import SPACES, SearchSpace

MOBILE025 = {
    "backbone": "mobilenet_v1",
    "v1.width": 0.25,
    "v1.stem": 8,
    "v1.width3": 1,
    "v1.width5": 1,
    "v1.depth2": 2,
    "v1.depth3": 2,
    "v1.depth4": 6,
    "v1.depth5": 2,
    "neck": "fpn",
    "neck.levels": "P3-P5",
    "neck.width": 64,
    "context.kind": "ssh",
    "activation": "leaky_relu",
    "head": "retinaface",
    "anchors.name": "retinaface",
    "head.backgrounds": 1,
    "head.landmarks": True,
    "retinaface.loss": "iou",
    "recipe.optimizer.lr": 0.03,
}
RESNET50 = {
    "backbone": "resnet",
    "res.variant": "plain",
    "res.block": "bottleneck",
    "bottleneck.width": 1.0,
    "res.depth2": 3,
    "res.depth3": 4,
    "res.depth4": 6,
    "res.depth5": 3,
    "neck": "fpn",
    "neck.levels": "P3-P5",
    "res.neck.width": 256,
    "context.kind": "ssh",
    "activation": "relu",
    "head": "retinaface",
    "anchors.name": "retinaface",
    "head.backgrounds": 1,
    "head.landmarks": True,
    "retinaface.loss": "iou",
    "recipe.optimizer.lr": 0.03,
}
YUNET_N = {
    "backbone": "yunet",
    "yunet.depth3": 2,
    "yunet.depth4": 2,
    "yunet.depth5": 2,
    "yunet.width": "x1",
    "context.kind": "none",
    "activation": "relu",
    "head": "yunet",
    "yunet.layers": 1,
    "yunet.head.width": 64,
    "head.landmarks": True,
    "yunet.loss": "simota",
    "recipe.optimizer.lr": 0.03,
}
SCRFD = {
    "neck": "pafpn",
    "pafpn.levels": "P3-P5",
    "context.kind": "none",
    "activation": "relu",
    "head": "scrfd",
    "anchors.name": "retinaface",
    "scrfd.layers": 2,
    "scrfd.width": 64,
    "head.landmarks": False,
    "scrfd.loss": "atss",
    "recipe.optimizer.lr": 0.03,
}
RESNET18 = {name: value for name, value in RESNET50.items() if name != "bottleneck.width"} | {
    "res.block": "basic",
    "basic.width": 1.0,
    "res.depth2": 2,
    "res.depth3": 2,
    "res.depth4": 2,
    "res.depth5": 2,
}
ERESFD = {
    "backbone": "eresnet",
    "eresnet.depth3": 3,
    "eresnet.depth4": 3,
    "eresnet.depth5": 3,
    "eresnet.width": "x1",
    "eresnet.levels": "P2-P7",
    "neck.split": 6,
    "context.kind": "cascade",
    "activation": "relu",
    "head": "retinaface",
    "anchors.name": "single_tall",
    "head.backgrounds": 3,
    "head.landmarks": False,
    "retinaface.loss": "iou",
    "recipe.optimizer.lr": 0.03,
}
IN_FLAGSHIP = {
    "retinaface_mobile025": MOBILE025,
    "retinaface_resnet18": RESNET18,
    "retinaface_resnet34": RESNET18
    | {"res.depth2": 3, "res.depth3": 4, "res.depth4": 6, "res.depth5": 3},
    "retinaface_resnet50": RESNET50,
    "scrfd_2.5g": SCRFD | {"backbone": "scrfd_2.5g", "neck.width": 24, "scrfd.block": "conv"},
    "damofd_2.5g": SCRFD | {"backbone": "damofd_2.5g", "neck.width": 24, "scrfd.block": "conv"},
    "yunet_n": YUNET_N,
    "eresfd": ERESFD,
}
DAMOFD_05G = {
    "backbone": "damofd",
    "damofd.block": "inverted",
    "damofd.width": 1,
    "damofd.kernel2": 3,
    "damofd.kernel3": 7,
    "damofd.kernel4": 7,
    "damofd.kernel5": 5,
    "damofd.mid_width3": 1,
    "damofd.mid_width4": 1,
    "damofd.mid_width5": 1,
    "damofd.depth2": 2,
    "damofd.depth3": 2,
    "damofd.depth4": 4,
    "damofd.depth5": 2,
}


@pytest.mark.parametrize("preset", IN_FLAGSHIP)
def test_presets_are_points_of_the_flagship(preset):
    space = SearchSpace.load(SPACES / "retina.yaml")
    detector, _ = space.resolve(IN_FLAGSHIP[preset])
    assert arch_hash(detector) == arch_hash(load_preset(preset)[0])


@pytest.mark.parametrize(
    "preset, backbone", [("scrfd_0.5g", {"backbone": "scrfd_0.5g"}), ("damofd_0.5g", DAMOFD_05G)]
)
def test_some_are_except_for_the_groups_of_their_normalisation(preset, backbone):
    space = SearchSpace.load(SPACES / "retina.yaml")
    detector, _ = space.resolve(SCRFD | backbone | {"neck.width": 16, "scrfd.block": "separable"})
    published, _ = load_preset(preset)
    assert arch_hash(detector) == arch_hash(
        replace(published, head=replace(published.head, norm_groups=8))
    )


def test_the_baseline_of_the_mobile_space_is_a_point_of_it():
    space = SearchSpace.load(SPACES / "mobile.yaml")
    detector, _ = space.resolve(
        {
            "backbone": "yunet",
            "yunet.width": "s",
            "yunet.depth3": 2,
            "yunet.depth4": 2,
            "yunet.depth5": 2,
            **helpers.YUNET_S_POINT,
        }
    )
    assert arch_hash(detector) == arch_hash(space.base) == arch_hash(load_preset("yunet_s")[0])


def test_the_header_names_the_presets_in_the_flagship():
    header = (SPACES / "retina.yaml").read_text().split("name: retina")[0]
    assert all(preset in header for preset in IN_FLAGSHIP)
