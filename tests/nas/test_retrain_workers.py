"""Two workers that train one detector together, by Ray Train on loopback."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch

from detector.config.recipe import DataChoice, Evaluation, Optimizer, Recipe
from detector.data.cache import cache_images
from detector.data.open import synthetic_data
from detector.training.fit import fit
from detector.weights import checkpoint
from detector.weights.file_names import LAST

CONFIG = helpers.TINY_DETECTOR
RECIPE = Recipe(
    epochs=3,
    size=64,
    batch_size=5,
    norm="frozen",
    precision="fp32",
    accumulate=2,
    optimizer=Optimizer(lr=2e-4, clip_norm=10.0, ema=0.9),
    evaluation=Evaluation(size=96, every=2),
)

# The driver, a module in the test's folder: reads job.json, writes the epochs to epochs.jsonl.
DRIVER = """
import json
from dataclasses import asdict
from pathlib import Path
from detector.config.detector import Detector
from detector.data.cache import CachedImages
from detector.config.recipe import Recipe
from trials.compute.distributed import fit_on_ray

job = json.loads(Path("job.json").read_text())
with open("epochs.jsonl", "w", buffering=1) as epochs:
    for epoch in fit_on_ray(Detector.from_dict(job["detector"]), Recipe.from_dict(job["recipe"]),
                            CachedImages(Path(job["train"])), CachedImages(Path(job["holdout"])),
                            workdir=Path("work"), device="cpu", workers=2,
                            progress=lambda *step: None):
        epochs.write(json.dumps(asdict(epoch)) + "\\n")
"""


@pytest.fixture
def images(tmp_path):
    data = synthetic_data(DataChoice(path="synthetic"), train=25, val=8)
    return [cache_images(part, tmp_path / "cache", None) for part in (data.train, data.holdout)]


@pytest.fixture
def start_pair(start, images, tmp_path):
    """Function: recipe → a process that trains with two workers in tmp_path / "work"."""

    def run(recipe: Recipe):
        (tmp_path / "job.json").write_text(
            json.dumps(
                {
                    "detector": CONFIG.to_dict(),
                    "recipe": recipe.to_dict(),
                    "train": str(images[0].folder),
                    "holdout": str(images[1].folder),
                }
            )
        )
        (tmp_path / "pair.py").write_text(DRIVER)
        return start("pair")

    return run


def reported_epochs(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_workers_have_the_same_losses_as_one(start_pair, images, tmp_path):
    """Five images per step: three and two, in two parts each; batch normalisation is frozen."""
    process = start_pair(RECIPE)
    alone = list(fit(CONFIG, RECIPE, *images, workdir=tmp_path / "alone", device="cpu"))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    together = reported_epochs(tmp_path)
    assert [e["epoch"] for e in together] == [e.epoch for e in alone] == [1, 2, 3]
    for one, two in zip(alone, together):
        assert two["losses"] == pytest.approx(one.losses, rel=1e-4)
        assert (two["images"], two["lr"]) == (one.images, one.lr)
        assert (two["ap"] is None) == (one.ap is None)
    one, two = (checkpoint.load(tmp_path / name / LAST) for name in ("alone", "work"))
    assert two.recipe == one.recipe
    for name, weight in one.model.items():
        assert torch.allclose(two.model[name], weight, rtol=1e-3, atol=1e-5), name


def workers_of(process) -> list[int]:
    """Pids of the driver's training workers."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if command.startswith(b"ray::RayTrainWorker") and (
            os.fsencode(process.folder) in environment
        ):
            pids.append(int(folder.name))
    return pids


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_no_epoch_is_lost_or_repeated(
    start_pair, tmp_path, monkeypatch
):
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))  # in the workers' environment, to find them
    process = start_pair(replace(RECIPE, epochs=40, evaluation=Evaluation(size=96, every=0)))
    process.folder = tmp_path
    deadline = time.monotonic() + 900
    while not (tmp_path / "work" / LAST).exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    assert (tmp_path / "work" / LAST).exists() and len(reported_epochs(tmp_path)) < 40
    workers = workers_of(process)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert [e["epoch"] for e in reported_epochs(tmp_path)] == list(range(1, 41))
    assert len(checkpoint.load(tmp_path / "work" / LAST).state["history"]) == 40
