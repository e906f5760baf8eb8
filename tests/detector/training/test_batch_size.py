"""The batch size that suits a device, chosen by the times that a fake one takes for a step."""

import pytest
import torch

from detector.base.errors import UserError
from detector.config.detector import Backbone, Detector, Head, Neck
from detector.config.recipe import Recipe
from detector.training.batch_size import choose_batch_size, sizes_to_try, time_step

GPU, CPU = torch.device("cuda"), torch.device("cpu")
CONFIG = Detector(
    backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 8, 8, 8, 8), depths=(1, 1, 1, 1, 1)),
    neck=Neck(levels=(4, 5), width=8),
)


@pytest.fixture(autouse=True)
def no_gpu_to_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr("gc.collect", lambda: 0)  # 0.5 s after many tests


def taking(seconds):
    """A timer of steps; seconds by images a step, or the error of one."""

    def step(config, recipe, device):
        tried.append(recipe.batch_size)
        answer = seconds[recipe.batch_size]
        if isinstance(answer, Exception):
            raise answer
        return answer

    tried = step.tried = []
    return step


@pytest.mark.parametrize(
    ("own", "images", "sizes"),
    [
        (32, 12_880, [32, 64, 128, 256]),
        (32, 1600, [32, 64]),
        (32, 100, [32]),
        (48, 10**6, [48, 96, 192]),
        (300, 10**6, [300]),
    ],
)
def test_sizes_are_doublings_that_leave_an_epoch_its_steps(own, images, sizes):
    assert sizes_to_try(own, images) == sizes


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({8: 1.0, 16: 1.0, 32: 1.0}, 32),  # a step takes as long, however large
        ({8: 1.0, 16: 2.0, 32: 4.0}, 8),  # no better rate
        ({8: 1.0, 16: 1.2, 32: 2.3}, 16),  # 13.3 of 13.9 images/s
        ({8: 1.0, 16: 1.0, 32: 9.0}, 16),
    ],
)
def test_the_smallest_of_nearly_the_best_rate(seconds, chosen):
    lines = []
    step = taking(seconds)
    assert choose_batch_size(CONFIG, Recipe(), GPU, [32, 8, 16], step, lines.append) == chosen
    assert step.tried == [8, 16, 32]
    assert len(lines) == 1
    assert lines[0].startswith(f"batch size: {chosen}, chosen by images/s (8: 8, 16: ")


def test_what_does_not_fit_ends_the_search():
    lines = []
    step = taking({8: 1.0, 16: 1.0, 32: torch.OutOfMemoryError("CUDA out of memory."), 64: 1.0})
    assert choose_batch_size(CONFIG, Recipe(), GPU, [8, 16, 32, 64], step, lines.append) == 16
    assert step.tried == [8, 16, 32]
    assert lines == ["batch size: 16, chosen by images/s (8: 8, 16: 16; 32 does not fit in memory)"]


def test_faults_of_other_kinds_are_not_taken_for_it():
    with pytest.raises(UserError, match=r"not even 8 images a step fit .* --batch-size N"):
        choose_batch_size(CONFIG, Recipe(), GPU, [8], taking({8: MemoryError()}))
    with pytest.raises(ValueError, match="another"):
        choose_batch_size(CONFIG, Recipe(), GPU, [8], taking({8: ValueError("another")}))


def test_a_cpu_keeps_the_recipes_own():
    lines = []
    assert choose_batch_size(CONFIG, Recipe(batch_size=12), CPU, [12, 24], None, lines.append) == 12
    assert lines == ["batch size: 12, the recipe's own, as on any CPU"]


@pytest.mark.parametrize("landmarks", [True, False])
def test_a_step_of_noise_is_timed(landmarks):
    config = Detector(backbone=CONFIG.backbone, neck=CONFIG.neck, head=Head(landmarks=landmarks))
    assert 0 < time_step(config, Recipe(size=64, batch_size=2), CPU) < 60
