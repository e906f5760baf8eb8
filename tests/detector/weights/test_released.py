"""Released weights of YuNet, SCRFD, DamoFD, EResFD and ternaus/retinaface, by generated files with
their names and shapes: the published files are not part of this project."""

import re
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from released_files import foreign_state, random_network, write_foreign
from released_names import COUNTS, EXCERPTS, foreign_name
from torch.testing import assert_close

from detector.base.errors import UserError
from detector.config.presets import load_preset
from detector.network.model import build_detector
from detector.weights.files import detector_weights, read_weights
from detector.weights.initialize import copy_pretrained
from detector.weights.name_maps import NAME_MAPS
from detector.weights.pretrained import TORCHVISION_PIXELS
from nas.models.model_folder import load_model


@pytest.mark.parametrize(
    "preset", [preset for known in NAME_MAPS for preset in known.presets], ids=str
)
def test_every_tensor_is_found(preset, tmp_path):
    config = load_preset(preset)[0]
    theirs = foreign_state(preset)
    excerpt = EXCERPTS.get(preset, {})
    assert {name: tuple(theirs[name].shape) for name in excerpt} == excerpt
    kept = [name for name in theirs if "num_batches_tracked" not in name]
    assert len(theirs) == COUNTS.get(preset, len(theirs))
    state = {name: theirs[name] for name in kept}
    if preset.startswith("scrfd"):
        state["bbox_head.integral.project"] = torch.zeros(9)
    weights = detector_weights(config, str(write_foreign(state, tmp_path)))
    assert weights.title.startswith(f"released weights of {preset} (")
    own = random_network(preset).state_dict()
    wanted = {name: value for name, value in own.items() if "num_batches" not in name}
    if preset.startswith("damofd"):  # another ε: see below
        assert weights.state.keys() == wanted.keys()
        wanted = {name: v for name, v in wanted.items() if "norm.weight" not in name}
    assert_close({name: weights.state[name] for name in wanted}, wanted, rtol=0, atol=0)


def test_another_epsilon_goes_into_the_norms(tmp_path):
    """DamoFD's backbone has 0.001, its head as everywhere 0.00001."""
    state = foreign_state("damofd_0.5g")
    key = "backbone.module_list.2.module_list.2.module_list.4.netblock"
    state[f"{key}.running_var"] = torch.logspace(-4, 1, 64)
    config = load_preset("damofd_0.5g")[0]
    weights = detector_weights(config, str(write_foreign(state, tmp_path))).state
    ours = "backbone.stages.2.1.body.1.norm"
    fields = ("running_mean", "running_var", "weight", "bias")
    x = torch.randn(2, 64, 3, 3)
    assert_close(
        F.batch_norm(x, *(weights[f"{ours}.{field}"] for field in fields)),
        F.batch_norm(x, *(state[f"{key}.{field}"] for field in fields), eps=1e-3),
    )
    head = "bbox_head.cls_stride_convs.0.0.depthwise_conv.gn.weight"
    assert torch.equal(weights["heads.towers.0.0.0.norm.weight"], state[head])


def test_a_wrong_preset_is_named(tmp_path):
    torch.save(foreign_state("yunet_n"), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"another design: backbone\.widths is \[16, 64, 64"):
        detector_weights(load_preset("yunet_s")[0], str(tmp_path / "w.pth"))
    state = foreign_state("yunet_n")
    del state["neck.lateral_convs.1.conv1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"difference is nothing there, neck\.units\.1\.0\.conv"):
        detector_weights(load_preset("yunet_n")[0], str(tmp_path / "w.pth"))


def test_weights_in_several_files_are_given_by_the_first(tmp_path):
    base = write_foreign(foreign_state("eresfd"), tmp_path)
    config = load_preset("eresfd")[0]
    with pytest.raises(UserError, match=r"a part of a network; of EResFD, give the file"):
        detector_weights(config, str(tmp_path / "w.pth.loc.pth"))
    (tmp_path / "w.pth.conf.pth").unlink()
    message = r"weights in 3 files, and \S+w\.pth\.conf\.pth is missing; give the one whose"
    with pytest.raises(UserError, match=message):
        detector_weights(config, str(base))
    moved = base.rename(tmp_path / "renamed.pth")
    with pytest.raises(UserError, match=r"renamed\.pth: .* give the one whose name ends with"):
        detector_weights(config, str(moved))


def test_weights_of_other_shapes_are_refused_in_a_line(tmp_path):
    state = foreign_state("eresfd")
    state["m0.fpn.w1"] = state["m0.fpn.w1"][:, :7]
    with pytest.raises(UserError, match=r"m0\.fpn\.w1 is \[2, 7\], not of 9 columns"):
        detector_weights(load_preset("eresfd")[0], str(write_foreign(state, tmp_path)))
    state = foreign_state("damofd_0.5g")
    del state["backbone.module_list.0.module_list.1.netblock.weight"]
    with pytest.raises(UserError, match=r"nothing there, backbone\.stages\.0\.0\.norm\.weight"):
        detector_weights(load_preset("damofd_0.5g")[0], str(write_foreign(state, tmp_path)))


def test_a_training_starts_from_them(tmp_path):
    torch.save(foreign_state("yunet_n"), tmp_path / "w.pth")
    config = load_preset("yunet_s")[0]
    start, _ = copy_pretrained(build_detector(config), config, str(tmp_path / "w.pth"))
    assert start.part == "detector" and start.copied["all"] > 0.6


@pytest.mark.parametrize("preset", ["scrfd_0.5g", "scrfd_2.5g"])
def test_a_graph_of_scrfd_gives_the_same_network(preset, tmp_path):
    """Folded, shared and laid out as in the published files (names are lost in the backbone)."""
    config = load_preset(preset)[0]
    net = random_network(preset)
    for module in net.modules():  # activations of moderate size
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data -= 1
            module.weight.data *= module.weight[0].numel() ** -0.5
    _write_graph(net, preset, tmp_path / "scrfd.onnx")
    weights = detector_weights(config, str(tmp_path / "scrfd.onnx"))
    assert weights.title == f"released weights of {preset} (SCRFD of InsightFace)"
    other = build_detector(config).eval()
    other.load_state_dict(weights.state, strict=False)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        wanted, found = net(images), other(images)
    for name, value in wanted.items():
        assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def _write_graph(net, preset: str, path: Path) -> None:
    """A graph with the nodes from which weights are read, for each of three strides the head."""
    nodes, constants = [], {}

    def add(kind: str, *values: tuple[str, torch.Tensor]) -> None:
        constants.update({name: value.detach().numpy() for name, value in values})
        names = [name for name, _ in values]
        inputs = ["x", *names] if kind != "InstanceNormalization" else ["x", "x", "x"]
        nodes.append(helper.make_node(kind, inputs, [f"y{len(nodes)}"]))

    convolutions = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    head = [item for item in convolutions if item[0].startswith("heads.")]
    for stride, (name, conv) in enumerate([*convolutions, *head, *head]):
        foreign = foreign_name(preset, f"{name}.weight")
        norm = getattr(net.get_submodule(name.rpartition(".")[0]), "norm", None)
        if isinstance(norm, torch.nn.BatchNorm2d):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = conv.weight * factor[:, None, None, None]
            bias = norm.bias - norm.running_mean * factor
            add("Conv", (f"{stride}", weight), (f"b{stride}", bias))
            continue
        biases = [] if conv.bias is None else [(foreign.replace("weight", "bias"), conv.bias)]
        add("Conv", (foreign, conv.weight), *biases)
        if isinstance(norm, torch.nn.GroupNorm):
            add("InstanceNormalization")
            add("Mul", (f"{foreign}.w", norm.weight[:, None, None]))
            add("Add", (f"{foreign}.b", norm.bias[:, None, None]))
        if ".box_deltas." in name:
            level = len([node for node in nodes if any("scales" in i for i in node.input)])
            add("Mul", (f"bbox_head.scales.{level}.scale", net.heads.scales[level].factor))
    graph = helper.make_graph(
        nodes,
        "scrfd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, "h", "w"))],
        [],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), path)


def test_other_graphs_are_refused_in_one_line(tmp_path):
    graph = helper.make_graph([], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "g.onnx")
    config = load_preset("yunet_n")[0]
    with pytest.raises(UserError, match=r"nas\.evaluate --model scores others"):
        read_weights(str(tmp_path / "g.onnx"), config)
    (tmp_path / "g.onnx").write_bytes(b"\xff\xff nothing")
    with pytest.raises(UserError, match="it is no readable ONNX graph"):
        read_weights(str(tmp_path / "g.onnx"), config)
    with pytest.raises(UserError, match="no such file of weights"):
        read_weights(str(tmp_path / "none.onnx"), config)


def test_lightning_weights_of_retinaface_have_torchvisions_pixels(tmp_path):
    """ternaus/retinaface: the same network, but pixels of ImageNet's mean and deviation."""
    config = load_preset("retinaface_mobile025")[0]
    net = build_detector(config).eval()
    names = [name for name in net.state_dict() if "num_batches" not in name]
    state = {f"model.body.{name}": net.state_dict()[name] for name in names}  # order decides
    torch.save({"state_dict": state, "pytorch-lightning_version": "1.0"}, tmp_path / "l.ckpt")
    weights = read_weights(str(tmp_path / "l.ckpt"), config)
    assert weights.pixels == TORCHVISION_PIXELS
    loaded = build_detector(config).eval()
    loaded.load_state_dict(detector_weights(config, str(tmp_path / "l.ckpt")).state, strict=False)
    # an image of one colour, away from the border: the network there, fed as by torchvision
    images = torch.full((1, 3, 256, 256), 90, dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (TORCHVISION_PIXELS.mean, TORCHVISION_PIXELS.std)
    )
    net.normalise = torch.nn.Identity()
    with torch.inference_mode():
        wanted = net.backbone.stages[0][0]((images.flip(1) - mean) / std)
        found = loaded.backbone.stages[0][0](loaded.normalise(images))
    assert_close(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "seems"),
    [
        ("0.weight", "it looks like a part of a network; of EResFD"),
        ("bbox_head.atss_cls.weight", "another detector of MMDetection"),
        ("model.0.conv.weight", "it looks like a YOLO"),
        ("vgg.0.weight", "S3FD"),
        ("something.weight", "of no known kind of weights; give a checkpoint"),
    ],
)
def test_unknown_weights_are_told_what_they_look_like(name, seems, tmp_path):
    torch.save({name: torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=re.escape(seems)) as error:
        read_weights(str(tmp_path / "w.pth"), load_preset("yunet_n")[0])
    assert "\n" not in str(error.value)


def test_a_graph_without_preset_is_told_what_to_do(tmp_path):
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), tmp_path / "g.onnx")
    with pytest.raises(UserError, match="name the design of its weights with --preset, or score"):
        load_model(tmp_path / "g.onnx")
    with pytest.raises(UserError, match="no such checkpoint"):
        load_model(tmp_path / "none.onnx")
