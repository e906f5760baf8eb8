"""What all tests share: data to run on, and few threads (the machine may have two cores)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when torch and numpy load, so that neither is imported

PROJECT = Path(__file__).resolve().parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def wider_root() -> Path:
    """Folder of real WIDER FACE images in the official layout."""
    root = SHARED_DATA / "widerface"
    if not root.is_dir():
        pytest.skip("no WIDER FACE images in ../shared/data/widerface")
    return root


@pytest.fixture(scope="session")
def tiny_data():
    """A `Data` of 20 + 5 + 8 drawn images (train, hold-out, val)."""
    from detector.data import synthetic_data
    from detector.recipe import DataChoice

    return synthetic_data(DataChoice(path="synthetic"), train=25, val=8)


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    """Study "tiny" in tmp_path/runs, for what comes after a search: trial 0 is the baseline, 1 the
    best, 2 infeasible; tiny detectors. The built-in set has 19 + 8 images meanwhile."""
    import detector.data
    from detector.config import Backbone, Detector, Head, Neck, arch_hash
    from detector.recipe import DataChoice, Evaluation, Optimizer, Recipe
    from nas.store import Study
    from trials.objective import Objective
    from trials.record import Cost, EpochResult, Status, TrialRecord

    def few(choice: DataChoice, parts: tuple[str, ...] = ("train", "val")):
        if choice.path == "synthetic":
            return detector.data.synthetic_data(choice, train=19, val=8)
        return whole(choice, parts)

    whole = detector.data.open_data
    monkeypatch.setattr(detector.data, "open_data", few)
    choice = DataChoice(path="synthetic", holdout=0.4)
    recipe = Recipe(epochs=2, size=64, batch_size=4, evaluation=Evaluation(size=96),
                    optimizer=Optimizer(lr=0.02, weight_decay=1e-4))

    def trial(number: int, width: int, accuracy: float, **changes) -> TrialRecord:
        design = Detector(
            backbone=Backbone(kind="mobilenet_v1", stem=4, widths=(4, 8, 8, width, width),
                              depths=(1, 1, 1, 1, 1)),
            neck=Neck(levels=(4, 5), width=width), head=Head(landmarks=False))
        cost = Cost.of(design)
        ap = dict.fromkeys(("easy", "medium", "hard"), accuracy)
        return TrialRecord(
            number=number, status=Status.COMPLETED, design=arch_hash(design),
            detector=design.to_dict(), recipe=recipe.to_dict(), params={}, cost=cost,
            speed_score=Objective().speed_score(cost), started=1.0, ended=2.0,
            epochs=(EpochResult(epoch=2, losses={"total": 1.0}, lr=0.1, seconds=1.0, ap=ap),),
        ).but(**changes)

    study = Study.create(tmp_path / "runs", "tiny", {
        "name": "tiny", "space": "quick", "created": 1.0, "data": choice.to_dict(),
        "data_fingerprint": few(choice).fingerprint, "objective": Objective().to_dict()})
    study.add(trial(0, 12, 0.5), {})
    study.add(trial(1, 8, 0.6), {})
    study.add(trial(2, 16, 0.0, status=Status.INFEASIBLE, epochs=(), reason="too many"), {})
    return study
