"""What the published files of weights hold: names and shapes of some tensors, and how each of ours
is called there."""

from __future__ import annotations

# What the published files hold: names, shapes, and how many tensors there are in all.
YUNET_N = {
    "backbone.model0.conv1.weight": (16, 3, 3, 3),
    "backbone.model0.conv2.conv1.weight": (16, 16, 1, 1),
    "backbone.model0.bn1.running_var": (16,),
    "backbone.model1.conv1.conv2.weight": (16, 1, 3, 3),
    "backbone.model1.conv2.bn.weight": (64,),
    "backbone.model2.conv2.conv1.bias": (64,),
    "backbone.model5.conv2.conv2.weight": (64, 1, 3, 3),
    "neck.lateral_convs.2.bn.running_mean": (64,),
    "bbox_head.multi_level_share_convs.1.0.conv1.weight": (64, 64, 1, 1),
    "bbox_head.multi_level_share_convs.1.0.bn.bias": (64,),
    "bbox_head.multi_level_cls.0.conv1.weight": (1, 64, 1, 1),
    "bbox_head.multi_level_bbox.2.conv2.bias": (4,),
    "bbox_head.multi_level_obj.1.conv2.weight": (1, 1, 3, 3),
    "bbox_head.multi_level_kps.0.conv1.weight": (10, 64, 1, 1),
}
SCRFD_500M = {
    "backbone.stem.0.0.weight": (16, 3, 3, 3),
    "backbone.stem.0.1.running_mean": (16,),
    "backbone.stem.1.0.weight": (16, 1, 3, 3),
    "backbone.stem.1.4.bias": (16,),
    "backbone.layer1.0.3.weight": (40, 16, 1, 1),
    "backbone.layer4.5.1.weight": (288,),
    "neck.lateral_convs.0.conv.weight": (16, 72, 1, 1),
    "neck.fpn_convs.2.conv.bias": (16,),
    "neck.downsample_convs.0.conv.weight": (16, 16, 3, 3),
    "neck.pafpn_convs.1.conv.weight": (16, 16, 3, 3),
    "bbox_head.cls_stride_convs.0.0.depthwise_conv.conv.weight": (16, 1, 3, 3),
    "bbox_head.cls_stride_convs.0.1.pointwise_conv.gn.weight": (64,),
    "bbox_head.stride_cls.0.bias": (2,),
    "bbox_head.stride_reg.0.weight": (8, 64, 3, 3),
    "bbox_head.scales.2.scale": (),
}
SCRFD_34G = {
    "backbone.stem.3.weight": (28, 28, 3, 3),
    "backbone.stem.7.bias": (56,),
    "backbone.layer1.0.conv1.weight": (56, 56, 1, 1),
    "backbone.layer1.0.downsample.1.weight": (224, 56, 1, 1),
    "backbone.layer1.16.bn3.weight": (224,),
    "backbone.layer2.0.downsample.2.running_var": (224,),
    "backbone.layer4.7.conv2.weight": (184, 184, 3, 3),
    "bbox_head.cls_stride_convs.0.1.conv.weight": (256, 256, 3, 3),
    "bbox_head.cls_stride_convs.0.0.gn.bias": (256,),
}
# In three files; the outputs' tensors have nothing before their numbers there.
ERESFD = {
    "conv1.0.weight": (8, 3, 5, 5),
    "conv1.1.running_var": (8,),
    "conv3.0.weight": (16, 8, 3, 3),
    "conv4.res_layer.3.weight": (16, 16, 3, 3),
    "m0.b2_1.0.shortcut_layer.0.weight": (16, 16, 1, 1),
    "m0.b2_3.2.res_layer.4.bias": (16,),
    "m0.b2_5.1.res_layer.0.weight": (16, 16, 3, 3),
    "m0.fpn.w1": (2, 9),
    "m0.fpn.laterals.4.conv.0.weight": (16, 16, 1, 1),
    "m0.fpn.itm.3.conv.1.running_mean": (16,),
    "m0.FEM_0.res_branch1.0.weight": (8, 16, 3, 3),
    "m0.FEM_5.res_branch2.0.weight": (4, 8, 3, 3),
    "m0.FEM_2.res_branch3.4.weight": (4,),
    "conf.0.weight": (4, 16, 1, 1),
    "conf.1.bias": (2,),
    "loc.5.weight": (4, 16, 1, 1),
}
DAMOFD_05G = {
    "backbone.module_list.0.module_list.0.netblock.weight": (32, 3, 3, 3),
    "backbone.module_list.0.module_list.1.netblock.running_var": (32,),
    "backbone.module_list.1.module_list.0.module_list.0.netblock.weight": (8, 32, 1, 1),
    "backbone.module_list.1.module_list.2.module_list.3.netblock.weight": (32, 1, 3, 3),
    "backbone.module_list.1.module_list.2.proj.0.bias": (32,),
    "backbone.module_list.3.module_list.6.module_list.7.netblock.weight": (120,),
    "backbone.module_list.4.module_list.0.proj.1.running_mean": (120,),
    "neck.fpn_convs.2.conv.bias": (16,),
    "bbox_head.cls_stride_convs.0.1.pointwise_conv.gn.weight": (64,),
    "bbox_head.stride_reg.0.weight": (8, 64, 3, 3),
}
DAMOFD_34G = {
    "backbone.module_list.0.module_list.3.netblock.weight": (56, 56, 3, 3),
    "backbone.module_list.0.module_list.4.netblock.bias": (56,),
    "backbone.module_list.1.module_list.0.module_list.6.netblock.weight": (224, 80, 1, 1),
    "backbone.module_list.4.module_list.4.module_list.3.netblock.weight": (24, 24, 7, 7),
}
EXCERPTS = {
    "yunet_n": YUNET_N,
    "scrfd_0.5g": SCRFD_500M,
    "scrfd_34g": SCRFD_34G,
    "damofd_0.5g": DAMOFD_05G,
    "damofd_34g": DAMOFD_34G,
    "eresfd": ERESFD,
}
COUNTS = {"yunet_n": 208, "eresfd": 475}
"""Tensors of the published file."""


def foreign_name(preset: str, name: str) -> str:
    """The published name of a tensor: the way back, written down by itself."""
    parts = name.split(".")
    if preset.startswith("yunet"):
        return _yunet_name(parts)
    if preset == "eresfd":
        return _eresfd_name(parts)
    if parts[0] == "neck":
        kinds = {"laterals": "lateral_convs", "downs": "fpn_convs"}
        kinds |= {"strided": "downsample_convs", "ups": "pafpn_convs"}
        return f"neck.{kinds[parts[1]]}.{'.'.join(parts[2:])}"
    if parts[0] == "heads":
        if parts[1] == "scales":
            return f"bbox_head.scales.{parts[2]}.scale"
        if parts[1] != "towers":
            kind = {"class_logits": "stride_cls", "box_deltas": "stride_reg"}[parts[1]]
            return f"bbox_head.{kind}.0.{parts[-1]}"
        layer = "gn" if parts[-2] == "norm" else "conv"
        block = ["", "depthwise_conv.", "pointwise_conv."][
            int(parts[4]) + 1 if len(parts) > 6 else 0
        ]
        return f"bbox_head.cls_stride_convs.0.{parts[3]}.{block}{layer}.{parts[-1]}"
    if preset.startswith("damofd"):
        return _damofd_name(parts)
    stage, block, layer = int(parts[2]), int(parts[3]), parts[-2] == "norm"
    if preset in ("scrfd_0.5g", "scrfd_1g"):
        index = 3 * int(parts[4]) + layer if len(parts) > 6 else layer
        where = f"stem.{block}" if stage == 0 else f"layer{stage}.{block}"
        return f"backbone.{where}.{int(index)}.{parts[-1]}"
    if stage == 0:
        return f"backbone.stem.{3 * block + layer}.{parts[-1]}"
    where = f"backbone.layer{stage}.{block - (stage == 1)}"
    if parts[4] == "shortcut":
        return f"{where}.downsample.{1 + layer}.{parts[-1]}"
    return f"{where}.{'bn' if layer else 'conv'}{int(parts[5]) + 1}.{parts[-1]}"


def _yunet_name(parts: list[str]) -> str:
    kinds = {"class_logits": "cls", "box_deltas": "bbox", "objectness": "obj"}
    kinds |= {"landmark_deltas": "kps", "towers": "share_convs"}
    unit = "bn" if parts[-2] == "norm" else f"conv{int(parts[-3]) + 1}"
    if parts[0] == "heads":
        middle = f"{parts[2]}.{parts[3]}" if parts[1] == "towers" else parts[2]
        return f"bbox_head.multi_level_{kinds[parts[1]]}.{middle}.{unit}.{parts[-1]}"
    if parts[0] == "neck":
        return f"neck.lateral_convs.{parts[2]}.{unit}.{parts[-1]}"
    stage, block = int(parts[2]), int(parts[3])
    if (stage, block) == (0, 0):
        return f"backbone.model0.{'bn1' if parts[-2] == 'norm' else 'conv1'}.{parts[-1]}"
    if stage == 0:
        return f"backbone.model0.conv2.{unit}.{parts[-1]}"
    model = stage + 1 if stage > 1 else 1 + (block > 2)
    return f"backbone.model{model}.conv{(block - 1) % 2 + 1}.{unit}.{parts[-1]}"


def _eresfd_name(parts: list[str]) -> str:
    layer = int(parts[-2] == "norm")
    if parts[0] == "heads":
        return f"{'loc' if parts[1] == 'box_deltas' else 'conf'}.{parts[2]}.{parts[-1]}"
    if parts[0] == "neck":
        kind = {"laterals": "laterals", "merges": "itm"}[parts[1]]
        return f"m0.fpn.{kind}.{parts[2]}.conv.{layer}.{parts[-1]}"
    if parts[0] == "context":
        branch, step = {
            "conv3": (1, 0),
            "conv5_1": (2, 0),
            "conv5_2": (2, 1),
            "conv7_1": (3, 0),
            "conv7_2": (3, 1),
        }[parts[3]]
        return f"m0.FEM_{parts[2]}.res_branch{branch}.{3 * step + layer}.{parts[-1]}"
    stage, block = int(parts[2]), int(parts[3])
    if stage == 0 and block < 3:
        return f"conv{block + 1}.{layer}.{parts[-1]}"
    where = f"m0.b2_{stage}.{block}" if stage else "conv4"
    if parts[4] == "shortcut":
        return f"{where}.shortcut_layer.{layer}.{parts[-1]}"
    return f"{where}.res_layer.{3 * int(parts[5]) + layer}.{parts[-1]}"


def _damofd_name(parts: list[str]) -> str:
    stage, block, layer = int(parts[2]), int(parts[3]), int(parts[-2] == "norm")
    if stage == 0:
        return f"backbone.module_list.0.module_list.{3 * block + layer}.netblock.{parts[-1]}"
    where = f"backbone.module_list.{stage}.module_list.{2 * block}"
    if parts[4] == "shortcut":
        return f"{where}.proj.{layer}.{parts[-1]}"
    return f"{where}.module_list.{3 * int(parts[5]) + layer}.netblock.{parts[-1]}"
