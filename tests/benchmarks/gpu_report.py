"""Measures the project on one GPU within minutes, and writes docs/gpu.md from what it measured.

    python tests/benchmarks/gpu_report.py --out DIR --data data/widerface    measure
    python tests/benchmarks/gpu_report.py --out DIR --render                 write docs/gpu.md

Everything runs in processes of its own that are stopped at a deadline. DIR/results.json is
rewritten after each step; DIR/log.txt has what the processes printed. Another call with the same
--out measures its --parts again and keeps the others; for a retrain alone, give it the --work of
the search.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import accumulate, zip_longest
from pathlib import Path

from gpu_bench import BASELINE, DEADLINES, GRACE, ROOT, STUDY, Bench, cores, read
from gpu_page import page

PRESETS = (BASELINE, "yunet_n", "scrfd_0.5g", "yunet_s")
PARITY = (("torch", 0), ("torch", 1), ("he", 0))
"""Initialisation and seed of the trainings beside the peer's."""
PEER_PARITY = {
    "easy": 0.8147,
    "medium": 0.7561,
    "hard": 0.4849,
    "note": "its own code, one seed, on a CPU",
}


# -- the parts: each returns what went wrong, if anything did -----------------------------------


def run_tests(bench: Bench, until: float) -> str:
    """The tests that need a GPU."""
    files = sorted(
        str(path.relative_to(ROOT))
        for path in ROOT.glob("tests/**/test_*.py")
        if "mark.gpu" in path.read_text()
    )
    if not files:
        return "not started: there are none"
    command = [
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "--tb=short",
        "-rfE",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=--import-mode=importlib",
        *files,
    ]
    bench.put("tests", commands=[bench.shown(command)])
    problem = bench.python("tests", command, until, at_once=cores())
    printed = bench.work / "tests.txt"
    lines = printed.read_text().strip().splitlines() if printed.exists() else []
    failures = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    bench.put("tests", notes=[line.strip("= ") for line in [*lines[-1:], *failures]])
    return problem


def run_rates(bench: Bench, until: float) -> str:
    """Images a second, see gpu_rates.py."""
    files = {whose: bench.work / f"rates-{whose}.json" for whose in ("ours", "peer")}

    def keep() -> None:
        bench.put("rates", rows=read(files["ours"]) | read(files["peer"]))

    def one(whose: str, until: float) -> str:
        args = bench.args
        command = [
            __file__,
            "--measure",
            whose,
            "--out",
            args.out,
            "--work",
            bench.work,
            "--data",
            args.data,
            "--device",
            args.device,
            *["--tiny"] * args.tiny,
        ]
        for key in ("peer", "released"):
            command += [f"--{key}", getattr(args, key)] if getattr(args, key) else []
        return bench.python(f"rates-{whose}", command, until, watch=keep)

    for file in files.values():
        file.unlink(missing_ok=True)
    if bench.args.peer is None:
        bench.put(
            "rates",
            notes=["The peer's rows are missing: no checkout of its code was given (`--peer`)."],
        )
    peers = one("peer", time.monotonic() + 25) if bench.args.peer is not None else ""
    return one("ours", until) or peers


def run_parity(bench: Bench, until: float) -> str:
    """The baseline as the peer trains it: two seeds, and the other initialisation, all at the same
    time."""
    sizes = bench.sizes
    weights = ["--weights", bench.args.backbone] if bench.args.backbone else []
    for initialization in ("torch", "he"):
        recipe = (
            f"recipe: {{epochs: {sizes.parity_epochs}, size: {sizes.size}, batch_size: "
            f"{sizes.parity_batch}, initialization: {initialization}, optimizer: {{kind: "
            "sgd, lr: 0.001, momentum: 0.9, weight_decay: 0.0005, warmup_epochs: 0, "
            "schedule: step, milestones: [0.75, 0.9], gamma: 0.1}}"
        )
        (bench.work / f"{initialization}.yaml").write_text(recipe + "\n")
    bench.put(
        "parity",
        rows={"biubug6/Pytorch_Retinaface": PEER_PARITY},
        notes=[
            f"`WORK/{initialization}.yaml` is `{recipe}`, `torch.yaml` the same but for the "
            "initialisation.",
            *(
                []
                if weights
                else [
                    "Trained from scratch: no file of the ImageNet backbone was given "
                    "(`--backbone`)."
                ]
            ),
        ],
    )

    def one(run: tuple[str, int]) -> str:
        initialization, seed = run
        runs = bench.work / f"parity-{initialization}-{seed}"
        return train_and_score(
            bench,
            until,
            "parity",
            f"initialization {initialization}, seed {seed}",
            runs / BASELINE / "best",
            [
                "--preset",
                BASELINE,
                "--recipe",
                bench.work / f"{initialization}.yaml",
                *weights,
                "--with-holdout",
                "--data",
                bench.args.data,
                "--eval-every",
                0,
                "--seed",
                seed,
                "--runs-dir",
                runs,
            ],
            len(PARITY),
        )

    return all_of(one, PARITY, len(PARITY))


def run_search(bench: Bench, until: float) -> str:
    """A search; what it came to is read from its study, even where it was stopped."""
    sizes, runs = bench.sizes, bench.work / "runs"
    command = [
        "-m",
        "nas.search",
        "--space",
        f"search_spaces/{sizes.space}.yaml",
        "--trials",
        sizes.trials,
        "--data",
        bench.args.data,
        "--fraction",
        sizes.fraction,
        "--study",
        STUDY,
        "--runs-dir",
        runs,
        "--tracking-uri",
        "none",
        "--device",
        bench.args.device,
        "--json",
        bench.work / "search.json",
    ]
    shutil.rmtree(runs / STUDY, ignore_errors=True)  # of an earlier call
    if at_once := bench.args.search_at_once:
        command += ["--concurrency", at_once, "--gpus-per-trial", f"{1 / at_once:.4f}"]
    bench.put("search", commands=[bench.shown(command)])
    started = time.monotonic()
    problem = bench.python("search", command, until - GRACE)
    if (runs / STUDY / "study.json").exists():
        bench.put("search", **study_facts(runs, time.monotonic() - started))
    return problem


def study_facts(runs: Path, seconds: float) -> dict:
    """What a search of so many seconds came to, by the records of its study."""
    from nas.study.storage import Study
    from trials.record import Status

    study = Study.open(runs, STUDY)
    trained = [record for record in study.records if record.epochs]
    completed = sorted(
        (record for record in trained if record.status is Status.COMPLETED),
        key=lambda record: -record.score,
    )
    times = sorted(record.seconds for record in completed) or [0.0]
    epochs = [epoch for record in trained for epoch in record.epochs]
    counts = Counter(record.status for record in study.records)
    baseline = next((record.score for record in completed if record.number == 0), None)
    values = {
        "seconds, from start to end": round(seconds, 1),
        **{f"trials {status}": counts[status] for status in Status if counts[status]},
        "trials a minute": round(len(trained) * 60 / seconds, 1),
        "epochs": len(epochs),
        "trials at once, at most": most_at_once(epochs),
        "trials at once, on average": round(sum(epoch.seconds for epoch in epochs) / seconds, 1),
        "seconds of a full proxy, median": round(statistics.median(times), 1),
        "seconds of a full proxy, 90 % within": round(times[math.ceil(0.9 * len(times)) - 1], 1),
        "best score": completed[0].score if completed else None,
        "baseline's score": baseline,
    }
    return {
        "images": study.manifest["images"]["train"],
        "top": [record.number for record in completed],
        "rows": {name: {"value": value} for name, value in values.items()},
    }


def most_at_once(epochs: list) -> int:
    """How many of the epochs were trained at the same time, at most."""
    events = sorted(
        event
        for epoch in epochs
        for event in ((epoch.ended - 0.9 * epoch.seconds, 1), (epoch.ended, -1))
    )  # 0.9: reports come late
    return max(accumulate(change for _, change in events), default=0)


def run_retrain(bench: Bench, until: float) -> str:
    """The search's best designs and published ones by the same recipe, several at a time."""
    found, runs = bench.results.get("search", {}), bench.work / "runs"
    if not found.get("top") or not (runs / STUDY).exists():
        return "not started: there is no search with completed trials"
    trials = [
        (f"r{number:03d}", ["--trial", number]) for number in found["top"][: bench.sizes.retrained]
    ]
    presets = [(name, ["--preset", name]) for name in PRESETS[: bench.sizes.retrained]]
    jobs = [job for pair in zip_longest(trials, presets) for job in pair if job]
    at_once = min(bench.args.at_once, len(jobs))
    asked, epochs = bench.sizes.retrain_epochs, epochs_that_fit(bench, len(jobs), until)
    bench.put(
        "retrain",
        notes=[
            f"{epochs} epochs each, {at_once} trainings at a time"
            + (f"; {asked} would not have fitted into the time." if epochs < asked else ".")
        ],
    )

    def one(job: tuple[str, list]) -> str:
        name, what = job
        return train_and_score(
            bench,
            until,
            "retrain",
            name,
            runs / STUDY / "retrained" / name,
            [
                *what,
                "--study",
                STUDY,
                "--epochs",
                epochs,
                "--size",
                bench.sizes.size,
                "--eval-every",
                0,
                "--runs-dir",
                runs,
                *bench.args.retrain_flags,
            ],
            at_once,
        )

    return all_of(one, jobs, at_once)


def all_of(one: Callable, jobs: Sequence, at_once: int) -> str:
    """Do `one` of each of the jobs, so many at a time; returns what went wrong first."""
    with ThreadPoolExecutor(at_once) as pool:
        return next(filter(None, list(pool.map(one, jobs))), "")


def epochs_that_fit(bench: Bench, jobs: int, until: float) -> int:
    """Epochs of each retrain: those asked for, or what the time allows at the images a second that
    the trainings of the part parity had together."""
    images = jobs * bench.results["search"]["images"]
    rate = sum(
        row["images seen"] / row["seconds"]
        for row in bench.results.get("parity", {}).get("rows", {}).values()
        if "seconds" in row
    )
    other = 25 * math.ceil(jobs / bench.args.at_once)  # seconds of starts, caches, scoring
    seconds = min(until, bench.end) - time.monotonic() - other
    fitting = 0.85 * seconds * rate / images if rate else math.inf
    return int(max(1, min(bench.sizes.retrain_epochs, fitting)))


def train_and_score(
    bench: Bench, until: float, part: str, name: str, folder: Path, flags: list, at_once: int
) -> str:
    """Retrain a model into `folder` and score it on the val images; both go to the row `name`."""
    label = f"{part}-{name.replace(' ', '-')}"
    metrics, scores = (bench.work / f"{label}-{what}.json" for what in ("metrics", "scores"))
    common = ["--device", bench.args.device, "--tracking-uri", "none", "--json"]
    training = ["-m", "nas.retrain", *flags, *common, metrics]
    scoring = [
        "-m",
        "nas.evaluate",
        "--checkpoint",
        folder / "weights.pt",
        "--data",
        bench.args.data,
        "--test-size",
        bench.sizes.test_size,
        *common,
        scores,
    ]
    bench.row(part, name, commands=[bench.shown(training), bench.shown(scoring)])
    workdir = folder.with_name(f"{folder.name}-training")
    for old in (folder, workdir):  # of an earlier call
        shutil.rmtree(old, ignore_errors=True)
    for old in (metrics, scores):
        old.unlink(missing_ok=True)
    problem = bench.python(label, training, until, at_once=at_once)
    if trained := read(metrics):
        epochs = trained["epochs"]
        bench.row(
            part,
            name,
            **{
                "design": trained["describe"],
                "params": trained["params"],
                "G MACs": trained["macs"] / 1e9,
                "epochs": len(epochs),
                "seconds": trained["seconds"],
                "images seen": sum(epoch["images"] for epoch in epochs),
                "loss": course([epoch["losses"]["total"] for epoch in epochs]),
                "losses": [epoch["losses"] for epoch in epochs],
            },
        )
        problem = bench.python(f"{label}-score", scoring, until, at_once=at_once)
    else:
        bench.row(part, name, epochs=read(workdir / "last.json").get("epoch", 0))
    found = read(scores)
    score = {"score": found["score"]} if found else {}
    bench.row(part, name, **found.get("ap", {}), **score, note=problem)
    return problem


def course(losses: list[float]) -> str:
    """A few of the losses by epoch, such as "4.11 (1), 2.03 (20), 1.87 (40)"."""
    last = len(losses)
    chosen = sorted({1, *(math.ceil(last * share) for share in (0.25, 0.5, 0.75, 1))})
    return ", ".join(f"{losses[epoch - 1]:.2f} ({epoch})" for epoch in chosen)


# -- the command ----------------------------------------------------------------------------------

PARTS = {
    "tests": run_tests,
    "rates": run_rates,
    "parity": run_parity,
    "search": run_search,
    "retrain": run_retrain,
}


def parser() -> ArgumentParser:
    made = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder of results.json and log.txt"
    )
    made.add_argument(
        "--render", action="store_true", help="write the page from results.json, measure nothing"
    )
    made.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        default=ROOT / "docs" / "gpu.md",
        help="the page that --render writes (default: docs/gpu.md)",
    )
    made.add_argument(
        "--parts",
        metavar="NAME,…",
        default=",".join(DEADLINES),
        help="parts to measure, each with other seconds than its own if you like, "
        "such as rates,retrain:300 (default: all, "
        + ", ".join(f"{part}:{own}" for part, own in DEADLINES.items())
        + ")",
    )
    made.add_argument(
        "--seconds", metavar="N", type=float, default=480, help="for all of it (default: 480)"
    )
    made.add_argument(
        "--tiny", action="store_true", help="a dry run with very few images, epochs and trials"
    )
    made.add_argument(
        "--data",
        metavar="PATH",
        default="synthetic",
        help="folder of WIDER FACE (default: the built-in scenes)",
    )
    made.add_argument(
        "--backbone",
        metavar="FILE",
        type=Path,
        help="the ImageNet backbone of the part parity (default: from scratch)",
    )
    made.add_argument(
        "--released",
        metavar="FILE",
        type=Path,
        help="released weights of RetinaFace mobile0.25, for the rate of evaluation "
        "(default: random weights)",
    )
    made.add_argument(
        "--peer",
        metavar="DIR",
        type=Path,
        help="a checkout of biubug6/Pytorch_Retinaface (default: without its rates)",
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument(
        "--search-at-once",
        metavar="N",
        type=int,
        help="trials that share the GPU in the search (default: what nas.search finds good)",
    )
    made.add_argument(
        "--at-once",
        metavar="N",
        type=int,
        default=4,
        help="retrains that share the GPU (default: 4)",
    )
    made.add_argument(
        "--retrain-epochs",
        metavar="N",
        type=int,
        help="epochs of a retrain at most; fewer where the time is short, by the "
        "rate that the part parity had (default: 100)",
    )
    made.add_argument(
        "--retrained",
        metavar="K",
        type=int,
        help="how many of the search's best designs, and how many presets, are "
        "retrained (default: 4)",
    )
    made.add_argument(
        "--retrain-flags",
        metavar="FLAGS",
        type=shlex.split,
        default=[],
        help="more flags for the nas.retrain of the part retrain, in one word, such "
        "as --retrain-flags='--batch-size auto'",
    )
    made.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        help="folder for caches, studies and models, kept (default: a temporary one)",
    )
    made.add_argument(
        "--measure", choices=("ours", "peer"), help="only measure these rates, in this process"
    )
    return made


def machine(args: Namespace, argv: list[str]) -> dict:
    """What is measured on, and by which command."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    card: dict = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        card = dict(zip(("card", "memory", "driver"), told.splitlines()[0].split(", ")))
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
    """The arguments with names in place of this machine's folders."""
    paths = ("out", "work", "data", "backbone", "released", "peer", "page")
    named = {f"--{key}": key.upper() for key in paths if getattr(args, key) != "synthetic"}
    return [named.get(before, own) for before, own in zip(["", *argv], argv)]


def deadlines(text: str) -> dict[str, float]:
    """Seconds by part, in the order given."""
    found = {}
    for name in text.split(","):
        part, _, seconds = name.partition(":")
        if part not in PARTS:
            sys.exit(f"--parts: {part!r} is not one of {', '.join(PARTS)}")
        found[part] = float(seconds or DEADLINES[part])
    return found


def measure(args: Namespace, argv: list[str]) -> int:
    """Measure one part after the other; returns the exit code, 1 where something went wrong."""
    bench, chosen = Bench(args), deadlines(args.parts)

    def stop(*_: object) -> None:
        bench.end = 0  # whatever runs is stopped, and nothing more is started

    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, stop)
    bench.results["machine"] = machine(args, argv)
    for part, seconds in chosen.items():
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
        except Exception as error:  # the other parts are worth having all the same
            traceback.print_exc()
            problem = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        bench.put(part, state=problem or "done", seconds=time.monotonic() - started)
        print(f"{part}: {problem or 'done'} ({time.monotonic() - started:.0f} s)", flush=True)
    return int(any(bench.results[part]["state"] != "done" for part in chosen))


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
