"""Files of weights as others released them, with random values: the published ones are not part of
this project."""

from __future__ import annotations

from pathlib import Path

import torch
from released_names import foreign_name

from detector.config.presets import load_preset
from detector.network.model import build_detector


def random_network(preset: str):
    """A network in which every tensor has values of its own."""
    net = build_detector(load_preset(preset)[0]).eval()
    generator = torch.Generator().manual_seed(0)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
    return net


def foreign_state(preset: str) -> dict[str, torch.Tensor]:
    """The state of a random network under the names of the published file."""
    own = random_network(preset).state_dict()
    state = {}
    if preset == "eresfd":
        columns = [own.pop(f"neck.sums.{i}.weight") for i in range(5)]
        columns += [own.pop(f"neck.returns.{i}.weight") for i in range(4)]
        state["m0.fpn.w1"] = torch.stack(columns, dim=1)
    return state | {foreign_name(preset, name): value for name, value in own.items()}


def write_foreign(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """The released file, or EResFD's three; the one to give."""
    heads = {name: value for name, value in state.items() if name[:3] in ("loc", "con")}
    heads = {name: value for name, value in heads.items() if not name.startswith("conv")}
    if not heads:
        torch.save({"meta": {"epoch": 640}, "state_dict": state}, folder / "w.pth")
        return folder / "w.pth"
    for part in ("loc", "conf"):
        named = {n.removeprefix(f"{part}."): v for n, v in heads.items() if n.startswith(part)}
        torch.save(named, folder / f"w.pth.{part}.pth")
    base = {name: value for name, value in state.items() if name not in heads}
    torch.save(base, folder / "w.pth.base.pth")
    return folder / "w.pth.base.pth"
