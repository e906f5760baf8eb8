"""Measures the project on one GPU within minutes, and writes docs/gpu.md from the results.

    python tests/benchmarks/gpu_report.py --out DIR --data data/widerface    measure
    python tests/benchmarks/gpu_report.py --out DIR --render                 write docs/gpu.md

Everything runs in separate processes, which are stopped at a deadline. DIR/results.json is
rewritten after each step; DIR/log.txt has the output of the processes. Another call with the same
--out measures its --parts again and keeps the others; for a retrain alone, give it the --work of
the search.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from importlib.metadata import version
from pathlib import Path

from gpu_bench import DEADLINES, ROOT, Bench, cores, read
from gpu_page import page
from gpu_parts import PARTS


def parser() -> ArgumentParser:
    command = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    command.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder of results.json and log.txt"
    )
    command.add_argument(
        "--render", action="store_true", help="write the page from results.json, measure nothing"
    )
    command.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        default=ROOT / "docs" / "gpu.md",
        help="the page that --render writes (default: docs/gpu.md)",
    )
    command.add_argument(
        "--parts",
        metavar="NAME,…",
        default=",".join(DEADLINES),
        help="parts to measure, each with its seconds if they are not the default, "
        "such as rates,retrain:300 (default: all, "
        + ", ".join(f"{part}:{seconds}" for part, seconds in DEADLINES.items())
        + ")",
    )
    command.add_argument(
        "--seconds",
        metavar="N",
        type=float,
        default=480,
        help="limit for everything (default: 480)",
    )
    command.add_argument(
        "--tiny", action="store_true", help="a dry run with very few images, epochs and trials"
    )
    command.add_argument(
        "--data",
        metavar="PATH",
        default="synthetic",
        help="folder of WIDER FACE (default: the built-in scenes)",
    )
    command.add_argument(
        "--backbone",
        metavar="FILE",
        type=Path,
        help="the ImageNet backbone of the part parity (default: from scratch)",
    )
    command.add_argument(
        "--released",
        metavar="FILE",
        type=Path,
        help="released weights of RetinaFace mobile0.25, for the rate of evaluation "
        "(default: random weights)",
    )
    command.add_argument(
        "--peer",
        metavar="DIR",
        type=Path,
        help="a checkout of biubug6/Pytorch_Retinaface, for its rates (default: none)",
    )
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument(
        "--search-at-once",
        metavar="N",
        type=int,
        help="trials that share the GPU in the search (default: as nas.search decides)",
    )
    command.add_argument(
        "--at-once",
        metavar="N",
        type=int,
        default=4,
        help="retrains that share the GPU (default: 4)",
    )
    command.add_argument(
        "--retrain-epochs",
        metavar="N",
        type=int,
        help="maximum of epochs of a retrain; fewer if the time is short, by the rate of the part "
        "parity (default: 100)",
    )
    command.add_argument(
        "--retrained",
        metavar="K",
        type=int,
        help="how many of the search's best designs, and how many presets, to retrain (default: 4)",
    )
    command.add_argument(
        "--retrain-flags",
        metavar="FLAGS",
        type=shlex.split,
        default=[],
        help="more flags for nas.retrain in the part retrain, as one argument, such as "
        "--retrain-flags='--batch-size auto'",
    )
    command.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        help="folder for caches, studies and models, which is kept (default: a temporary one)",
    )
    command.add_argument(
        "--measure",
        choices=("ours", "peer"),
        help="only measure these rates, in this process (for the report itself)",
    )
    return command


def machine(args: Namespace, argv: list[str]) -> dict:
    """The machine, the data, and the command."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    card: dict = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        output = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout
        card = dict(zip(("card", "memory", "driver"), output.splitlines()[0].split(", ")))
    return (
        card
        | {"cores": cores(), "Python": sys.version.split()[0]}
        | {name: version(name) for name in ("torch", "torchvision", "numpy")}
        | {
            "data": "the built-in scenes" if args.data == "synthetic" else "WIDER FACE images",
            "tiny": args.tiny,
            "command": " ".join(
                ["python tests/benchmarks/gpu_report.py", *map(shlex.quote, hidden(args, argv))]
            ),
        }
    )


def hidden(args: Namespace, argv: list[str]) -> list[str]:
    """The arguments, with names instead of this machine's folders."""
    paths = ("out", "work", "data", "backbone", "released", "peer", "page")
    names = {f"--{key}": key.upper() for key in paths if getattr(args, key) != "synthetic"}
    return [names.get(flag, value) for flag, value in zip(["", *argv], argv)]


def deadlines(text: str) -> dict[str, float]:
    """Seconds by part, in the given order."""
    limits = {}
    for name in text.split(","):
        part, _, seconds = name.partition(":")
        if part not in PARTS:
            sys.exit(f"--parts: {part!r} is not one of {', '.join(PARTS)}")
        limits[part] = float(seconds or DEADLINES[part])
    return limits


def measure(args: Namespace, argv: list[str]) -> int:
    """Measure the parts one after another; returns the exit code, 1 if something went wrong."""
    bench, limits = Bench(args), deadlines(args.parts)

    def stop(*_: object) -> None:
        bench.end = 0  # stops what is running, and starts nothing more

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    bench.results["machine"] = machine(args, argv)
    for part, seconds in limits.items():
        started = time.monotonic()
        bench.results[part] = {}
        bench.put(
            part,
            state="running",
            on=bench.results["machine"].get("card", "the CPU"),
            data=bench.results["machine"]["data"],
        )
        try:
            problem = PARTS[part](bench, started + seconds)
        except Exception as error:  # the other parts are still useful
            traceback.print_exc()
            problem = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        bench.put(part, state=problem or "done", seconds=time.monotonic() - started)
        print(f"{part}: {problem or 'done'} ({time.monotonic() - started:.0f} s)", flush=True)
    return int(any(bench.results[part]["state"] != "done" for part in limits))


def main() -> int:
    argv = sys.argv[1:]
    args = parser().parse_args(argv)
    if args.data != "synthetic":
        args.data = str(Path(args.data).resolve())
    for key in ("out", "work", "backbone", "released", "peer"):
        if getattr(args, key) is not None:
            setattr(args, key, getattr(args, key).resolve())
    if args.render:
        args.page.write_text(page(read(args.out / "results.json")))
        return 0
    if args.measure is not None:
        from gpu_rates import measure_rates

        measure_rates(args)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if args.work is None:
            args.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-report-")))
        args.work.mkdir(parents=True, exist_ok=True)
        return measure(args, argv)


if __name__ == "__main__":
    sys.exit(main())
