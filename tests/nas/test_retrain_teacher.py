"""nas.retrain --teacher: what is recorded, resumed and refused."""

import json
import shutil
from dataclasses import replace

import helpers
import pytest
import torch
from released_files import foreign_state, write_foreign

from detector.config.detector import arch_hash
from detector.config.recipe import Distillation
from detector.network.model import build_detector
from detector.training.teacher import TeacherNetwork
from detector.weights.initialize import find_pretrained
from nas import api
from nas.models.competition_rules import check_rules
from nas.models.model_folder import load_model
from nas.retraining.options import RetrainOptions
from nas.retraining.teacher import choose_teacher
from trials.record import Cost

FLAGS = ("--best", "--epochs", "1")


@pytest.fixture
def teacher(tmp_path):
    """Weights without a record of their training."""
    return helpers.teacher_file(tmp_path, helpers.TINY_DETECTOR).path


def rules_of(folder):
    model = load_model(folder / "weights.pt")
    rules = check_rules(Cost.of(model.config), (1, 1), model.recipe, model.origin)
    return {rule.rule.split()[0]: rule for rule in rules}


def test_a_trial_teaches_another_one(retrained, tiny_study):
    assert retrained("--trial", "0", "--epochs", "1")[0] == 0
    first = tiny_study.folder / "retrained" / "r000"
    code, out, err = retrained(*FLAGS, "--teacher", str(first / "weights.pt"))
    assert (code, err) == (0, "")
    cost = Cost.of(tiny_study.records[0].detector)
    assert "  taught by trial 0 of study tiny (mnv1 " in out
    assert f", {cost.params:,} parameters, {cost.macs / 1e9:.4f} G MACs\n" in out
    best = tiny_study.folder / "best"
    metrics = json.loads((best / "metrics.json").read_text())
    assert {"teacher_score", "teacher_box"} <= metrics["epochs"][0]["losses"].keys()
    record = metrics["origin"]["teacher"]
    assert (record["params"], record["weights"]["title"]) == (cost.params, "trial 0 of study tiny")
    rules = rules_of(best)
    assert rules["pretrained"].holds is True
    assert "from scratch, no pretrained weights; taught by " in rules["pretrained"].evidence
    assert "trained by this program" not in rules["pretrained"].evidence
    assert rules["no"].holds is False  # drawn scenes, not WIDER FACE
    _, start = find_pretrained(load_model(best / "weights.pt").config, str(best / "weights.pt"))
    assert start.teacher.weights.sha256 == record["weights"]["sha256"]  # for who starts from it


def test_stopped_and_resumed_with_the_same_teacher_alone(
    retrained, tiny_study, teacher, tmp_path, monkeypatch
):
    import detector.training.fit

    flags = ("--best", "--epochs", "2", "--teacher")

    def killed(*args, **kwargs):
        for epoch in original(*args, **kwargs):
            yield epoch
            raise KeyboardInterrupt

    original = detector.training.fit.fit
    with monkeypatch.context() as patch:
        patch.setattr(detector.training.fit, "fit", killed)
        assert retrained(*flags, str(teacher))[0] == 130
    other = helpers.teacher_file(tmp_path, helpers.TINY_DETECTOR, seed=2).path
    code, _, err = retrained(*flags, str(other), "--resume")
    assert code == 2 and "another retrain (with other images, hold-out, trial or teacher" in err
    code, _, err = retrained(*flags[:-1], "--resume")
    assert code == 2 and "another retrain" in err and err.count("\n") == 1
    moved = shutil.copy(teacher, tmp_path / "moved.pt")
    assert retrained(*flags, str(moved), "--resume")[0] == 0
    code, out, _ = retrained(*flags, str(teacher), "--resume")
    assert code == 0 and "already been retrained" in out


def test_a_retrain_that_an_older_version_began_is_resumed(retrained, tiny_study, monkeypatch):
    """Its origin.json knows no teachers."""
    import detector.training.fit

    def killed(*args, **kwargs):
        for epoch in original(*args, **kwargs):
            yield epoch
            raise KeyboardInterrupt

    original = detector.training.fit.fit
    with monkeypatch.context() as patch:
        patch.setattr(detector.training.fit, "fit", killed)
        assert retrained("--best", "--epochs", "2")[0] == 130
    path = tiny_study.folder / "best-training" / "origin.json"
    origin = json.loads(path.read_text())
    assert origin.pop("teacher") is None
    path.write_text(json.dumps(origin))
    assert retrained("--best", "--epochs", "2", "--resume")[0] == 0


def test_weights_of_another_program_teach_by_their_preset(retrained, tiny_study, tmp_path):
    design = tiny_study.records[0].detector
    path = tmp_path / "foreign.pt"
    torch.save(build_detector(design).state_dict(), path)
    code, _, err = retrained(*FLAGS, "--teacher", str(path))
    assert code == 2 and err.count("\n") == 1 and "program's weights with --teacher-preset" in err
    preset = tmp_path / "mine.yaml"
    preset.write_text(json.dumps({"detector": design.to_dict()}))
    code, out, err = retrained(*FLAGS, "--teacher", str(path), "--teacher-preset", str(preset))
    assert (code, err) == (0, "") and "taught by tensors with this program's names (" in out
    best = tiny_study.folder / "best"
    assert load_model(best / "weights.pt").origin.teacher.preset == str(preset)
    rules = rules_of(best)
    assert rules["pretrained"].holds is None
    assert "foreign.pt" in rules["pretrained"].evidence
    assert "whose pretraining is not recorded" in rules["pretrained"].evidence


def test_errors_are_one_line(retrained, tiny_study, teacher, tmp_path):
    def error(*flags):
        code, _, err = retrained(*FLAGS, *flags)
        assert code == 2 and err.count("\n") == 1, err
        return err

    assert "nothing.pt: no such checkpoint" in error("--teacher", str(tmp_path / "nothing.pt"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(teacher.read_bytes()[:9_000])
    assert "broken.pt: not a readable checkpoint" in error("--teacher", str(broken))
    assert "it is a folder" in error("--teacher", str(tmp_path))
    torch.save({"stage1.0.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "backbone.pt")
    assert "backbone.pt" in error("--teacher", str(tmp_path / "backbone.pt"))
    assert "--teacher-preset: needs --teacher" in error("--teacher-preset", "yunet_n")
    fine = replace(helpers.TINY_DETECTOR, neck=replace(helpers.TINY_DETECTOR.neck, levels=(3,)))
    path = helpers.teacher_file(tmp_path, fine, seed=3).path
    assert "the teacher predicts at strides 8, the design to train at 16, 32" in error(
        "--teacher", str(path)
    )
    assert not (tiny_study.folder / "best").exists()
    assert not list(tiny_study.folder.glob("*-training"))


def test_what_should_make_one_think_is_said(retrained, tiny_study):
    assert retrained("--best", "--epochs", "1", "--with-holdout")[0] == 0
    weights = str(tiny_study.folder / "best" / "weights.pt")  # smaller than trial 0
    code, out, _ = retrained("--trial", "0", "--epochs", "1", "--teacher", weights)
    assert code == 0
    assert "note: the teacher is no larger than what it teaches\n" in out
    assert "note: the teacher was trained on its hold-out, too, so the AP on the hold-out" in out


def test_python_has_the_same_argument(tiny_study, teacher):
    study = api.open_study("tiny", tiny_study.folder.parent)
    model = api.retrain(study, epochs=1, teacher=str(teacher), tracking_uri="none")
    assert model.origin.teacher.weights.source == str(teacher)
    assert model.origin.teacher.params == Cost.of(helpers.TINY_DETECTOR).params
    assert arch_hash(model.config) == tiny_study.records[1].design


def test_a_link_keeps_its_name(tmp_path):
    """By the name the parts of weights are found, and graphs told from checkpoints."""
    (tmp_path / "store").mkdir()
    write_foreign(foreign_state("eresfd"), tmp_path / "store")
    for number, file in enumerate(sorted((tmp_path / "store").iterdir())):
        blob = file.rename(file.with_name(f"blob{number}"))
        (tmp_path / file.name).symlink_to(blob)
    options = RetrainOptions(teacher=str(tmp_path / "w.pth.base.pth"), teacher_preset="eresfd")
    file = choose_teacher(helpers.TINY_DETECTOR, options)
    device = torch.device("cpu")
    assert TeacherNetwork(file, helpers.TINY_DETECTOR, Distillation(), device)
