"""The flagship's proxy on the built-in data: short, but long enough for a meaningful accuracy."""

import time
from pathlib import Path

import pytest
import torch

from detector.config.recipe import DataChoice
from detector.data.cache import cache_images
from detector.data.open import open_data
from detector.training.fit import fit
from nas.search_space.space import SPACES, SearchSpace

LIMIT_SECONDS = 10.0
MIN_AP = 0.3


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["retina", "quick"])
def test_baseline_at_full_budget(name, tmp_path: Path):
    torch.set_num_threads(1)  # as in a trial
    data = open_data(DataChoice(path="synthetic"))
    space = SearchSpace.load(SPACES / f"{name}.yaml").on(data)
    config, recipe = space.baseline
    train = cache_images(data.train, tmp_path, recipe.cache_size)
    holdout = cache_images(data.holdout, tmp_path, recipe.evaluation.size)
    started = time.perf_counter()
    epochs = list(
        fit(
            config,
            recipe,
            train,
            holdout,
            workdir=tmp_path / "fit",
            device="cpu",
            evaluate_at=space.rungs,
        )
    )
    seconds = time.perf_counter() - started
    ap = {epoch.epoch: sum(epoch.ap.values()) / 3 for epoch in epochs if epoch.ap}
    print(
        f"\n{name}: {recipe.epochs} epochs in {seconds:.1f} s (limit {LIMIT_SECONDS:g}); mean AP "
        + ", ".join(f"{value:.3f} after epoch {epoch}" for epoch, value in ap.items())
        + f" (at least {MIN_AP} at the end)"
    )
    assert ap[recipe.epochs] >= MIN_AP
    assert seconds <= LIMIT_SECONDS
