"""One training on several workers, by Ray Train: each has a GPU of any node (a share of one if
there are fewer GPUs than workers), or a share of the CPUs.

Every worker runs `detector.training.fit.fit`, which shares the work over torch's process group.
When one worker dies, all end; Ray Train restarts them, and `fit` resumes from its checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
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
# Workers import torch first, which takes more than Ray's minute on a busy machine.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.util.queue import Empty, Queue

from detector.base.errors import TrainingError, UserError
from detector.base.plugins import load_plugins, loaded_plugins
from detector.config.detector import Detector
from detector.config.recipe import Recipe
from detector.data.cache import CachedImages
from detector.training import distributed
from detector.training.epoch import Epoch, Progress
from detector.training.fit import fit
from detector.training.teacher import TeacherFile
from detector.weights.file_names import LAST
from trials.compute.cluster import join
from trials.compute.local_ray import ended_without_gcs, local_ray
from trials.compute.resources import gpu_share

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3  # of workers that died
COLLECTIVE_TIMEOUT_S = 2 * 3600  # workers wait for each other: the first one evaluates alone


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
    teacher: TeacherFile | None = None,
) -> Iterator[Epoch]:
    """As `fit`, on several workers. Every node must see the images, `workdir`, the teacher and the
    plugins.

    Starts a local Ray, or joins the cluster that RAY_ADDRESS names, until the training ends.

    Raises:
        UserError: too few cores, or no GPU; workers keep dying; as `fit` does.
        TrainingError: as `fit` does.
    """
    path = Path(workdir).resolve() / LAST
    epochs_reported = _epochs(path)
    with _ray(workers):
        gpu = _gpu_share(device, workers)
        if 0 < gpu < 1:
            gpus = _available("GPU")
            logger.warning(
                "note: %d workers share %d GPU%s in turns; one worker per GPU would be as fast",
                workers,
                gpus,
                "s" * (gpus > 1),
            )
        queue = Queue(actor_options={"num_cpus": 0})
        threads = 1 if gpu else max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "detector": config,
                "recipe": recipe,
                "queue": queue,
                "train": str(train.folder.resolve()),
                "workdir": str(path.parent),
                "holdout": None if holdout is None else str(holdout.folder.resolve()),
                "device": "cuda" if gpu else "cpu",
                "threads": threads,
                "epochs_reported": epochs_reported,
                "teacher": teacher,
                "plugins": [str(plugin.path) for plugin in loaded_plugins()],
            },
            # NCCL, the default on GPUs, refuses two workers on the same one.
            torch_config=TorchConfig(
                backend="gloo" if gpu < 1 else None, timeout_s=COLLECTIVE_TIMEOUT_S
            ),
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpu > 0,
                resources_per_worker={"CPU": 1} | ({"GPU": gpu} if gpu else {}),
            ),
            run_config=RunConfig(  # type: ignore[call-arg]  # Ray's types describe an older one
                storage_path=str(path.parent),
                name="ray-train",
                failure_config=FailureConfig(max_failures=MAX_RESTARTS),
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
        )
        for epoch in _listen(trainer, queue, progress):
            if epoch.epoch > epochs_reported:  # restarted workers report some epochs again
                epochs_reported = epoch.epoch
                yield epoch


def _epochs(path: Path) -> int:
    """Epochs of the checkpoint at `path`, 0 if there is none."""
    from detector.weights import checkpoint

    return len(checkpoint.load(path).state["history"]) if path.exists() else 0


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, or a local Ray, for the duration of the block."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        with (
            local_ray(max(workers, os.cpu_count() or 1), log_level=logging.CRITICAL),
            ended_without_gcs("nothing is lost, resume by the same command with --resume"),
        ):
            yield
        return
    join(address, "RAY_ADDRESS", "unset it", logging_level=logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _available(kind: str) -> int:
    """Number of cores (CPU) or GPUs that Ray has."""
    return int(ray.cluster_resources().get(kind, 0))


def _gpu_share(device: str, workers: int) -> float:
    """Share of a GPU for each worker: 1, or less if there are fewer GPUs than workers; 0 on CPUs.

    Raises:
        UserError: there are too few CPUs, or no GPU.
    """
    gpus = _available("GPU")
    gpu = device == "cuda" or (device == "auto" and gpus > 0)
    if gpu and not gpus:
        raise UserError(f"--workers {workers}: Ray sees no GPU; give --device cpu")
    if not gpu and _available("CPU") < workers:
        raise UserError(
            f"--workers {workers}: Ray sees {_available('CPU')} CPUs; give at most that"
        )
    return gpu_share(math.ceil(workers / gpus)) if gpu else 0.0


def _listen(trainer: TorchTrainer, queue: Queue, progress: Progress) -> Iterator[Epoch]:
    """The epochs as the first worker reports them, while the trainer runs in a thread."""
    failures: list[Exception] = []

    def run():
        try:
            trainer.fit()
        except Exception as error:  # of any kind: it is raised in the thread that listens
            failures.append(error)

    running = threading.Thread(target=run, daemon=True)
    running.start()
    while True:
        ended = not running.is_alive()
        try:
            kind, content = queue.get(timeout=0 if ended else 0.5)
        except Empty:
            if ended:
                break
            continue
        if kind == "step":
            progress(*content)
        elif kind == "epoch":
            yield Epoch(**content)
        else:
            raise {"TrainingError": TrainingError}.get(kind, UserError)(content)
    if failures:
        cause = next(iter(getattr(failures[0], "worker_failures", {}).values()), failures[0])
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise UserError(
            f"the workers died {MAX_RESTARTS + 1} times before training ended (the last "
            f"time: {lines[-1]}); the last complete epoch is kept, resume with --resume"
        ) from failures[0]


def _work(job: dict) -> None:
    """What each worker does; the first one reports to the driver."""
    import torch

    load_plugins(job["plugins"])
    torch.set_num_threads(job["threads"])
    if job["device"] == "cuda":
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    first = distributed.this_worker().rank == 0

    def report(kind: str, content) -> None:
        if first:
            job["queue"].put((kind, content))

    holdout = job["holdout"]
    try:
        for epoch in fit(
            job["detector"],
            job["recipe"],
            CachedImages(Path(job["train"])),
            None if holdout is None else CachedImages(Path(holdout)),
            workdir=Path(job["workdir"]),
            device=job["device"],
            epochs_reported=job["epochs_reported"],
            teacher=job["teacher"],
            progress=lambda *step: report("step", step),
        ):
            report("epoch", asdict(epoch))
    except (UserError, TrainingError) as error:
        report(type(error).__name__, str(error))
        raise
