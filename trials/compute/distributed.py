"""One training on several workers, by Ray Train: a CPU's share, or a GPU, of any node each (a share
of one where there are fewer GPUs than workers).

Every worker runs `detector.training.fit.fit`, which shares the work over torch's process group.
Workers end together when one of them dies; Ray Train starts them again, and `fit` goes on from its
checkpoint.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import trials.compute.settings  # noqa: F401  isort: skip  (before Ray itself)

# Ray Train reads these when it is imported.
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
# Workers import torch first: more than Ray's minute where a machine is busy.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.util.queue import Empty, Queue

from detector.base.errors import TrainingError, UserError
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.cache import CachedImages
from detector.training import distributed
from detector.training.fit import LAST, Epoch, Progress, fit
from trials.compute.cluster import join
from trials.compute.resources import gpu_share

RESTARTS = 3  # after workers that died
PATIENCE = 2 * 3600  # seconds that workers wait for each other: the first one evaluates alone


def fit_on_ray(
    config: Detector,
    recipe: Recipe,
    train: CachedImages,
    holdout: CachedImages | None,
    *,
    workdir: Path,
    device: str,
    workers: int,
    progress: Progress,
) -> Iterator[Epoch]:
    """As `fit`, by several workers. Images and `workdir` must be where every node sees them.

    Starts a local Ray, or joins the cluster that RAY_ADDRESS names; leaves it at the end.

    Raises:
        UserError: fewer cores than workers, or no GPU; workers that keep dying; what `fit` raises.
        TrainingError: as `fit` does.
    """
    path = Path(workdir).resolve() / LAST
    told = _epochs(path)
    _start_ray(workers)
    try:
        gpu = _gpu_share(device, workers)
        if 0 < gpu < 1:
            gpus = _there("GPU")
            print(
                f"note: {workers} workers share {gpus} GPU{'s' * (gpus > 1)}, taking turns; one "
                "on each would be as fast",
                flush=True,
            )
        queue = Queue(actor_options={"num_cpus": 0})
        threads = 1 if gpu else max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "detector": config.to_dict(),
                "recipe": recipe.to_dict(),
                "queue": queue,
                "train": str(train.folder.resolve()),
                "workdir": str(path.parent),
                "holdout": None if holdout is None else str(holdout.folder.resolve()),
                "device": "cuda" if gpu else "cpu",
                "threads": threads,
                "told": told,
            },
            # NCCL, the default on GPUs, refuses two workers on the same one.
            torch_config=TorchConfig(backend="gloo" if gpu < 1 else None, timeout_s=PATIENCE),
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpu > 0,
                resources_per_worker={"CPU": 1} | ({"GPU": gpu} if gpu else {}),
            ),
            run_config=RunConfig(
                storage_path=str(path.parent),
                name="ray-train",
                failure_config=FailureConfig(max_failures=RESTARTS),
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
        )
        for epoch in _listen(trainer, queue, progress):
            if epoch.epoch > told:  # one that was told before its worker died is told again
                told = epoch.epoch
                yield epoch
    finally:
        ray.shutdown()


def _epochs(path: Path) -> int:
    """Epochs of the checkpoint at `path`, which need not be there."""
    from detector.weights import checkpoint

    return len(checkpoint.load(path).state["history"]) if path.exists() else 0


def _start_ray(workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "local"):
        join(address, "RAY_ADDRESS", "unset it", logging_level="CRITICAL")
    else:
        ray.init(
            address="local",
            num_cpus=max(workers, os.cpu_count() or 1),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level="CRITICAL",
        )


def _there(kind: str) -> int:
    """Cores (CPU) or GPUs that Ray has."""
    return int(ray.cluster_resources().get(kind, 0))


def _gpu_share(device: str, workers: int) -> float:
    """Of a GPU for each worker: a whole one, less where there are fewer GPUs than workers; 0 on
    CPUs. UserError where there are too few."""
    gpus = _there("GPU")
    gpu = device == "cuda" or (device == "auto" and gpus > 0)
    if gpu and not gpus:
        raise UserError(f"--workers {workers}: Ray sees no GPU; give --device cpu")
    if not gpu and _there("CPU") < workers:
        raise UserError(f"--workers {workers}: Ray sees {_there('CPU')} CPUs; give at most that")
    return gpu_share(math.ceil(workers / gpus)) if gpu else 0.0


def _listen(trainer: TorchTrainer, queue: Queue, progress: Progress) -> Iterator[Epoch]:
    """The epochs as the first worker tells them, while the trainer runs in a thread."""
    failures: list[Exception] = []

    def run():
        try:
            trainer.fit()
        except Exception as error:  # of any kind: it belongs to the thread that listens
            failures.append(error)

    running = threading.Thread(target=run, daemon=True)
    running.start()
    while True:
        ended = not running.is_alive()
        try:
            kind, told = queue.get(timeout=0 if ended else 0.5)
        except Empty:
            if ended:
                break
            continue
        if kind == "step":
            progress(*told)
        elif kind == "epoch":
            yield Epoch(**told)
        else:
            raise {"TrainingError": TrainingError}.get(kind, UserError)(told)
    if failures:
        cause = next(iter(getattr(failures[0], "worker_failures", {}).values()), failures[0])
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise UserError(
            f"the workers ended {RESTARTS + 1} times before training did (the last "
            f"time: {lines[-1]}); the last finished epoch is kept, go on with --resume"
        ) from failures[0]


def _work(job: dict) -> None:
    """What each worker does; the first one tells the driver."""
    import torch

    torch.set_num_threads(job["threads"])
    if job["device"] == "cuda":
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    first = distributed.place().rank == 0

    def tell(kind: str, what) -> None:
        if first:
            job["queue"].put((kind, what))

    holdout = job["holdout"]
    try:
        for epoch in fit(
            Detector.from_dict(job["detector"]),
            Recipe.from_dict(job["recipe"]),
            CachedImages(Path(job["train"])),
            None if holdout is None else CachedImages(Path(holdout)),
            workdir=Path(job["workdir"]),
            device=job["device"],
            told=job["told"],
            progress=lambda *step: tell("step", step),
        ):
            tell("epoch", asdict(epoch))
    except (UserError, TrainingError) as error:
        tell(type(error).__name__, str(error))
        raise
