import json
from dataclasses import replace

import helpers
import pytest
import torch
import yaml

from detector.base.errors import UserError
from detector.config.detector import Detector, arch_hash
from detector.config.presets import PRESETS, load_preset
from detector.config.recipe import Augmentation, Recipe
from detector.network.model import build_detector
from detector.weights import checkpoint
from nas import retrain
from nas.models.competition_rules import check_rules
from nas.models.model_folder import load_model
from nas.retraining import training
from nas.retraining.candidate import choose_candidate, full_recipe, limit_crop_size
from nas.retraining.options import RetrainOptions
from trials.folders import SPACE
from trials.objective import Objective
from trials.record import Cost


def options_of(tiny_study, *flags: str):
    return RetrainOptions.of(
        retrain.make_parser().parse_args(["--runs-dir", str(tiny_study.folder.parent), *flags])
    )


def test_best_is_trained_and_saved(retrained, tiny_study, tmp_path):
    code, out, err = retrained("--best", "--epochs", "2", "--json", str(tmp_path / "r.json"))
    assert (code, err) == (0, "")
    assert "trial 1 of study tiny" in out and "from scratch" in out
    assert "10 training images, without the hold-out of 9" in out
    best = tiny_study.folder / "best"
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics == json.loads((tmp_path / "r.json").read_text())
    assert metrics["ap_on"].startswith("hold-out") and set(metrics["ap"]) == {
        "easy",
        "medium",
        "hard",
    }
    assert metrics["score"] == pytest.approx(
        metrics["speed_score"] + 2 * sum(metrics["ap"].values()) / 3
    )
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert not list(tiny_study.folder.glob("*-training"))  # deleted at the end
    written = yaml.safe_load((best / "config.yaml").read_text())
    assert Detector.from_dict(written["detector"]) == tiny_study.records[1].detector
    assert Recipe.from_dict(written["recipe"]).epochs == 2
    model = load_model(best / "weights.pt")
    assert arch_hash(model.config) == tiny_study.records[1].design
    assert model.origin.images == 10 and not model.origin.with_holdout

    code, out, _ = retrained("--best", "--epochs", "2", "--resume")  # finished: its result is shown
    assert code == 0 and "already been retrained" in out and "hold-out, original" in out


def test_top_retrains_several_and_keeps_the_best_of_them(
    retrained, tiny_study, tmp_path, monkeypatch
):
    crowned = []
    monkeypatch.setattr(
        "nas.tracking.runs.NullRun.finish",
        lambda run, metrics, champion: crowned.append((metrics.title.split(" of")[0], champion)),
    )
    monkeypatch.setattr(  # the first one is the best
        "nas.retraining.retrain._holdout_score", lambda metrics: int(metrics.title.split()[1])
    )
    flags = ("--top", "2", "--epochs", "1", "--champion", "--json", str(tmp_path / "r.json"))
    code, out, err = retrained(*flags)
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "r.json").read_text())
    assert [m["title"].split(" of")[0] for m in result["retrained"]] == ["trial 1", "trial 0"]
    folder = tiny_study.folder / "retrained"
    assert (folder / "r000" / "weights.pt").exists() and (folder / "r001" / "weights.pt").exists()
    assert crowned == [("trial 1", True), ("trial 0", False)]
    winner = result["retrained"][0]
    best = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    assert (best["title"], best["folder"]) == (winner["title"], str(tiny_study.folder / "best"))
    assert "[2 of 2]" in out and out.count("<- best") == 1
    code, out, _ = retrained(*flags, "--resume")  # the results of finished ones are shown
    assert code == 0 and out.count("already been retrained") == 2


def test_stopped_and_resumed_equals_uninterrupted(retrained, tiny_study, monkeypatch):
    import detector.training.fit

    flags = ("--trial", "0", "--epochs", "2", "--seed", "3")
    retrained(*flags)
    folder = tiny_study.folder / "retrained" / "r000"
    uninterrupted = load_model(folder / "weights.pt").net.state_dict()

    def killed(*args, **kwargs):
        for number, epoch in enumerate(original(*args, **kwargs)):
            yield epoch
            if number == 0:
                raise KeyboardInterrupt

    original = detector.training.fit.fit
    with monkeypatch.context() as patch:
        patch.setattr(detector.training.fit, "fit", killed)
        code, out, _ = retrained(*flags)
    assert code == 130 and "add --resume to the same command" in out

    code, _, err = retrained(*flags)
    assert code == 2 and "r000-training: contains an interrupted retrain" in err
    code, _, err = retrained(*flags, "--resume", "--with-holdout")
    assert code == 2 and "contains another retrain" in err
    assert retrained(*flags, "--resume")[0] == 0
    resumed = load_model(folder / "weights.pt").net.state_dict()
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


def test_init_from_fine_tunes_another_design(retrained, tiny_study, tmp_path):
    assert retrained("--trial", "0", "--epochs", "1")[0] == 0  # 12 channels wide
    first = tiny_study.folder / "retrained" / "r000" / "weights.pt"
    code, out, err = retrained("--best", "--epochs", "1", "--init-from", str(first))  # 8 wide
    assert (code, err) == (0, "")
    assert f"from {first}" in out and "100% of it from trial 0 of study tiny (backbone" in out
    best = tiny_study.folder / "best"
    start = json.loads((best / "start.json").read_text())
    layers = {layer["layer"]: layer for layer in start.pop("layers")}
    assert layers["neck.laterals.0"]["source"] == "neck.laterals.0"
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics["origin"]["start"] == start and len(metrics["epochs"]) == 1
    assert start["copied"]["all"] == 1 and start["trained_on"]["title"] == "trial 0 of study tiny"
    model = load_model(best / "weights.pt")
    rules = {
        rule.rule.split()[0]: rule
        for rule in check_rules(Cost.of(model.config), (1, 1), model.recipe, model.origin)
    }
    assert rules["pretrained"].holds and "which started from scratch" in (
        rules["pretrained"].evidence
    )
    assert rules["no"].holds is False  # drawn scenes, not WIDER FACE
    code, out, _ = retrained("--best", "--epochs", "1", "--init-from", str(first), "--resume")
    assert code == 0 and "already been retrained" in out


def test_a_backbone_and_a_detector_have_a_flag_each(retrained, tiny_study, tmp_path):
    config = tiny_study.records[1].detector
    checkpoint.save(tmp_path / "whole.pt", build_detector(config), config, Recipe(), {})
    code, _, err = retrained("--best", "--weights", str(tmp_path / "whole.pt"))
    assert code == 2 and "whole.pt: contains a whole detector" in err and "--init-from" in err
    torch.save(
        {
            name.replace("backbone.", "layer"): value
            for name, value in build_detector(config).state_dict().items()
        },
        tmp_path / "other.pt",
    )
    code, _, err = retrained("--best", "--init-from", str(tmp_path / "other.pt"))
    assert code == 2 and "is of no known kind of weights" in err and err.count("\n") == 1
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    code, _, err = retrained("--best", "--init-from", str(tmp_path / "broken.pt"))
    assert code == 2 and "broken.pt: cannot be read as weights" in err and err.count("\n") == 1


def test_with_holdout_has_no_ap(retrained, tiny_study):
    code, out, _ = retrained("--best", "--epochs", "1", "--with-holdout")
    assert code == 0 and "there is no AP on it" in out
    metrics = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    assert metrics["ap"] is None and metrics["score"] is None
    assert metrics["origin"]["with_holdout"] and metrics["origin"]["images"] == 19


def test_a_preset_with_a_study_has_its_recipe_and_images(tiny_study):
    options = options_of(tiny_study, "--preset", "retinaface_mobile025", "--study", "tiny")
    candidate = choose_candidate(options)
    assert candidate.folder == tiny_study.folder / "retrained" / "retinaface_mobile025"
    assert candidate.fingerprint == tiny_study.manifest.data_fingerprint
    assert full_recipe(candidate, options) == full_recipe(
        choose_candidate(options_of(tiny_study, "--best")), options
    )  # as the winner's, for a fair comparison


def test_a_preset_alone_keeps_its_published_recipe(tiny_study):
    options = options_of(
        tiny_study,
        "--preset",
        "retinaface_mobile025",
        "--data",
        "synthetic",
        "--epochs",
        "40",
        "--batch-size",
        "8",
    )
    candidate = choose_candidate(options)
    recipe = full_recipe(candidate, options)
    assert candidate.folder == tiny_study.folder.parent / "retinaface_mobile025" / "best"
    assert (recipe.optimizer.schedule, recipe.size, recipe.epochs) == ("step", 640, 40)
    assert recipe.optimizer.lr == pytest.approx(1e-3 / 4)  # 8 instead of 32 images a step


def test_the_full_recipe_of_a_proxy(tiny_study):
    recipe = full_recipe(
        choose_candidate(options_of(tiny_study)), options_of(tiny_study, "--batch-size", "8")
    )
    assert (recipe.epochs, recipe.size, recipe.optimizer.schedule) == (100, 640, "cosine")
    assert recipe.optimizer.lr == pytest.approx(0.04)
    assert recipe.optimizer.weight_decay == 1e-4  # what the search tuned stays
    assert recipe.augmentation == Augmentation() and recipe.optimizer.warmup_epochs == 3
    assert recipe.evaluation.every == 10 and recipe.cache_size is None


def test_the_space_says_how_its_trials_are_trained_in_full(tiny_study, tmp_path):
    usual = full_recipe(choose_candidate(options_of(tiny_study)), options_of(tiny_study))
    space = tiny_study.folder / SPACE
    space.write_text(
        "name: quick\nfull: {epochs: 40, augmentation: {scales: [0.5, 2], crop: face_centre}, "
        "optimizer: {schedule: step}}\n"
    )
    (path := tmp_path / "mine.yaml").write_text("recipe: {augmentation: {crop: whole_face}}")
    options = options_of(tiny_study)
    recipe = full_recipe(choose_candidate(options), options)
    assert (recipe.epochs, recipe.optimizer.warmup_epochs) == (40, 2)  # a twentieth of the epochs
    assert recipe.augmentation == Augmentation(scales=(0.5, 2), crop="face_centre")
    assert recipe.optimizer == replace(usual.optimizer, schedule="step", warmup_epochs=2)
    assert (recipe.loss, recipe.size) == (usual.loss, usual.size)
    options = options_of(tiny_study, "--recipe", str(path), "--epochs", "20")
    recipe = full_recipe(choose_candidate(options), options)
    assert (recipe.epochs, recipe.augmentation) == (20, Augmentation(scales=(0.5, 2)))
    space.write_text("name: quick\nfull: {epoch: 40}\n")
    with pytest.raises(UserError, match=r"space\.yaml:2: full → epoch: unknown key"):
        full_recipe(choose_candidate(options), options)


def test_on_a_cpu_auto_is_the_batch_size_of_the_recipe(retrained, tiny_study):
    code, out, _ = retrained(
        "--best", "--epochs", "1", "--size", "64", "--batch-size", "auto", "--device", "cpu"
    )
    assert code == 0 and "batch size: 4, the recipe's own, as on any CPU\n" in out
    assert "batch 4, lr 0.02 " in out


def test_a_file_changes_a_recipe(tmp_path):
    short = recipe_of("--recipe", str(PRESETS.parent / "recipes" / "short.yaml"))
    published = load_preset("yunet_n")[1]
    assert (short.batch_size, short.optimizer.kind, short.optimizer.lr) == (12, "adamw", 0.01)
    assert (short.loss, short.augmentation.photometric) == (published.loss, 0)
    assert short.augmentation.scales == (0.3, 0.45, 0.6, 0.8, 1.0)
    path = tmp_path / "wrong.yaml"
    for text, message in (
        ("recipe: {optimizer: {lrr: 1}}", "1: recipe → optimizer → lrr: unknown"),
        ("detector: {}", "1: detector: unknown key"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            recipe_of("--recipe", str(path))


def test_a_cluster_that_does_not_answer_is_one_line(retrained, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    code, _, err = retrained("--best", "--epochs", "1", "--workers", "2")
    assert code == 2 and "RAY_ADDRESS 127.0.0.1:9: no Ray cluster" in err and err.count("\n") == 1


def test_the_latency_is_the_one_that_the_study_measured(tiny_study):
    options = options_of(tiny_study, "--best")
    candidate = replace(
        choose_candidate(options), objective=Objective(metric="latency_ms", best=10, worst=1000)
    )
    ap = dict.fromkeys(("easy", "medium", "hard"), 0.5)
    measured = replace(candidate.cost, latency_ms=100.0, machine="a machine")
    for cost, score, machine in ((measured, 1.5, "a machine"), (None, None, None)):
        facts = helpers.metrics(candidate.config)
        metrics = training.retrain_metrics(replace(candidate, cost=cost), facts, [], ap, workers=1)
        assert (metrics.score, metrics.machine) == (score and pytest.approx(score), machine)


def test_a_file_overrides_the_recipe_and_flags_override_both(tiny_study, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipe: {epochs: 30, size: 416, cache_size: 1024, augmentation: {flip: 0}, "
        "optimizer: {schedule: step}, evaluation: {keep: 100, every: 5}}"
    )
    options = options_of(tiny_study, "--recipe", str(path))
    recipe = full_recipe(choose_candidate(options), options)
    assert (recipe.epochs, recipe.size, recipe.cache_size) == (30, 416, 1024)
    assert (recipe.augmentation.flip, recipe.optimizer.schedule) == (0, "step")
    assert recipe.optimizer.warmup_epochs == 1.5  # a twentieth of the file's epochs
    assert (recipe.evaluation.keep, recipe.evaluation.every) == (100, 5)
    options = options_of(tiny_study, "--recipe", str(path), "--epochs", "20", "--eval-every", "2")
    recipe = full_recipe(choose_candidate(options), options)
    assert (recipe.epochs, recipe.optimizer.warmup_epochs, recipe.evaluation.every) == (20, 1, 2)
    path.write_text("recipe: {epochs: 30}")
    assert recipe_of("--recipe", str(path)).evaluation.every == 3


def recipe_of(*flags):
    args = retrain.make_parser().parse_args(["--preset", "yunet_n", "--data", "synthetic", *flags])
    options = RetrainOptions.of(args)
    return full_recipe(choose_candidate(options), options)


def test_flags_change_the_recipe(tiny_study):
    def recipe(*flags):
        options = options_of(tiny_study, *flags)
        return full_recipe(choose_candidate(options), options)

    assert recipe("--accumulate", "4").accumulate == 4
    assert recipe("--precision", "fp16").precision == "fp16"
    assert recipe("--ema", "0.999").optimizer.ema == 0.999
    assert [recipe("--eval-every", n).evaluation.every for n in ("0", "7")] == [0, 7]
    plain = recipe()
    assert (plain.accumulate, plain.precision, plain.optimizer.ema) == (1, "auto", 0.0)


def test_evaluations_during_training_and_the_best_of_them(retrained, tiny_study):
    code, out, err = retrained(
        "--best",
        "--epochs",
        "3",
        "--eval-every",
        "2",
        "--accumulate",
        "2",
        "--ema",
        "0.9",
        "--precision",
        "fp32",
    )
    assert (code, err) == (0, "")
    assert "batch 4 in 2 parts" in out
    metrics = json.loads((tiny_study.folder / "best" / "metrics.json").read_text())
    evaluations = {e["epoch"]: sum(e["ap"].values()) / 3 for e in metrics["epochs"] if e["ap"]}
    assert list(evaluations) == [2, 3]  # the last one always
    best = metrics["best_epoch"]
    assert best["accuracy_score"] == pytest.approx(max(evaluations.values()))
    assert evaluations[best["epoch"]] == best["accuracy_score"] and best["size"] == 640
    assert f"best epoch: {best['epoch']} of 3" in out
    assert metrics["recipe"]["accumulate"] == 2


def test_crops_are_not_larger_than_the_images(tiny_study):
    from detector.data.synthetic.scenes import SyntheticImages

    labels = SyntheticImages("train", 8).labels
    assert limit_crop_size(640, labels) in (256, 288)
    assert limit_crop_size(128, labels) == 128
    assert limit_crop_size(640, []) == 640


BAD_INPUT = [
    (["--study", "other"], "study other is not in"),
    (["--trial", "9"], "--trial 9: study tiny has the trials 0 to 2"),
    (["--trial", "2"], "it is infeasible (too many)"),
    (["--preset", "retina"], "there are damofd_0.5g"),
    (["--size", "100"], "--size 100: must be a multiple of 32"),
    (["--epochs", "0"], "--epochs 0: must be at least 1"),
    (["--batch-size", "0"], "'0' must be a whole number from 1 to"),
    (["--batch-size", "large"], "'large' must be a whole number from 1 to"),
    (["--weights", "nowhere.pt", "--epochs", "1"], "nowhere.pt: no such file"),
    (["--data", "nowhere"], "nowhere: no such folder"),
    (["--best", "--trial", "1"], "not allowed with"),
    (["--ema", "1"], "--ema 1.0: must be at least 0 and below 1"),
    (["--eval-every", "-1"], "--eval-every -1: must be at least 0"),
    (["--accumulate", "0"], "'0' must be a whole number from 1 to"),
    (["--top", "3"], "study tiny has 2 completed trials"),
    (["--top", "0"], "must be at least 1"),
    (["--top", "2", "--with-holdout"], "chooses by the AP on the hold-out"),
    (["--top", "2", "--best"], "not allowed with"),
]


def test_bad_input_is_one_line(retrained, tiny_study):
    for flags, message in BAD_INPUT:  # one study for all, since creating it is slow
        code, _, err = retrained(*flags)
        assert code == 2 and message in err and err.count("\n") == 1
    assert not (tiny_study.folder / "best").exists()


def test_a_diverging_training_is_one_line(retrained, monkeypatch):
    import detector.training.fit
    from detector.base.errors import TrainingError

    def diverges(*args, **kwargs):
        raise TrainingError("loss not finite at epoch 1")
        yield

    monkeypatch.setattr(detector.training.fit, "fit", diverges)
    code, _, err = retrained("--best")
    assert code == 2 and "loss not finite" in err and "--batch-size" in err


def test_changed_images_are_detected(retrained, tiny_study):
    manifest = tiny_study.folder / "study.json"
    replace(tiny_study.manifest, data_fingerprint="0" * 12).write(manifest)
    code, _, err = retrained("--best", "--epochs", "1")
    assert code == 2 and "not the images of study tiny" in err
