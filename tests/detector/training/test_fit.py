"""Training: reproducible, exact when resumed, and with clear errors."""

import json
from dataclasses import replace

import helpers
import pytest
import torch

from detector.base.errors import TrainingError, UserError
from detector.config.presets import load_preset
from detector.config.recipe import Augmentation, Evaluation, Optimizer, Recipe
from detector.data.splits import Subset
from detector.training import fit, stepper
from detector.weights import checkpoint
from detector.weights.file_names import LAST

CONFIG = helpers.TINY_DETECTOR
RECIPE = Recipe(
    epochs=4,
    size=64,
    batch_size=5,
    seed=3,
    augmentation=Augmentation(scales=(0.6, 1)),
    optimizer=Optimizer(lr=0.01, schedule="cosine", clip_norm=10.0),
    evaluation=Evaluation(size=96, every=2),
)
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def fake_ap(monkeypatch):
    """Evaluation that costs nothing and changes nothing."""
    monkeypatch.setattr(
        fit, "_evaluate", lambda *arguments: {"easy": 0.3, "medium": 0.2, "hard": 0.1}
    )


def weights(folder):
    return checkpoint.load(folder / LAST).model


def equal(a, b):
    return list(a) == list(b) and all(a[name].equal(b[name]) for name in a)


def run(data, workdir, recipe=RECIPE, **options):
    return list(
        fit.fit(CONFIG, recipe, data.train, data.holdout, workdir=workdir, device="cpu", **options)
    )


def test_two_runs_are_equal_and_leave_the_global_generator_alone(tiny_data, tmp_path, fake_ap):
    before = torch.get_rng_state()
    first = run(tiny_data, tmp_path / "a", until=2)
    assert torch.get_rng_state().equal(before)
    torch.rand(7)  # a caller that draws in between changes nothing
    second = run(tiny_data, tmp_path / "b", until=2)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert [e.losses for e in first] == [e.losses for e in second]
    other = replace(RECIPE, seed=4)
    run(tiny_data, tmp_path / "c", other, until=1)
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_stop_and_resume_equals_uninterrupted(tiny_data, tmp_path, fake_ap):
    straight = run(tiny_data, tmp_path / "a")
    assert [e.epoch for e in run(tiny_data, tmp_path / "b", until=2)] == [1, 2]

    def interrupt(epoch, step, steps, losses):
        if (epoch, step) == (4, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in the middle of epoch 4, which starts again
        run(tiny_data, tmp_path / "b", progress=interrupt)
    resumed = run(tiny_data, tmp_path / "b")
    assert [e.epoch for e in resumed] == [4]
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert resumed[0].losses == straight[3].losses
    states = [checkpoint.load(tmp_path / name / LAST).state for name in "ab"]
    for index, momentum in states[0]["optimizer"]["state"].items():
        assert momentum["momentum_buffer"].equal(
            states[1]["optimizer"]["state"][index]["momentum_buffer"]
        )
    assert run(tiny_data, tmp_path / "b") == []  # nothing left to do


def test_all_of_the_training_state_is_resumed(tiny_data, tmp_path, fake_ap):
    """fp16's scale (off its start), the average of weights, and the weights beside it."""
    recipe = replace(
        RECIPE, precision="fp16", accumulate=2, optimizer=replace(RECIPE.optimizer, ema=0.9)
    )
    straight = run(tiny_data, tmp_path / "a", recipe, until=3)
    run(tiny_data, tmp_path / "b", recipe, until=1)
    assert run(tiny_data, tmp_path / "b", recipe, until=3)[-1].losses == straight[-1].losses
    a, b = (checkpoint.load(tmp_path / name / LAST) for name in "ab")
    assert equal(a.model, b.model) and equal(a.state["model"], b.state["model"])
    assert a.state["scaler"] == b.state["scaler"]
    assert a.state["scaler"]["scale"] < 2**16  # the first step overflows and is left out
    assert a.state["averaged"] == 3 * (len(tiny_data.train) // 5)
    assert not equal(a.model, a.state["model"])


def test_the_average_of_the_weights_is_what_is_evaluated_and_saved(
    tiny_data, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        fit,
        "_evaluate",
        lambda model, *rest: (
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            or {"hard": 0.0}
        ),
    )
    slow = replace(RECIPE, optimizer=replace(RECIPE.optimizer, ema=0.999))
    run(tiny_data, tmp_path, slow, until=1)
    saved = checkpoint.load(tmp_path / LAST)
    assert equal(seen[0], saved.model)
    # the same weights as without an average, except its recalibrated statistics
    run(tiny_data, tmp_path / "raw", until=1)
    raw = {name: value for name, value in weights(tmp_path / "raw").items() if "norm" not in name}
    assert raw and all(value.equal(saved.state["model"][name]) for name, value in raw.items())


def test_what_stays_not_finite_in_fp16_is_an_error(tiny_data, tmp_path, fake_ap, monkeypatch):
    def diverges(*arguments):
        results.append(gradient_step(*arguments))
        return results[-1] | {"total": torch.tensor(float("nan"))}

    gradient_step, results = stepper.gradient_step, []
    recipe = replace(RECIPE, precision="fp16")
    monkeypatch.setattr(stepper, "gradient_step", diverges)
    with pytest.raises(TrainingError, match=r"not finite at any step of epoch 1 .*bf16 or fp32"):
        run(tiny_data, tmp_path, recipe)
    assert len(results) == len(tiny_data.train) // 5  # each is skipped

    def overflows(*arguments):
        losses = gradient_step(*arguments)
        arguments[5].scale.fill_(0.5)
        return losses

    monkeypatch.setattr(stepper, "gradient_step", overflows)
    with pytest.raises(TrainingError, match="epoch 1, step 1 of"):
        run(tiny_data, tmp_path, recipe)


def test_older_checkpoints_are_read(tiny_data, tmp_path, fake_ap):
    """They had `autocast` and knew neither parts, averages nor scales."""
    run(tiny_data, tmp_path, until=1)
    content = torch.load(tmp_path / LAST)
    for key in ("precision", "accumulate", "norm"):
        del content["recipe"][key]
    content["recipe"]["autocast"] = True
    del content["recipe"]["optimizer"]["ema"], content["state"]["scaler"]
    torch.save(content, tmp_path / LAST)
    assert [e.epoch for e in run(tiny_data, tmp_path, until=2)] == [2]
    assert Recipe.from_dict({"autocast": False}) == Recipe(precision="fp32")


def test_the_result_of_an_epoch(tiny_data, tmp_path, fake_ap):
    steps = []
    epochs = run(tiny_data, tmp_path, until=3, progress=lambda *step: steps.append(step))
    assert [e.epoch for e in epochs] == [1, 2, 3]
    assert [e.ap is not None for e in epochs] == [False, True, True]  # every 2, and the last
    count = len(tiny_data.train) // 5  # the partial batch at the end is left out
    assert [e.images for e in epochs] == [5 * count] * 3
    assert [step[:3] for step in steps] == [
        (e, s, count) for e in (1, 2, 3) for s in range(1, count + 1)
    ]
    assert set(epochs[0].losses) == {"class", "box", "landmark", "total"}
    mean = sum(step[3]["total"] for step in steps[:count]) / count
    assert epochs[0].losses["total"] == pytest.approx(mean)
    readable = json.loads((tmp_path / "last.json").read_text())
    assert readable["epoch"] == 3
    assert readable["ap"] == epochs[-1].ap


def test_a_loss_that_is_not_finite_is_an_error_of_ours(tiny_data, tmp_path, fake_ap):
    recipe = replace(RECIPE, optimizer=Optimizer(lr=1e30, warmup_epochs=0))
    with pytest.raises(TrainingError, match=r"not finite at epoch 1, step \d of 3 \(class .*box"):
        run(tiny_data, tmp_path, recipe)
    assert not (tmp_path / LAST).exists()


def test_another_training_in_the_folder_is_refused(tiny_data, tmp_path, fake_ap):
    run(tiny_data, tmp_path, until=1)
    other = replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=0.5))
    with pytest.raises(UserError, match=r"last\.pt: .*optimizer\.lr: 0\.01 there, 0\.5 here"):
        run(tiny_data, tmp_path, other)
    design = replace(CONFIG, neck=replace(CONFIG.neck, width=24))
    with pytest.raises(UserError, match=r"last\.pt: holds design"):
        next(fit.fit(design, RECIPE, tiny_data.train, None, workdir=tmp_path, device="cpu"))


@pytest.mark.parametrize(
    ("images", "changes"), [(4, {"batch_size": 4, "accumulate": 4}), (1, {"batch_size": 4})]
)
def test_a_single_value_to_normalize_is_refused_in_one_line(tiny_data, tmp_path, images, changes):
    """Torch's own message names neither setting nor way out."""
    recipe = replace(RECIPE, size=32, **changes)
    data = replace(tiny_data, train=Subset(tiny_data.train, range(images), "few"))
    with pytest.raises(UserError, match=r"size: 32 with one image at a time .*; use larger crops"):
        run(data, tmp_path, recipe)
    assert not list(tmp_path.iterdir())


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fit.choose_device("auto").type == fit.choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="cuda asked for, but torch sees no GPU"):
        fit.choose_device("cuda")
    with pytest.raises(UserError, match="'tpu' is not one of auto, cpu, cuda"):
        fit.choose_device("tpu")


@pytest.mark.parametrize("name", ["scrfd_0.5g", "yunet_n", "tiny_ssd300"])
def test_presets_train_in_bf16_with_all_there_is(name, tiny_data, tmp_path):
    config, published = load_preset(name)
    recipe = replace(
        RECIPE,
        epochs=2,
        size=64,
        batch_size=2,
        precision="bf16",
        accumulate=2,
        loss=published.loss,
        evaluation=Evaluation(size=64, every=1),
        optimizer=Optimizer(kind="adamw", lr=0.002, ema=0.9),
    )
    epochs = list(
        fit.fit(
            config,
            recipe,
            Subset(tiny_data.train, range(4), "four"),
            Subset(tiny_data.holdout, range(2), "two"),
            workdir=tmp_path,
            device="cpu",
        )
    )
    assert [sorted(e.ap) for e in epochs] == [["easy", "hard", "medium"]] * 2
    assert all(0 <= value <= 1 for e in epochs for value in e.ap.values())
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())
