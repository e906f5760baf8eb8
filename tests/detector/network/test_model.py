"""The built detector: shapes, gradients, independence of the batch, initialisation."""

import pytest
import torch
from torch.testing import assert_close

from detector.architecture.layers import Conv
from detector.boxes.anchors import anchors
from detector.boxes.logits import face_scores
from detector.network.initialization import FACE_PRIOR
from detector.network.model import build_detector
from detector.network.modules import ConvUnit


def images(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def calibrated(config, seed=0):
    """A detector in evaluation mode, with running statistics of some images."""
    model = build_detector(config, seed)
    with torch.no_grad():
        for step in range(20):
            model(images(2, 192, 160, step))
    return model.eval()


@pytest.mark.parametrize("size", [(97, 130), (64, 64), (33, 161)])
@pytest.mark.parametrize("seed", range(20))
def test_any_image_size_gives_one_output_for_each_anchor(random_design, seed, size):
    config = random_design(seed)
    with torch.no_grad():
        outputs = build_detector(config).eval()(images(2, *size))
    count = len(anchors(config, size))
    expected = {
        "class_logits": (2, count, 2 if config.head.score == "softmax" else 1),
        "box_deltas": (2, count, 4),
    }
    if config.head.score == "objectness":
        expected["objectness"] = (2, count, 1)
    if config.head.landmarks:
        expected["landmark_deltas"] = (2, count, 10)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == expected


@pytest.mark.parametrize("seed", range(20))
def test_every_parameter_gets_a_gradient(random_design, seed):
    model = build_detector(random_design(seed))
    outputs = model(images(2, 384, 384))
    sum(output.square().mean() for output in outputs.values()).backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not without


@pytest.mark.parametrize("seed", range(10))
def test_batched_equals_single(random_design, seed):
    model = calibrated(random_design(seed))
    batch = images(3, 90, 122)
    with torch.no_grad():
        together = model(batch)
        for i in range(len(batch)):
            alone = model(batch[i : i + 1])
            for name in together:
                assert_close(together[name][i : i + 1], alone[name], rtol=1e-4, atol=1e-5)


def test_pixels_may_be_bytes_or_floats(preset):
    model = calibrated(preset("retinaface_mobile025"))
    with torch.no_grad():
        for a, b in zip(
            model(images(1, 64, 96)).values(), model(images(1, 64, 96).float()).values()
        ):
            assert torch.equal(a, b)


def test_pixels_are_normalised_as_configured(preset):
    config = preset("retinaface_mobile025")
    changed = config.to_dict() | {"pixels": {"order": "rgb", "mean": [1, 2, 3], "std": [2, 4, 8]}}
    pixel = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    assert_close(
        build_detector(config).normalise(pixel).flatten(),
        torch.tensor([10.0 - 104, 20 - 117, 30 - 123]),
    )
    assert_close(
        build_detector(type(config).from_dict(changed)).normalise(pixel).flatten(),
        torch.tensor([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8]),
    )


@pytest.mark.parametrize(
    "name",
    ["retinaface_mobile025", "retinaface_resnet18_p2p6", "tiny_ssd300", "scrfd_0.5g", "yunet_n"],
)
def test_initial_scores_are_low(preset, name):
    with torch.no_grad():
        face = face_scores(build_detector(preset(name))(images(2, 256, 256)))
    assert FACE_PRIOR / 2 < face.mean() < FACE_PRIOR * 2
    assert face.max() < 0.1


def test_initial_activations_neither_vanish_nor_explode(preset):
    model = build_detector(preset("retinaface_mobile025"))
    with torch.no_grad():
        features = model.backbone(model.normalise(images(2, 256, 256)))
    for level, feature in features.items():
        assert 0.3 < feature.std() < 3, level


def test_weights_come_from_the_seed_alone(preset):
    config = preset("retinaface_mobile025")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = build_detector(config, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    same, other = (build_detector(config, seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(
        one["backbone.stages.0.0.conv.weight"], other["backbone.stages.0.0.conv.weight"]
    )


def test_up_sampling_reaches_skipped_levels(preset):
    """A pixel at the far end of a coarse cell moves outputs of the finest level beside it."""
    config = preset("retinaface_mobile025").to_dict()
    config["neck"]["levels"] = [3, 5]
    config["anchors"] = {"name": "single"}
    model = calibrated(type(preset("retinaface_mobile025")).from_dict(config))
    maps = {
        level: torch.zeros(1, channels, 128 >> level, 128 >> level)
        for level, channels in ((3, 64), (5, 256))
    }
    with torch.no_grad():
        before = model.neck(maps)[0]
        maps[5][0, :, 1, 2] = 50.0
        moved = (model.neck(maps)[0] - before).abs().sum(1)[0] > 1e-6
    # Cell (1, 2) of level 5 is rows 4–7, columns 8–11 of level 3; the 3×3 merge adds a border.
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[3:9, 7:13] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("name", ["retinaface_mobile025", "scrfd_0.5g", "yunet_n"])
def test_initialization_by_torch_is_torchs(preset, name):
    config = preset(name)
    model = build_detector(config, 3, "torch")
    named = {
        key: module for key, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)
    }
    for key, conv in named.items():
        bound = conv.weight[0].numel() ** -0.5
        own = (
            torch.cat([p.flatten() for p in conv.parameters()])
            if "heads" not in key
            else (conv.weight.flatten())
        )
        assert own.abs().max() <= bound, key
        if own.numel() > 300:  # of a uniform distribution
            assert own.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), key
    prior = model.heads.plan.predictors[0].size == 1
    with torch.no_grad():
        outputs = model(images(2, 128, 128))
    assert (face_scores(outputs).mean() < 0.05) == prior  # softmax: as torch draws it
    again = dict(build_detector(config, 3, "torch").named_parameters())
    assert all(value.equal(again[key]) for key, value in model.named_parameters())


@pytest.mark.parametrize("channels", [3, 8, 24])
def test_a_strided_pointwise_convolution_of_few_channels_trains(channels):
    """In channels-last memory, torch's own backward pass of these killed the process."""
    layer = Conv(channels, 8, kernel=1, stride=2, bias=True, norm=False, activation=None)
    unit = ConvUnit(layer).to(memory_format=torch.channels_last)
    x = torch.randn(4, channels, 49, 48, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    outputs = unit(x)
    outputs.square().sum().backward()
    # the same as a product of matrices, over the cells that the stride keeps
    exact = x.detach().double().requires_grad_()
    weight = unit.conv.weight.detach().double().flatten(1).requires_grad_()
    wanted = torch.einsum("oi,bihw->bohw", weight, exact[:, :, ::2, ::2])
    wanted = wanted + unit.conv.bias.detach().double()[:, None, None]
    wanted.square().sum().backward()
    assert outputs.shape == (4, 8, *layer.out((49, 48)))
    assert_close(outputs.double(), wanted, rtol=1e-5, atol=1e-5)
    assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-4)
    assert_close(unit.conv.weight.grad.flatten(1).double(), weight.grad, rtol=1e-5, atol=1e-3)
    assert_close(unit.eval()(x), outputs, rtol=1e-5, atol=1e-5)
