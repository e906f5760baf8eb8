"""All presets side by side: published cost, cost here, and latency; as Markdown."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.architecture.cost import cost
from detector.config.presets import PRESETS, load_preset

if TYPE_CHECKING:
    from torch import Tensor

LATENCY_SIZE = (480, 640)


@dataclass(frozen=True)
class PublishedCost:
    """The cost of a detector's published code, with all layers counted by thop."""

    size: tuple[int, int]
    """(height, width) in px of the image that the MACs are for."""
    params: int
    gmacs: str
    """Rounded as published."""


# RetinaFace with other ResNets is missing: its cost was never published.
PUBLISHED = {
    "retinaface_mobile025": PublishedCost((640, 640), 426_608, "1.0297"),
    "retinaface_resnet50": PublishedCost((640, 640), 27_293_600, "44.66"),
    "retinaface_resnet18_p2p6": PublishedCost((480, 480), 11_636_448, "9.998"),
    "tiny_ssd300": PublishedCost((300, 300), 1_033_668, "0.5235"),
    "scrfd_0.5g": PublishedCost((480, 640), 572_741, "0.517"),
    "scrfd_1g": PublishedCost((480, 640), 635_565, "0.998"),
    "scrfd_2.5g": PublishedCost((480, 640), 671_761, "2.537"),
    "scrfd_10g": PublishedCost((480, 640), 3_860_225, "9.995"),
    "scrfd_34g": PublishedCost((480, 640), 9_802_737, "34.285"),
    "damofd_0.5g": PublishedCost((480, 640), 258_189, "0.535"),
    "damofd_2.5g": PublishedCost((480, 640), 442_741, "2.474"),
    "damofd_10g": PublishedCost((480, 640), 1_269_325, "9.839"),
    "damofd_34g": PublishedCost((480, 640), 6_238_733, "34.289"),
    "eresfd": PublishedCost((640, 640), 92_208, "0.4097"),
    "yunet_n": PublishedCost((640, 640), 75_856, "0.5854"),
    "yunet_s": PublishedCost((640, 640), 54_608, "0.3785"),
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


def cost_rows(names: Sequence[str]) -> list[dict]:
    """The published and the reproduced cost of each preset, at the published image size."""
    rows = []
    for name in names:
        published = PUBLISHED.get(name)
        height, width = size = published.size if published else (640, 640)
        params, macs = cost(load_preset(name)[0], size)
        rows.append(
            {
                "preset": name,
                "size": [width, height],
                "published": {"params": published.params, "gmacs": published.gmacs}
                if published
                else None,
                "params": params,
                "macs": macs,
            }
        )
    return rows


def measure_latency(
    names: Sequence[str], threads: int, repeats: int
) -> tuple[dict[str, dict], str]:
    """Latency in ms for one image of LATENCY_SIZE: for each preset in torch and in ONNX Runtime
    (median, 10th and 90th percentile), all timed in alternation; and the machine."""
    from detector.export.exporter import export
    from detector.export.runtime import load_exported
    from detector.inference.latency import latencies
    from detector.network.model import build_detector

    runners: dict[tuple[str, str], Callable[[Tensor], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            config, _ = load_preset(name)
            model = build_detector(config)
            path = export(model, config, Path(folder) / f"{name}.onnx")
            runners[name, "torch"] = model
            runners[name, "onnxruntime"] = load_exported(path, threads)
    times = latencies(runners, LATENCY_SIZE, threads, repeats)
    by_preset: dict[str, dict] = {name: {} for name in names}
    for (name, runtime), time in times.items():
        by_preset[name][runtime] = {
            "median_ms": time.median_ms,
            "p10_ms": time.p10_ms,
            "p90_ms": time.p90_ms,
        }
    return by_preset, next(iter(times.values())).machine


def markdown(table: Sequence[dict]) -> str:
    """The table as Markdown; rows may have an entry `latency`, as `measure_latency` returns it."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" + "|---:" * (len(_HEAD) - 1) + "|"]
    for row in table:
        published = row["published"]
        digits = len(published["gmacs"].split(".")[1]) if published else 4
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
                    f"{published['params']:,}" if published else "—",
                    f"{row['params']:,}",
                    published["gmacs"] if published else "—",
                    f"{row['macs'] / 1e9:.{digits}f}",
                    *times,
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def all_presets() -> list[str]:
    """Names of all presets, those with the fewest MACs first."""
    names = [path.stem for path in PRESETS.glob("*.yaml")]
    return sorted(names, key=lambda name: cost(load_preset(name)[0])[1])
