"""The names of tensors in released weights, translated into this program's: tables, no torch.

Each rule is a regular expression and what it becomes; `{1}` is its first group, `{1+1}` that number
plus one, `{1/2}` its half. All rules are applied one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detector.base.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Rules = tuple[tuple[str, str], ...]
NORM_EPS = 1e-5
"""ε of batch normalisation here."""


@dataclass(frozen=True, kw_only=True)
class NameMap:
    """One kind of released weights."""

    title: str
    marks: tuple[str, ...]
    """Beginnings of names: a file is of this kind if it has names with each of them."""
    presets: tuple[str, ...]
    """The designs whose weights have such names."""
    rules: Rules
    unused: tuple[str, ...] = ()
    """Beginnings of the names of tensors that detection does not need."""
    backbone_eps: float = NORM_EPS
    """ε of the backbone's batch normalisation."""
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names of tensors whose columns are tensors here, and the names of these."""
    files: tuple[str, ...] = ()
    """Where they are in several files, NAME.base.pth and so on: the parts, the first of which has
    the names without a beginning, and the others with theirs."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the names of `files`."""
        return tuple(f".{part}.pth" for part in self.files)

    def fits(self, names: Iterable[str]) -> bool:
        names = list(names)
        return all(any(name.startswith(mark) for name in names) for mark in self.marks)

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that detection needs, with our names.

        Raises:
            ConfigError: one has another shape.
        """
        result: dict[str, Tensor] = {}
        columns = dict(self.columns)
        for name, value in state.items():
            if name in columns:
                if value.ndim != 2 or value.shape[1] != len(columns[name]):
                    raise ConfigError(
                        f"{name} is {list(value.shape)}, not of {len(columns[name])} columns"
                    )
                result |= zip(columns[name], value.unbind(1))
            elif (ours := self.rename(name)) is not None:
                result[ours] = value
        return result if self.backbone_eps == NORM_EPS else self._with_our_eps(result)

    def _with_our_eps(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same network: what another ε changes goes into the factors of the norms."""
        result = dict(state)
        for name, variance in state.items():
            factor = name.removesuffix("running_var") + "weight"
            if name.startswith("backbone.") and name.endswith("running_var") and factor in state:
                ratio = (variance + NORM_EPS) / (variance + self.backbone_eps)
                result[factor] = state[factor] * ratio.sqrt()
        return result

    def rename(self, name: str) -> str | None:
        """Our name of a tensor; None if it is not needed."""
        if name.startswith(self.unused or ("\0",)):
            return None
        for pattern, replacement in self.rules:
            name = re.sub(pattern, partial(_filled, replacement), name)
        return name


def _filled(template: str, match: re.Match) -> str:
    def value(field: re.Match) -> str:
        group = match[int(field[1])]
        if not field[2]:
            return group
        number = int(field[2][1:])
        if field[2][0] == "/":
            return str(int(group) // number)
        return str(int(group) + (number if field[2][0] == "+" else -number))

    return re.sub(r"\{(\d)([+/-]\d)?\}", value, template)


# A unit of YuNet: pointwise and depthwise convolution, norm.
_YUNET: Rules = (
    (r"^backbone\.model0\.conv1\.", "backbone.stages.0.0.conv."),
    (r"^backbone\.model0\.bn1\.", "backbone.stages.0.0.norm."),
    (r"^backbone\.model0\.conv2\.", "backbone.stages.0.1."),
    (r"^backbone\.model1\.conv(\d)\.", "backbone.stages.1.{1}."),
    (r"^backbone\.model2\.conv(\d)\.", "backbone.stages.1.{1+2}."),
    (r"^backbone\.model(\d)\.conv(\d)\.", "backbone.stages.{1-1}.{2}."),
    (r"^neck\.lateral_convs\.", "neck.units."),
    (r"^bbox_head\.multi_level_share_convs\.", "heads.towers."),
    (r"^bbox_head\.multi_level_cls\.", "heads.class_logits."),
    (r"^bbox_head\.multi_level_bbox\.", "heads.box_deltas."),
    (r"^bbox_head\.multi_level_obj\.", "heads.objectness."),
    (r"^bbox_head\.multi_level_kps\.", "heads.landmark_deltas."),
    (r"\.conv([12])\.(weight|bias)$", ".{1-1}.conv.{2}"),
    (r"\.bn\.", ".1.norm."),
)
_SCRFD: Rules = (
    (r"^neck\.lateral_convs\.", "neck.laterals."),
    (r"^neck\.fpn_convs\.", "neck.downs."),
    (r"^neck\.downsample_convs\.", "neck.strided."),
    (r"^neck\.pafpn_convs\.", "neck.ups."),
    (r"^bbox_head\.cls_stride_convs\.0\.", "heads.towers.0."),
    (r"\.depthwise_conv\.", ".0."),
    (r"\.pointwise_conv\.", ".1."),
    (r"\.gn\.", ".norm."),
    (r"^bbox_head\.stride_cls\.0\.", "heads.class_logits.0.conv."),
    (r"^bbox_head\.stride_reg\.0\.", "heads.box_deltas.0.conv."),
    (r"^bbox_head\.stride_kps\.0\.", "heads.landmark_deltas.0.conv."),
    (r"^bbox_head\.scales\.(\d)\.scale$", "heads.scales.{1}.factor"),
)
_SCRFD_MOBILENET: Rules = (
    (r"^backbone\.stem\.0\.0\.", "backbone.stages.0.0.conv."),
    (r"^backbone\.stem\.0\.1\.", "backbone.stages.0.0.norm."),
    (r"^backbone\.stem\.1\.", "backbone.stages.0.1."),
    (r"^backbone\.layer(\d)\.", "backbone.stages.{1}."),
    (r"^(backbone\.stages\.\d\.\d+)\.0\.(weight|bias)", "{1}.0.conv.{2}"),
    (r"^(backbone\.stages\.\d\.\d+)\.1\.(?!conv|norm)", "{1}.0.norm."),
    (r"^(backbone\.stages\.\d\.\d+)\.3\.", "{1}.1.conv."),
    (r"^(backbone\.stages\.\d\.\d+)\.4\.", "{1}.1.norm."),
)
_SCRFD_RESNET: Rules = (
    (r"^backbone\.stem\.0\.", "backbone.stages.0.0.conv."),
    (r"^backbone\.stem\.1\.", "backbone.stages.0.0.norm."),
    (r"^backbone\.stem\.3\.", "backbone.stages.0.1.conv."),
    (r"^backbone\.stem\.4\.", "backbone.stages.0.1.norm."),
    (r"^backbone\.stem\.6\.", "backbone.stages.0.2.conv."),
    (r"^backbone\.stem\.7\.", "backbone.stages.0.2.norm."),
    # after the max pool; without a pool in its shortcut
    (r"^backbone\.layer1\.(\d+)\.downsample\.1\.", "backbone.stages.1.{1+1}.shortcut.conv."),
    (r"^backbone\.layer1\.(\d+)\.downsample\.2\.", "backbone.stages.1.{1+1}.shortcut.norm."),
    (r"^backbone\.layer1\.(\d+)\.", "backbone.stages.1.{1+1}."),
    (r"^backbone\.layer(\d)\.", "backbone.stages.{1}."),
    (r"\.downsample\.1\.", ".shortcut.1.conv."),
    (r"\.downsample\.2\.", ".shortcut.1.norm."),
    (r"^(backbone\.stages\.\d\.\d+)\.conv(\d)\.", "{1}.body.{2-1}.conv."),
    (r"^(backbone\.stages\.\d\.\d+)\.bn(\d)\.", "{1}.body.{2-1}.norm."),
)
_DAMOFD: Rules = (  # activations have numbers, too: of blocks two apart, of convolutions three
    (r"^backbone\.module_list\.", "backbone.stages."),
    (r"^(backbone\.stages\.0)\.module_list\.([03])\.netblock\.", "{1}.{2/3}.conv."),
    (r"^(backbone\.stages\.0)\.module_list\.([14])\.netblock\.", "{1}.{2/3}.norm."),
    (r"^(backbone\.stages\.\d)\.module_list\.(\d+)\.", "{1}.{2/2}."),
    (r"\.module_list\.([036])\.netblock\.", ".body.{1/3}.conv."),
    (r"\.module_list\.([147])\.netblock\.", ".body.{1/3}.norm."),
    (r"\.proj\.0\.", ".shortcut.conv."),
    (r"\.proj\.1\.", ".shortcut.norm."),
)
_ERESFD: Rules = (
    (r"^conv([123])\.0\.", "backbone.stages.0.{1-1}.conv."),
    (r"^conv([123])\.1\.", "backbone.stages.0.{1-1}.norm."),
    (r"^conv4\.", "backbone.stages.0.3."),
    (r"^m0\.b2_(\d)\.", "backbone.stages.{1}."),
    (r"\.res_layer\.0\.", ".body.0.conv."),
    (r"\.res_layer\.1\.", ".body.0.norm."),
    (r"\.res_layer\.3\.", ".body.1.conv."),
    (r"\.res_layer\.4\.", ".body.1.norm."),
    (r"\.shortcut_layer\.0\.", ".shortcut.conv."),
    (r"\.shortcut_layer\.1\.", ".shortcut.norm."),
    (r"^m0\.fpn\.(laterals\.\d)\.conv\.", "neck.{1}."),
    (r"^m0\.fpn\.itm\.(\d)\.conv\.", "neck.merges.{1}."),
    (r"^m0\.FEM_(\d)\.res_branch1\.", "context.blocks.{1}.conv3."),
    (r"^m0\.FEM_(\d)\.res_branch2\.([01])\.", "context.blocks.{1}.conv5_1.{2}."),
    (r"^m0\.FEM_(\d)\.res_branch2\.([34])\.", "context.blocks.{1}.conv5_2.{2-3}."),
    (r"^m0\.FEM_(\d)\.res_branch3\.([01])\.", "context.blocks.{1}.conv7_1.{2}."),
    (r"^m0\.FEM_(\d)\.res_branch3\.([34])\.", "context.blocks.{1}.conv7_2.{2-3}."),
    (r"^(neck\.\w+\.\d|context\.blocks\.\d\.\w+)\.0\.", "{1}.conv."),
    (r"^(neck\.\w+\.\d|context\.blocks\.\d\.\w+)\.1\.", "{1}.norm."),
    (r"^loc\.(\d)\.", "heads.box_deltas.{1}.conv."),
    (r"^conf\.(\d)\.", "heads.class_logits.{1}.conv."),
)
_ERESFD_SUMS = (
    *(f"neck.sums.{index}.weight" for index in range(5)),
    *(f"neck.returns.{index}.weight" for index in range(4)),
)
_SCRFD_HEAD = ("bbox_head.cls_stride_convs.0.", "bbox_head.stride_cls.0.")

NAME_MAPS: tuple[NameMap, ...] = (
    NameMap(
        title="YuNet of ShiqiYu/libfacedetection.train",
        marks=("backbone.model0.", "bbox_head.multi_level_cls."),
        presets=("yunet_n", "yunet_s"),
        rules=_YUNET,
    ),
    NameMap(
        title="SCRFD of InsightFace",
        marks=("backbone.stem.0.0.", *_SCRFD_HEAD),
        presets=("scrfd_0.5g", "scrfd_1g"),
        rules=_SCRFD_MOBILENET + _SCRFD,
        unused=("bbox_head.integral.",),
    ),
    NameMap(
        title="SCRFD of InsightFace",
        marks=("backbone.stem.0.weight", "backbone.layer1.0.conv1.", *_SCRFD_HEAD),
        presets=("scrfd_2.5g", "scrfd_10g", "scrfd_34g"),
        rules=_SCRFD_RESNET + _SCRFD,
        unused=("bbox_head.integral.",),
    ),
    NameMap(
        title="DamoFD of ly19965/DamoFD",
        marks=("backbone.module_list.", *_SCRFD_HEAD),
        presets=("damofd_0.5g", "damofd_2.5g", "damofd_10g", "damofd_34g"),
        rules=_DAMOFD + _SCRFD,
        unused=("bbox_head.integral.",),
        backbone_eps=1e-3,
    ),
    NameMap(
        title="EResFD of clovaai/EResFD",
        marks=("conv1.0.", "m0.b2_1."),
        presets=("eresfd",),
        rules=_ERESFD,
        columns=(("m0.fpn.w1", _ERESFD_SUMS),),
        files=("base", "loc", "conf"),
    ),
)
SCRFD_PRESETS = tuple(
    preset for known in NAME_MAPS if known.title.startswith("SCRFD") for preset in known.presets
)

LOOKS: tuple[tuple[str, str], ...] = (
    (r"^bbox_head\.stride_cls\.\(", "SCRFD with landmarks, whose heads differ from the presets'"),
    (r"^bbox_head\.", "another detector of MMDetection"),
    (r"^model\.\d+\.(conv|cv1|m)\.", "a YOLO"),
    (r"^(vgg|base|extras)\.\d+\.weight", "S3FD or another SSD"),
    (r"^backbone\.body\.|^roi_heads\.", "a detector of torchvision"),
    (r"^blocks\.\d+\.", "a backbone of timm"),
    (r"^0\.weight", "a part of a network; of EResFD, give the file that ends with .base.pth"),
)
"""What weights of no known kind seem to be, by a tensor's name."""


def name_map_of(names: Iterable[str]) -> NameMap | None:
    """The kind of released weights with these names; None if it is unknown."""
    names = list(names)
    return next((known for known in NAME_MAPS if known.fits(names)), None)


def parts_of(path: Path) -> dict[str, Path]:
    """The files of the weights that `path` names, by the ending that follows their common name:
    itself, or all parts of a kind that has several."""
    for known in NAME_MAPS:
        endings = known.endings
        if endings and path.name.endswith(endings[0]):
            stem = path.name.removesuffix(endings[0])
            parts = {ending: path.with_name(stem + ending) for ending in endings}
            if all(part.is_file() for part in parts.values()):
                return parts
    return {path.suffix: path}


def looks_like(names: Iterable[str]) -> str | None:
    """What weights with these names seem to be; None if nothing known."""
    names = list(names)
    return next(
        (text for pattern, text in LOOKS if any(re.search(pattern, name) for name in names)), None
    )
