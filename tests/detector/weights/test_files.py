"""Released weights, against the released network written out a second time, and refusals."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from detector.base.errors import UserError
from detector.config.detector import Detector, Neck, Pixels
from detector.config.recipe import Recipe
from detector.network.model import build_detector
from detector.weights import checkpoint
from detector.weights.files import load_weights
from detector.weights.initialize import copy_pretrained
from detector.weights.pretrained import TORCHVISION_BACKBONES


@pytest.fixture
def released(request):
    """Folder of the released weights."""
    folder = request.config.rootpath.parent / "shared" / "data" / "weights"
    if not folder.is_dir():
        pytest.skip("no released weights in ../shared/data/weights")
    return folder


def read(path):
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {
        name.removeprefix("module."): value
        for name, value in content.get("state_dict", content).items()
    }


class Reference:
    """RetinaFace mobile0.25 by the names of its released weights, function by function."""

    def __init__(self, state):
        self.state = state
        self.used = set()

    def get(self, name):
        self.used.add(name)
        return self.state[name]

    def conv(self, x, name, norm, leak=None, **options):
        x = F.conv2d(x, self.get(f"{name}.weight"), **options)
        x = F.batch_norm(
            x,
            self.get(f"{norm}.running_mean"),
            self.get(f"{norm}.running_var"),
            self.get(f"{norm}.weight"),
            self.get(f"{norm}.bias"),
        )
        return x if leak is None else F.leaky_relu(x, leak)

    def body(self, x, prefix):
        x = self.conv(x, f"{prefix}stage1.0.0", f"{prefix}stage1.0.1", 0.1, stride=2, padding=1)
        features = []
        for stage, blocks, strided in (
            ("stage1", range(1, 6), (2, 4)),
            ("stage2", range(6), (0,)),
            ("stage3", range(2), (0,)),
        ):
            for i in blocks:
                name = f"{prefix}{stage}.{i}"
                x = self.conv(
                    x,
                    f"{name}.0",
                    f"{name}.1",
                    0.1,
                    padding=1,
                    groups=x.shape[1],
                    stride=2 if i in strided else 1,
                )
                x = self.conv(x, f"{name}.3", f"{name}.4", 0.1)
            features.append(x)
        return features

    def pair(self, x, name, leak=None):
        padding = self.state[f"{name}.0.weight"].shape[-1] // 2
        return self.conv(x, f"{name}.0", f"{name}.1", leak, padding=padding)

    def __call__(self, pixels):
        mean = torch.tensor([104.0, 117, 123]).view(1, 3, 1, 1)
        p3, p4, p5 = (
            self.pair(x, f"fpn.output{i}", 0.1)
            for i, x in enumerate(self.body(pixels - mean, "body."), start=1)
        )
        p4 = self.pair(p4 + F.interpolate(p5, p4.shape[2:]), "fpn.merge2", 0.1)
        p3 = self.pair(p3 + F.interpolate(p4, p3.shape[2:]), "fpn.merge1", 0.1)
        outputs = {"ClassHead": [], "BboxHead": [], "LandmarkHead": []}
        for i, x in enumerate((p3, p4, p5)):
            ssh = f"ssh{i + 1}"
            five = self.pair(x, f"{ssh}.conv5X5_1", 0.1)
            seven = self.pair(five, f"{ssh}.conv7X7_2", 0.1)
            x = F.relu(
                torch.cat(
                    [
                        self.pair(x, f"{ssh}.conv3X3"),
                        self.pair(five, f"{ssh}.conv5X5_2"),
                        self.pair(seven, f"{ssh}.conv7x7_3"),
                    ],
                    1,
                )
            )
            for head, size in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
                y = F.conv2d(
                    x, self.get(f"{head}.{i}.conv1x1.weight"), self.get(f"{head}.{i}.conv1x1.bias")
                )
                outputs[head].append(y.permute(0, 2, 3, 1).reshape(len(y), -1, size))
        return [torch.cat(levels, 1) for levels in outputs.values()]


def test_released_detector_gives_the_same_outputs(preset, released):
    config = preset("retinaface_mobile025")
    model = build_detector(config).eval()
    path = released / "mobilenet0.25_Final.pth"
    assert load_weights(model, config, str(path)).part == "detector"
    reference = Reference(read(path))
    pixels = torch.randint(0, 256, (2, 3, 135, 202), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, outputs = reference(pixels.float()), model(pixels.to(torch.uint8))
    for ours, theirs in zip(outputs.values(), expected):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    counters = {name for name in reference.state if name.endswith("num_batches_tracked")}
    assert reference.used == set(reference.state) - counters


def test_released_backbone_gives_the_same_features(preset, released):
    config = preset("retinaface_mobile025")
    model = build_detector(config).eval()
    path = released / "mobilenetV1X0.25_pretrain.tar"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start, _ = copy_pretrained(model, config, str(path))
    assert (start.part, start.title) == ("backbone", "MobileNetV1 ×0.25 of RetinaFace")
    assert start.sha256.startswith("75c37f8d")
    assert start.copied == {
        "backbone": 1.0,
        "neck": 0.0,
        "context": 0.0,
        "heads": 0.0,
        "all": pytest.approx(213_072 / 426_608),
    }
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.backbone(x)
        for level, expected in zip((3, 4, 5), Reference(read(path)).body(x, "")):
            assert_close(features[level], expected, rtol=1e-4, atol=1e-4)
    assert all(
        torch.equal(before[name], value)
        for name, value in model.state_dict().items()
        if not name.startswith("backbone.")
    )


def noisy(model, seed=0):
    """The model with statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(generator=generator)
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
    return model.eval()


def torchvision_features(name, x):
    """A torchvision network and its features before the classifier's own layers."""
    import torchvision

    network = noisy(getattr(torchvision.models, name)())
    with torch.no_grad():
        if name == "mobilenet_v2":
            return network, network.features[:-1](x)
        y = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        return network, network.layer4(network.layer3(network.layer2(network.layer1(y))))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_torchvision_backbones_are_the_same_network(name, tmp_path):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    bgr = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()
    rgb = (bgr.flip(1) / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    network, expected = torchvision_features(name, rgb)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    # The same mean as torchvision's, so that borders are padded alike; another scale and order.
    pixels = Pixels(order="bgr", mean=tuple((255 * mean).flip(0).tolist()), std=(1.0, 3.0, 2.0))
    config = Detector(
        backbone=TORCHVISION_BACKBONES[name], pixels=pixels, neck=Neck(levels=(3, 4, 5), width=8)
    )
    model = build_detector(config).eval()
    start, _ = copy_pretrained(model, config, str(tmp_path / "w.pth"))
    assert start.title == f"torchvision's {name}" and start.copied["backbone"] == 1
    with torch.no_grad():
        ours = model.backbone(model.normalise(bgr))[5]
    assert_close(ours, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_another_mean_moves_into_the_statistics(tmp_path):
    import torchvision

    network = noisy(torchvision.models.resnet18())
    torch.save(network.state_dict(), tmp_path / "w.pth")
    bgr = torch.tensor([50.0, 120, 200]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    rgb = torch.stack(
        [
            (bgr[:, 2 - c] / 255 - m) / s
            for c, (m, s) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)])
        ],
        dim=1,
    )
    config = Detector(
        backbone=TORCHVISION_BACKBONES["resnet18"], neck=Neck(levels=(3, 4), width=8)
    )  # level 5 is not built
    model = build_detector(config).eval()
    copy_pretrained(model, config, str(tmp_path / "w.pth"))
    with torch.no_grad():
        expected = network.relu(network.bn1(network.conv1(rgb)))
        ours = model.backbone(model.normalise(bgr))[1]
    assert_close(ours[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)


def test_own_state_comes_back_equal(random_design, tmp_path):
    config = random_design(1)
    one, two = build_detector(config, 1), build_detector(config, 2)
    checkpoint.save(tmp_path / "last.pt", one, config, Recipe(), {})
    load_weights(two, config, str(tmp_path / "last.pt"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """torch's folder of downloads, empty and without a network."""

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "retinaface_resnet18_p2p6",
            r"imagenet of resnet18 could not be downloaded \(no route to host"
            r"\); download https://\S+/resnet18-f37072fd.pth elsewhere and "
            r"put it into \S+/hub/checkpoints$",
        ),
        ("tiny_ssd300", r"imagenet of mobilenet_v2 could not be downloaded"),
        ("retinaface_mobile025", r"put mobilenetV1X0.25_pretrain.tar .* into \S+/hub/checkpoints"),
        ("yunet_n", r"imagenet has none for backbone.kind yunet, only for mobilenet_v1, "),
    ],
)
def test_imagenet_without_its_file_is_one_line(preset, downloads, name, message):
    config = preset(name)
    with pytest.raises(UserError, match=message):
        copy_pretrained(build_detector(config), config, "imagenet")


def test_a_damaged_download_is_noticed(preset, downloads):
    downloads.mkdir(parents=True)
    (downloads / "resnet18-f37072fd.pth").write_bytes(b"half of it")
    config = preset("retinaface_resnet18_p2p6")
    with pytest.raises(UserError, match="is damaged, its sha256 does not begin with f37072fd"):
        copy_pretrained(build_detector(config), config, "imagenet")


def test_imagenet_is_for_any_width_and_depth(downloads, monkeypatch):
    import torchvision

    network = noisy(torchvision.models.resnet34())
    downloads.mkdir(parents=True)
    torch.save(network.state_dict(), downloads / "resnet34-b627a593.pth")
    monkeypatch.setattr("detector.weights.downloads._checked", lambda path, prefix: path)
    backbone = replace(
        TORCHVISION_BACKBONES["resnet34"], stem=32, widths=(32, 64, 128, 256), depths=(3, 4, 7, 3)
    )
    config = Detector(backbone=backbone, neck=Neck(levels=(3, 4, 5), width=8))
    model = build_detector(config)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start, origins = copy_pretrained(model, config, "imagenet")
    assert (start.source, start.title) == ("imagenet", "torchvision's resnet34")
    assert start.copied["backbone"] == 1 and start.copied["heads"] == 0
    ours, theirs = model.state_dict(), network.state_dict()
    assert torch.equal(
        ours["backbone.stages.3.2.body.1.conv.weight"], theirs["layer3.2.conv2.weight"][:128, :128]
    )
    assert torch.equal(
        ours["backbone.stages.3.6.body.0.conv.weight"],  # a seventh block
        theirs["layer3.5.conv1.weight"][:128, :128],
    )
    assert all(
        torch.equal(value, fresh[name])
        for name, value in ours.items()
        if not name.startswith("backbone.")
    )
    assert {origin.layer: origin.source for origin in origins}["neck.laterals.0"] is None


def test_a_start_tells_what_its_source_started_from(preset, tmp_path, random_design):
    config = random_design(1)
    model, first = build_detector(config, 1), tmp_path / "one" / "last.pt"
    first.parent.mkdir()
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    start, _ = copy_pretrained(model, config, str(tmp_path / "plain.pt"))
    checkpoint.save(first, model, config, Recipe(), {"start": start.to_dict()})
    again, _ = copy_pretrained(model, config, str(first))
    assert again.from_here and again.before == start and not start.from_here
    assert "plain.pt" in again.before.source and again.copied["all"] == 1


def test_nothing_that_fits_is_said(preset, tmp_path):
    checkpoint.save(
        tmp_path / "yunet.pt", build_detector(preset("yunet_n")), preset("yunet_n"), Recipe(), {}
    )
    config = preset("retinaface_mobile025")
    with pytest.raises(
        UserError,
        match=r"none of its layers fits this design \(backbone "
        r"mobilenet_v1 here, yunet there",
    ):
        copy_pretrained(build_detector(config), config, str(tmp_path / "yunet.pt"))


def test_a_backbone_is_no_detector_to_evaluate(preset, released):
    config = preset("retinaface_mobile025")
    with pytest.raises(UserError, match=r"holds a backbone .* not a trained detector"):
        load_weights(
            build_detector(config), config, str(released / "mobilenetV1X0.25_pretrain.tar")
        )


def test_released_weights_start_a_narrower_detector(preset, released):
    config = preset("retinaface_mobile025")
    narrow = replace(config, neck=replace(config.neck, width=32))
    start, _ = copy_pretrained(
        build_detector(narrow), narrow, str(released / "mobilenet0.25_Final.pth")
    )
    assert start.title == "released RetinaFace weights of retinaface_mobile025"
    assert start.copied["all"] == 1


def test_refusals_say_what_and_change_nothing(preset, tmp_path):
    config = preset("retinaface_mobile025")
    model = build_detector(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wider = replace(config, neck=replace(config.neck, width=32))
    other = build_detector(wider)
    cases = {
        "design.pt": (
            {"detector": wider.to_dict(), "model": other.state_dict()},
            "neck.width is 32 there, 64 here",
        ),
        "names.pt": (
            other.state_dict(),
            r"neck.laterals.0.conv.weight \[32, 64, 1, 1\] there, "
            r"neck.laterals.0.conv.weight \[64, 64, 1, 1\] here",
        ),
        "foreign.pt": (
            {"body.stage1.0.0.weight": torch.zeros(4, 3, 3, 3)},
            r"body.stage1.0.0.weight \[4, 3, 3, 3\] there",
        ),
        "unknown.pt": ({"w": torch.zeros(3)}, "first tensor w is of no known kind"),
        "list.pt": ([1, 2], "holds no table of named tensors"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=message) as error:
            load_weights(model, config, str(tmp_path / name))
        assert name in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pt: cannot be read"):
        load_weights(model, config, str(tmp_path / "text.pt"))
    (tmp_path / "empty.pt").touch()
    torch.save(model.state_dict(), tmp_path / "half.pt")
    whole = (tmp_path / "half.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("empty.pt", "half.pt"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            load_weights(model, config, str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        load_weights(model, config, str(tmp_path / "none.pt"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
