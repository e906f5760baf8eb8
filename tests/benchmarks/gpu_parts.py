"""The parts of the GPU report: tests, rates, trainings beside the peer's, a search, retrains.

Each is a function of the bench and its deadline (`time.monotonic`) that returns what went wrong, or
an empty string.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, zip_longest
from pathlib import Path

from gpu_bench import BASELINE, GRACE, ROOT, STUDY, Bench, cores, read

PRESETS = (BASELINE, "yunet_n", "scrfd_0.5g", "yunet_s")
PARITY = (("torch", 0), ("torch", 1), ("he", 0))
"""Initialisation and seed of the trainings that are compared with the peer's."""
PEER_PARITY = {
    "easy": 0.8147,
    "medium": 0.7561,
    "hard": 0.4849,
    "note": "its own code, one seed, on a CPU",
}


def run_tests(bench: Bench, until: float) -> str:
    """The tests that need a GPU."""
    files = sorted(
        str(path.relative_to(ROOT))
        for path in ROOT.glob("tests/**/test_*.py")
        if "mark.gpu" in path.read_text()
    )
    if not files:
        return "not started: there are no such tests"
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
    """Images per second, see gpu_rates.py."""
    files = {owner: bench.work / f"rates-{owner}.json" for owner in ("ours", "peer")}

    def store() -> None:
        bench.put("rates", rows=read(files["ours"]) | read(files["peer"]))

    def measure(owner: str, until: float) -> str:
        args = bench.args
        command = [
            Path(__file__).with_name("gpu_report.py"),
            "--measure",
            owner,
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
        return bench.python(f"rates-{owner}", command, until, watch=store)

    for file in files.values():
        file.unlink(missing_ok=True)
    if bench.args.peer is None:
        bench.put(
            "rates",
            notes=["The peer's rows are missing: no checkout of its code was given (`--peer`)."],
        )
    problem = "" if bench.args.peer is None else measure("peer", time.monotonic() + 25)
    return measure("ours", until) or problem


def run_parity(bench: Bench, until: float) -> str:
    """The baseline trained by the peer's recipe: two seeds, and another initialisation, all at the
    same time."""
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
            f"`WORK/{initialization}.yaml` is `{recipe}`; `torch.yaml` differs in the "
            "initialisation only.",
            *(
                []
                if weights
                else ["Trained from scratch: no ImageNet backbone was given (`--backbone`)."]
            ),
        ],
    )

    def train(run: tuple[str, int]) -> str:
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

    return run_all(train, PARITY, len(PARITY))


def run_search(bench: Bench, until: float) -> str:
    """A search; its results are read from its study, even if it was stopped."""
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
        "--proxies",
        "short",
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
    shutil.rmtree(runs / STUDY, ignore_errors=True)  # from an earlier call
    if at_once := bench.args.search_at_once:
        command += ["--concurrency", at_once, "--gpus-per-trial", f"{1 / at_once:.4f}"]
    bench.put("search", commands=[bench.shown(command)])
    started = time.monotonic()
    problem = bench.python("search", command, until - GRACE)
    if (runs / STUDY / "study.json").exists():
        bench.put("search", **study_facts(runs, time.monotonic() - started))
    return problem


def study_facts(runs: Path, seconds: float) -> dict:
    """The results of a search that took `seconds`, from the records of its study."""
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
        "trials at once, at most": max_at_once(epochs),
        "trials at once, on average": round(sum(epoch.seconds for epoch in epochs) / seconds, 1),
        "seconds of a full proxy, median": round(statistics.median(times), 1),
        "seconds of a full proxy, 90 % within": round(times[math.ceil(0.9 * len(times)) - 1], 1),
        "best score": completed[0].score if completed else None,
        "baseline's score": baseline,
    }
    return {
        "images": study.manifest.images["train"],
        "top": [record.number for record in completed],
        "rows": {name: {"value": value} for name, value in values.items()},
    }


def max_at_once(epochs: list) -> int:
    """Maximum number of epochs that were trained at the same time."""
    events = sorted(
        event
        for epoch in epochs
        for event in ((epoch.ended - 0.9 * epoch.seconds, 1), (epoch.ended, -1))
    )  # 0.9: reports arrive late
    return max(accumulate(change for _, change in events), default=0)


def run_retrain(bench: Bench, until: float) -> str:
    """The search's best designs and published ones, by the same recipe, several at a time."""
    search, runs = bench.results.get("search", {}), bench.work / "runs"
    if not search.get("top") or not (runs / STUDY).exists():
        return "not started: there is no search with completed trials"
    trials = [
        (f"r{number:03d}", ["--trial", number]) for number in search["top"][: bench.sizes.retrained]
    ]
    presets = [(name, ["--preset", name]) for name in PRESETS[: bench.sizes.retrained]]
    jobs = [job for pair in zip_longest(trials, presets) for job in pair if job]
    at_once = min(bench.args.at_once, len(jobs))
    wanted, epochs = bench.sizes.retrain_epochs, epochs_that_fit(bench, len(jobs), until)
    bench.put(
        "retrain",
        notes=[
            f"{epochs} epochs each, {at_once} trainings at a time"
            + (f"; {wanted} would not have fitted into the time." if epochs < wanted else ".")
        ],
    )

    def train(job: tuple[str, list]) -> str:
        name, choice = job
        return train_and_score(
            bench,
            until,
            "retrain",
            name,
            runs / STUDY / "retrained" / name,
            [
                *choice,
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

    return run_all(train, jobs, at_once)


def run_all(run: Callable, jobs: Sequence, at_once: int) -> str:
    """`run` each of the jobs, `at_once` at a time; returns the first problem."""
    with ThreadPoolExecutor(at_once) as pool:
        return next(filter(None, list(pool.map(run, jobs))), "")


def epochs_that_fit(bench: Bench, jobs: int, until: float) -> int:
    """Epochs of each retrain: those requested, or fewer if the time is short, by the total rate of
    the trainings of the part parity."""
    images = jobs * bench.results["search"]["images"]
    rate = sum(
        row["images seen"] / row["seconds"]
        for row in bench.results.get("parity", {}).get("rows", {}).values()
        if "seconds" in row
    )
    other = 25 * math.ceil(jobs / bench.args.at_once)  # seconds for starting, caching, scoring
    seconds = min(until, bench.end) - time.monotonic() - other
    fitting = 0.85 * seconds * rate / images if rate else math.inf
    return int(max(1, min(bench.sizes.retrain_epochs, fitting)))


def train_and_score(
    bench: Bench, until: float, part: str, name: str, folder: Path, flags: list, at_once: int
) -> str:
    """Retrain a model into `folder` and score it on the val images; fills the row `name`."""
    label = f"{part}-{name.replace(' ', '-')}"
    metrics, scores = (bench.work / f"{label}-{name}.json" for name in ("metrics", "scores"))
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
    for old in (folder, workdir):  # from an earlier call
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
                "loss": loss_summary([epoch["losses"]["total"] for epoch in epochs]),
                "losses": [epoch["losses"] for epoch in epochs],
            },
        )
        problem = bench.python(f"{label}-score", scoring, until, at_once=at_once)
    else:
        bench.row(part, name, epochs=read(workdir / "last.json").get("epoch", 0))
    result = read(scores)
    score = {"score": result["score"]} if result else {}
    bench.row(part, name, **result.get("ap", {}), **score, note=problem)
    return problem


def loss_summary(losses: list[float]) -> str:
    """A few of the losses by epoch, such as "4.11 (1), 2.03 (20), 1.87 (40)"."""
    last = len(losses)
    epochs = sorted({1, *(math.ceil(last * share) for share in (0.25, 0.5, 0.75, 1))})
    return ", ".join(f"{losses[epoch - 1]:.2f} ({epoch})" for epoch in epochs)


PARTS = {
    "tests": run_tests,
    "rates": run_rates,
    "parity": run_parity,
    "search": run_search,
    "retrain": run_retrain,
}
