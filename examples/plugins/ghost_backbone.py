r"""A backbone of one's own: ghost modules (Han et al. 2020, "GhostNet: More Features from Cheap
Operations") in place of pointwise convolutions.

    python -m nas.search --space examples/plugins/ghost.yaml \
        --plugin examples/plugins/ghost_backbone.py
"""

from dataclasses import dataclass

from detector.architecture.custom import register_backbone
from detector.architecture.layers import Chain, Conv, CustomLayer


@dataclass(frozen=True)
class Ghost(CustomLayer):
    """A pointwise convolution makes half of the channels, and a depthwise one the other half from
    them."""

    cin: int
    width: int

    @property
    def cout(self):
        return self.width

    @property
    def primary(self):
        return Conv(self.cin, self.width - self.width // 2, activation="relu")

    @property
    def cheap(self):
        made = self.primary.cout
        return Conv(made, made, 3, groups=made, activation="relu")

    def leaves(self, size, name):
        yield from self.primary.leaves(size, f"{name}.primary")
        yield from self.cheap.leaves(size, f"{name}.cheap")

    def module(self):
        import torch

        from detector.network.modules import build

        class GhostModule(torch.nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.primary, self.cheap = build(layer.primary), build(layer.cheap)
                self.width = layer.width

            def forward(self, x):
                made = self.primary(x)
                return torch.cat([made, self.cheap(made)], dim=1)[:, : self.width]

        return GhostModule(self)


def block(cin, cout, stride):
    layers = (Ghost(cin, cout),)
    if stride > 1:
        layers = (Conv(cin, cin, 3, stride, groups=cin), *layers)
    return Chain(layers)


@register_backbone(
    "ghost",
    short="ghost",
    levels=(2, 3, 4, 5),
    stem=16,
    widths=(24, 40, 112, 160),
    depths=(2, 2, 4, 2),
)
def ghost(config, top):
    """Level 1 is the stem; each other level begins with a block of stride 2."""
    stages, channels = [[Conv(3, config.stem, 3, stride=2, activation="relu")]], config.stem
    for level, width, depth in zip(config.spec.levels, config.widths, config.depths):
        if level > top:
            break
        stages.append([block(channels, width, stride=2)])
        stages[-1] += [block(width, width, stride=1) for _ in range(depth - 1)]
        channels = width
    return stages
