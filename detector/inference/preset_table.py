"""All presets side by side: cost as published and as built here, and latency; in Markdown."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.architecture.cost import cost
from detector.architecture.layers import Size
from detector.config.presets import PRESETS, load_preset

LATENCY_SIZE = (480, 640)


@dataclass(frozen=True)
class Figures:
    """What the code that a detector was published with gives, all layers counted by thop."""

    size: Size
    """(height, width) px of the image that the MACs are for."""
    params: int
    gmacs: str
    """As rounded where it is told."""


# Those of RetinaFace with other ResNets are told nowhere.
FIGURES = {
    "retinaface_mobile025": Figures((640, 640), 426_608, "1.0297"),
    "retinaface_resnet50": Figures((640, 640), 27_293_600, "44.66"),
    "retinaface_resnet18_p2p6": Figures((480, 480), 11_636_448, "9.998"),
    "tiny_ssd300": Figures((300, 300), 1_033_668, "0.5235"),
    "scrfd_0.5g": Figures((480, 640), 572_741, "0.517"),
    "scrfd_1g": Figures((480, 640), 635_565, "0.998"),
    "scrfd_2.5g": Figures((480, 640), 671_761, "2.537"),
    "scrfd_10g": Figures((480, 640), 3_860_225, "9.995"),
    "scrfd_34g": Figures((480, 640), 9_802_737, "34.285"),
    "yunet_n": Figures((640, 640), 75_856, "0.5854"),
    "yunet_s": Figures((640, 640), 54_608, "0.3785"),
}
_HEAD = (
    "preset",
    "image",
    "parameters published",
    "here",
    "G MACs published",
    "here",
    "torch ms",
    "ONNX Runtime ms",
)


def rows(names: Sequence[str]) -> list[dict]:
    """For each preset the published and the reproduced cost, at the published image size."""
    found = []
    for name in names:
        told = FIGURES.get(name)
        height, width = size = told.size if told else (640, 640)
        params, macs = cost(load_preset(name)[0], size)
        found.append(
            {
                "preset": name,
                "size": [width, height],
                "published": {"params": told.params, "gmacs": told.gmacs} if told else None,
                "params": params,
                "macs": macs,
            }
        )
    return found


def measured(names: Sequence[str], threads: int, repeats: int) -> tuple[dict[str, dict], str]:
    """Latency in ms for one image of LATENCY_SIZE: by preset that in torch and in ONNX Runtime
    (median, 10th and 90th percentile), all taken in turns; and the machine."""
    from detector.export.exporter import export
    from detector.export.runtime import load_exported
    from detector.inference.latency import latencies
    from detector.network.model import build_detector

    runners = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            config, _ = load_preset(name)
            model = build_detector(config)
            path = export(model, config, Path(folder) / f"{name}.onnx")
            runners[name, "torch"] = model
            runners[name, "onnxruntime"] = load_exported(path, threads)
    times = latencies(runners, LATENCY_SIZE, threads, repeats)
    found: dict[str, dict] = {name: {} for name in names}
    for (name, runtime), time in times.items():
        found[name][runtime] = {
            "median_ms": time.median_ms,
            "p10_ms": time.p10_ms,
            "p90_ms": time.p90_ms,
        }
    return found, next(iter(times.values())).machine


def markdown(table: Sequence[dict]) -> str:
    """The rows, with the latency of those that have one under `latency`."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" + "|---:" * (len(_HEAD) - 1) + "|"]
    for row in table:
        told = row["published"]
        digits = len(told["gmacs"].split(".")[1]) if told else 4
        times = [
            f"{row['latency'][runtime]['median_ms']:.1f}" if "latency" in row else "—"
            for runtime in ("torch", "onnxruntime")
        ]
        lines.append(
            "| "
            + " | ".join(
                [
                    row["preset"],
                    "×".join(map(str, row["size"])),
                    f"{told['params']:,}" if told else "—",
                    f"{row['params']:,}",
                    told["gmacs"] if told else "—",
                    f"{row['macs'] / 1e9:.{digits}f}",
                    *times,
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def all_presets() -> list[str]:
    """Names of all presets, the cheapest first."""
    names = [path.stem for path in PRESETS.glob("*.yaml")]
    return sorted(names, key=lambda name: cost(load_preset(name)[0])[1])
