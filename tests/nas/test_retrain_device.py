"""Retrains adapted to the device: --batch-size auto, and a device with too little memory."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from nas import retrain
from nas.retraining import training
from nas.retraining.batch_size import with_auto_batch_size
from nas.retraining.candidate import choose_candidate, full_recipe
from nas.retraining.options import RetrainOptions


@pytest.fixture
def fast_gpu(monkeypatch):
    """--batch-size auto as on a GPU; the list of calls: batch size, image size, sizes to try."""

    def choose_size(config, recipe, device, sizes, step, report):
        assert set(step.keywords) == {"graph", "teacher"} and step.keywords["teacher"] is None
        calls.append((recipe.batch_size, recipe.size, sorted(sizes)))
        report(f"batch size: {max(sizes)}, chosen")
        return max(sizes)

    calls = []
    monkeypatch.setattr("detector.training.batch_size.choose_batch_size", choose_size)
    monkeypatch.setattr("detector.training.batch_size.MIN_STEPS", 1)
    return calls


def test_the_batch_size_is_chosen_for_the_device(retrained, tiny_study, fast_gpu):
    flags = ("--best", "--epochs", "1", "--size", "64", "--batch-size", "auto")
    code, out, err = retrained(*flags)
    assert (code, err) == (0, "")
    assert fast_gpu == [(4, 64, [4, 8])]  # of 10 images
    assert "batch size: 8, chosen\n" in out and "batch 8, lr 0.04 " in out
    metrics = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    assert metrics["chosen_batch_size"] == metrics["recipe"]["batch_size"] == 8
    assert metrics["recipe"]["optimizer"]["lr"] == pytest.approx(0.04)
    code, out, _ = retrained(*flags, "--resume")
    assert code == 0 and "already been retrained" in out and len(fast_gpu) == 1
    assert retrained("--best", "--epochs", "2", *flags[3:], "--resume")[0] == 0
    assert len(fast_gpu) == 2  # another retrain


def test_a_chosen_batch_size_is_kept_by_a_resumed_retrain(
    retrained, tiny_study, fast_gpu, monkeypatch
):
    import detector.training.fit

    def killed(*args, **kwargs):
        yield next(original(*args, **kwargs))
        raise KeyboardInterrupt

    original = detector.training.fit.fit
    flags = ("--best", "--epochs", "2", "--size", "64", "--batch-size", "auto")
    with monkeypatch.context() as patch:
        patch.setattr(detector.training.fit, "fit", killed)
        assert retrained(*flags)[0] == 130
    monkeypatch.setattr("detector.training.batch_size.choose_batch_size", None)  # not called again
    code, out, err = retrained(*flags, "--resume")
    assert (code, err) == (0, "") and "batch 8, lr" in out
    metrics = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    assert (metrics["chosen_batch_size"], len(metrics["epochs"])) == (8, 2)


def test_workers_time_their_share_of_a_step(tiny_study, fast_gpu, capsys):
    args = retrain.make_parser().parse_args(
        [
            "--runs-dir",
            str(tiny_study.folder.parent),
            "--batch-size",
            "auto",
            "--workers",
            "2",
            "--size",
            "64",
        ]
    )
    options = RetrainOptions.of(args)
    candidate = choose_candidate(options)
    recipe = with_auto_batch_size(
        candidate, full_recipe(candidate, options), SimpleNamespace(images=40), options
    )
    assert fast_gpu == [(2, 64, [2, 4, 8, 16])]
    assert recipe.batch_size == 32
    assert capsys.readouterr().out == "batch size: 16, chosen; for each of 2 workers\n"


def test_out_of_memory_is_one_line_whose_hint_works(retrained, tiny_study, monkeypatch):
    original = training._epochs

    def runs_out(candidate, recipe, *rest):
        if recipe.accumulate == 1:
            yield from itertools.islice(original(candidate, recipe, *rest), 1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nGPU 0")
        yield from original(candidate, recipe, *rest)

    monkeypatch.setattr(training, "_epochs", runs_out)
    code, _, err = retrained("--best", "--epochs", "2")
    assert code == 2 and err.count("\n") == 1
    assert "out of memory with 4 images of 256 px per step; add --accumulate 2" in err
    code, _, err = retrained("--best", "--epochs", "2", "--accumulate", "2", "--resume")
    assert (code, err) == (0, "")
    metrics = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert metrics["recipe"]["accumulate"] == 2
