"""A search and retrains whose workers share one GPU, run as a user does."""

import json
from dataclasses import replace

import helpers
import pytest
import torch

from analysis.records.load import load_records
from detector.data.cache import cache_images
from nas.engine.driver import TrialSetup
from nas.search_space.space import SearchSpace
from trials.record import Status
from trials.run import release_memory, run_segment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
SEARCH = (
    "nas.search",
    "--space",
    "tiny.yaml",
    "--data",
    "synthetic",
    "--fraction",
    "0.3",
    "--tracking-uri",
    "none",
)
RETRAIN = (
    "nas.retrain",
    "--preset",
    "retinaface_mobile025",
    "--data",
    "synthetic",
    "--fraction",
    "0.3",
    "--epochs",
    "1",
    "--size",
    "128",
    "--tracking-uri",
    "none",
)


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch):
    """The commands see only the first GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


def test_trials_share_a_gpu(command, tiny_space, tmp_path):
    code, _, err = command(*SEARCH, "--trials", "3", "--study", "one", "--gpus-per-trial", "0.33")
    assert code == 0, err
    records = load_records(tmp_path / "runs" / "one")
    assert len(records) == 4
    assert {r.status for r in records} <= {Status.COMPLETED, Status.PRUNED}
    assert {r.notes["device"] for r in records} == {"cuda"}
    assert sum(r.retries for r in records) == 0


def test_a_trial_that_runs_out_of_memory_fails_and_the_search_continues(
    tmp_path, tiny_space, tiny_data
):
    train, holdout = (
        cache_images(images, tmp_path / "cache", 64).folder
        for images in (tiny_data.train, tiny_data.selection)
    )
    space = SearchSpace.load(tiny_space)
    driver = helpers.driver(
        tmp_path,
        replace(space, rungs=(1,)),
        trials=2,
        setup=TrialSetup(train=train, holdout=holdout, device="cuda"),
    )
    torch.zeros(1, device="cuda")
    parts = []
    while True:
        try:
            segment = driver.next_segment()
        except StopIteration:
            break
        if segment.number == 1:
            parts.append(segment.accumulate)
            release_memory()
            torch.cuda.set_per_process_memory_fraction(
                1e-6
            )  # less than one block of torch's allocator
        try:
            for report in run_segment(segment):
                driver.handle_report(report)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert [r.status for r in driver.records] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert parts == [1, 2, 4, 8, 16]
    assert driver.records[1].reason.startswith("OutOfMemoryError: CUDA out of memory")
    assert driver.records[1].reason.endswith("; even with one image at a time (16 parts a step)")


def test_a_retrain_chooses_its_batch_size(command, tmp_path):
    flags = (*RETRAIN, "--batch-size", "auto")
    code, out, err = command(*flags)
    assert code == 0, err
    assert ", chosen by images/s (32: " in out
    code, out, err = command(*flags, "--resume")
    assert code == 0, err
    assert "already been retrained" in out


def test_two_workers_share_a_gpu(command, tmp_path):
    """With synchronised batch normalisation."""
    code, out, err = command(*RETRAIN, "--workers", "2", "--json", "r.json")
    assert code == 0, err
    assert "2 workers share 1 GPU" in out
    metrics = json.loads((tmp_path / "r.json").read_text())
    assert (metrics["workers"], len(metrics["epochs"])) == (2, 1)
    assert metrics["ap"]
