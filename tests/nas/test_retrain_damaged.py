"""Damaged files of a retrain: noticed, and trained again or named with the way out."""

import helpers
import pytest
import torch

from detector.base.errors import UserError
from nas.models.model_folder import load_model


def test_damaged_weights_are_noticed_and_trained_again(retrained, tiny_study):
    flags = ("--best", "--epochs", "1", "--resume")
    assert retrained(*flags)[0] == 0
    weights = tiny_study.folder / "best" / "weights.pt"
    before = load_model(weights).net.state_dict()
    helpers.flip_weight(weights)
    with pytest.raises(UserError, match=r"checksum .* train it again: add --resume to the command"):
        load_model(weights)
    code, out, err = retrained(*flags)
    assert (code, err) == (0, "") and "weights.pt: is damaged (the checksum of" in out
    after = load_model(weights).net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    metrics = tiny_study.folder / "best" / "metrics.json"
    metrics.write_text(metrics.read_text()[:50])
    code, out, err = retrained(*flags)
    assert (code, err) == (0, "") and "metrics.json: is damaged" in out
    assert "already been retrained" in retrained(*flags)[1]


def test_damage_to_an_interrupted_retrain(retrained, tiny_study, monkeypatch):
    import detector.training.fit

    def killed(*args, **kwargs):
        yield next(original(*args, **kwargs))
        raise KeyboardInterrupt

    flags = ("--best", "--epochs", "2")
    original = detector.training.fit.fit
    with monkeypatch.context() as patch:
        patch.setattr(detector.training.fit, "fit", killed)
        assert retrained(*flags)[0] == 130
    (workdir,) = tiny_study.folder.glob("*-training")
    origin = workdir / "origin.json"
    whole = origin.read_text()
    origin.write_text(whole[:40])
    code, _, err = retrained(*flags, "--resume")
    assert code == 2 and "origin.json: cannot be read" in err and "remove it if" in err
    origin.write_text(whole)
    helpers.flip_weight(workdir / "last.pt")
    code, out, err = retrained(*flags, "--resume")
    assert (code, err) == (0, "")
    assert "last.pt was damaged (the checksum of" in out and "training starts again" in out
