"""python -m detector.cost: parameters, MACs by two counters, and latency of a design."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from detector.architecture.cost import cost, layer_costs
from detector.base import cli
from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.config.presets import load_design
from detector.config.shipped import find_file
from detector.network.counters import counters

DESCRIPTION = """\
The cost of a design: parameters and multiply-accumulates (MACs, thop's convention) for one image,
thop and torch's own counter side by side, and with --latency the time in torch and in ONNX Runtime.

  python -m detector.cost retinaface_mobile025
  python -m detector.cost retinaface_mobile025 --size 640x480 --per-layer
  python -m detector.cost runs/retina-001/best/config.yaml --latency
  python -m detector.cost --table     (all presets beside their published cost)

Weights are random: they do not affect cost, and hardly latency."""

REASONS = {
    "Conv2d": "the same products; neither counts the bias",
    "BatchNorm2d": "thop: 4 for each element; torch counts no element-wise operations",
}


def make_parser() -> ArgumentParser:
    parser = cli.parser("detector.cost", DESCRIPTION)
    parser.add_argument(
        "design",
        metavar="PRESET|CONFIG",
        nargs="*",
        help="a preset by name (the files in search_spaces/presets), or a .yaml file of "
        "that form; with --table only presets (default there: all)",
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="a row for each preset: published cost, cost here, and with --latency the time at "
        "640x480",
    )
    parser.add_argument(
        "--size",
        metavar="WxH",
        type=cli.size,
        default=(640, 640),
        help="width and height of the image in px (default: 640x640)",
    )
    parser.add_argument("--per-layer", action="store_true", help="a row for each layer, too")
    parser.add_argument(
        "--latency",
        action=BooleanOptionalAction,
        default=False,
        help="measure latency, too, which takes some seconds (default: --no-latency)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=cli.count,
        default=1,
        help="of torch and ONNX Runtime while measuring (default: 1)",
    )
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=cli.count,
        default=30,
        help="timed passes of each runtime, in alternation (default: 30)",
    )
    return parser


def run(args: Namespace) -> dict:
    """Runs the command; returns what --json writes."""
    if args.table:
        return _table(args)
    if len(args.design) != 1:
        raise UserError(
            f"{len(args.design)} designs given; name one, or add --table to compare presets"
        )
    (name,) = args.design
    config, _ = load_design(find_file(name, "preset"))
    height, width = args.size
    params, macs = cost(config, args.size)
    layers = layer_costs(config, args.size)
    print(
        f"{name}, one image of {width}×{height}\n"
        f"parameters  {params:,}\n"
        f"MACs        {macs:,} ({macs / 1e9:.4f} G)",
        flush=True,  # the counters below take seconds
    )
    if args.per_layer:
        _print_layers(layers, params, macs)
    result = {
        "design": name,
        "params": params,
        "macs": macs,
        "size": [width, height],
        "layers": [{"name": name, "params": p, "macs": m} for name, p, m in layers],
        "counters": _print_counters(config, args.size),
    }
    if args.latency:
        result["latency"] = _print_latency(config, args)
    return result


def _table(args: Namespace) -> dict:
    from detector.inference.preset_table import (
        LATENCY_SIZE,
        all_presets,
        cost_rows,
        markdown,
        measure_latency,
    )

    names = args.design or all_presets()
    table, result = cost_rows(names), {}
    if args.latency:
        times, machine = measure_latency(names, args.threads, args.repeats)
        table = [row | {"latency": times[row["preset"]]} for row in table]
        result = {"machine": machine, "repeats": args.repeats, "latency_size": LATENCY_SIZE[::-1]}
    print(markdown(table))
    if result:
        print(
            f"\nlatency of one image of 640×480, median of {args.repeats} runs in alternation "
            f"({result['machine']})"
        )
    return result | {"presets": table}


def _print_layers(layers: list[tuple[str, int, int]], params: int, macs: int) -> None:
    width = max(len(name) for name, _, _ in layers)
    print(f"\n{'layer':<{width}}  {'parameters':>11}  {'share':>6}  {'MACs':>15}  {'share':>6}")
    for name, p, m in layers:
        print(f"{name:<{width}}  {p:>11,}  {p / params:>6.1%}  {m:>15,}  {m / macs:>6.1%}")


def _print_counters(config: Detector, size: tuple[int, int]) -> dict:
    kinds = {kind: both for kind, both in counters(config, size).items() if any(both)}
    print(f"\n{'MACs of':<14}{'thop':>16}{'torch':>16}  (FlopCounterMode, FLOPs / 2)")
    for kind, (by_thop, by_torch) in kinds.items():
        print(f"{kind:<14}{by_thop:>16,}{by_torch:>16,}  {reason(kind, by_thop, by_torch)}")
    thop, torch = (sum(both[i] for both in kinds.values()) for i in (0, 1))
    print(f"{'all':<14}{thop:>16,}{torch:>16,}  difference {thop - torch:,}")
    return {
        "thop": thop,
        "torch": torch,
        "kinds": {
            kind: {"thop": a, "torch": b, "reason": reason(kind, a, b)}
            for kind, (a, b) in kinds.items()
        },
    }


def reason(kind: str, by_thop: int, by_torch: int) -> str:
    """Why the two counters differ on a kind of module, or agree."""
    if kind in REASONS:
        return REASONS[kind]
    if by_thop == by_torch:
        return "the same in both"
    if not by_torch:
        return "element-wise operations, which torch does not count"
    if not by_thop:
        return "thop has no rule for it"
    return "counted by different rules"


def _print_latency(config: Detector, args: Namespace) -> dict:
    from detector.export.exporter import export
    from detector.export.runtime import load_exported
    from detector.inference.latency import latencies
    from detector.network.model import build_detector

    model = build_detector(config)
    with tempfile.TemporaryDirectory() as folder:
        exported = load_exported(export(model, config, Path(folder) / "model.onnx"), args.threads)
    measured = latencies(
        {"torch": model, exported.runtime: exported}, args.size, args.threads, args.repeats
    )
    machine = measured["torch"].machine
    print(f"\nlatency of one image, {args.repeats} runs in alternation ({machine})")
    result = {"machine": machine, "repeats": args.repeats, "threads": args.threads}
    for name, time in measured.items():
        print(
            f"{name:<22}{time.median_ms:>8.1f} ms median, 10th to 90th percentile "
            f"{time.p10_ms:.1f}–{time.p90_ms:.1f} ms"
        )
        key = "torch" if name == "torch" else "onnxruntime"
        result[key] = {"median_ms": time.median_ms, "p10_ms": time.p10_ms, "p90_ms": time.p90_ms}
    return result


def main(argv: list[str] | None = None) -> int:
    return cli.main(make_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
