"""Trials on a GPU: out of memory, batch size, latency, resources."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.base.errors import UserError
from detector.data.cache import CachedImages, cache_images
from detector.inference.latency import latency
from detector.training.batch_size import choose_batch_size
from detector.training.fit import fit
from trials.compute.resources import shares_of, this_machine
from trials.run import Segment, release_memory, run_segment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
GPU = torch.device("cuda")


@pytest.fixture
def memory():
    """Function: limits the GPU memory of torch to a number of bytes, until the end of the test."""

    def allow(size: float) -> None:
        release_memory()
        total = torch.cuda.get_device_properties(GPU).total_memory
        torch.cuda.set_per_process_memory_fraction(min(size / total, 1.0))

    torch.zeros(1, device=GPU)
    yield allow
    allow(math.inf)


@pytest.fixture
def segment(tiny_study, tiny_data, tmp_path):
    """The tiny study's baseline at 640 px, 16 images per step."""
    train, holdout = (
        cache_images(images, tmp_path / "cache", 320).folder
        for images in (tiny_data.train, tiny_data.selection)
    )
    record = tiny_study.records[0]
    return Segment(
        number=7,
        detector=record.detector,
        recipe=replace(record.recipe, size=640, batch_size=16),
        until=2,
        evaluate_at=(2,),
        epochs_reported=0,
        workdir=str(tmp_path / "trials" / "0007"),
        train=str(train),
        holdout=str(holdout),
        device="cuda",
    )


def peak(segment: Segment, folder: Path, accumulate: int) -> int:
    """Peak GPU memory of a segment's training, in bytes."""
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    recipe = replace(segment.recipe, accumulate=accumulate)
    list(
        fit(
            segment.detector,
            recipe,
            CachedImages(Path(segment.train)),
            CachedImages(Path(segment.holdout)),
            workdir=folder,
            device="cuda",
        )
    )
    return torch.cuda.max_memory_reserved()


def test_a_segment_trains_on_the_gpu(segment):
    reports = list(run_segment(segment))
    assert [(r.epoch.epoch, r.ended, r.failure) for r in reports] == [
        (1, False, None),
        (2, True, None),
    ]
    assert reports[-1].notes["device"] == "cuda"
    assert all(map(math.isfinite, reports[-1].epoch.losses.values()))


def test_gradient_accumulation_fits_into_less_memory(segment, memory, tmp_path):
    without, accumulated = (peak(segment, tmp_path / str(count), count) for count in (1, 16))
    assert accumulated < without
    memory((without + accumulated) / 2)
    (report,) = run_segment(segment)
    assert report.failure.out_of_memory
    assert report.failure.reason.startswith("OutOfMemoryError: CUDA out of memory")
    *_, last = run_segment(replace(segment, accumulate=16))
    assert last.failure is None
    assert last.epoch.epoch == 2


def test_a_batch_size_is_chosen_on_the_gpu(segment, memory, capsys):
    config, recipe = segment.detector, segment.recipe
    assert choose_batch_size(config, recipe, GPU, [8, 16, 32]) in (8, 16, 32)
    assert "chosen by images/s (8: " in capsys.readouterr().out
    memory(1.0)
    with pytest.raises(UserError, match="not even 8 images a step fit"):
        choose_batch_size(config, recipe, GPU, [8, 16, 32])


class Large(nn.Module):
    """Enough multiplications that the time is that of the GPU, not of the host."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 192, 3, padding=1), *(nn.Conv2d(192, 192, 3, padding=1) for _ in range(8))
        )

    def forward(self, image):
        return self.layers(image.float() / 255)


def test_latency_is_reproducible_and_agrees_with_wall_clock_time():
    model = Large().to(GPU)
    first, second = latency(model, device=GPU), latency(model, device=GPU)
    assert second.median_ms == pytest.approx(first.median_ms, rel=0.2)
    image = torch.zeros(1, 3, 640, 640, dtype=torch.uint8, device=GPU)
    times_ms = []
    with torch.inference_mode():
        for _ in range(10):
            torch.cuda.synchronize()
            started = time.perf_counter()
            model(image)
            torch.cuda.synchronize()
            times_ms.append(1000 * (time.perf_counter() - started))
    assert first.median_ms / 1.5 < sorted(times_ms)[5] < 1.5 * first.median_ms
    assert torch.cuda.get_device_name() in first.machine


def test_this_machine_has_resources_for_a_trial():
    node = this_machine()
    assert node.gpus == torch.cuda.device_count()
    assert 1 < node.gpu_gb < 1000
    shares = shares_of([node])
    assert shares.device == "cuda"
    assert shares.concurrency * shares.cpus <= node.cpus or shares.cpus == 1
