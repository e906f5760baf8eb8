"""Which evaluation settings a model is scored with."""

import helpers
import pytest
import torch

from detector.config.presets import PRESETS, load_preset
from detector.config.recipe import Evaluation
from detector.network.model import build_detector
from nas import evaluate
from nas.evaluation.options import preset_settings
from nas.terminal import cli, tta_flags


def test_a_preset_has_its_own_settings():
    assert preset_settings(None) == (Evaluation(), None)
    assert preset_settings("retinaface_mobile025")[0] == Evaluation()
    settings, name = preset_settings("scrfd_0.5g")
    assert name == "scrfd_0.5g"
    assert settings == Evaluation(size=640, canvas="square", interpolation="linear", nms_iou=0.45)
    assert preset_settings(str(PRESETS / "tiny_ssd300.yaml"))[0].keep == 200
    for path in PRESETS.glob("scrfd*.yaml"):
        assert load_preset(path.stem)[1].evaluation.canvas == "square"


def test_the_config_of_a_retrained_model_is_no_preset(untrained_model, tmp_path):
    folder = untrained_model(tmp_path / "best", helpers.TINY_DETECTOR)
    assert preset_settings(str(folder / "config.yaml")) == (Evaluation(), None)


def test_flags_come_before_the_preset():
    def settings(*flags):
        args = evaluate.make_parser().parse_args(["--preset", "scrfd_0.5g", *flags])
        return tta_flags.tta_settings(args, preset_settings(args.preset)[0])

    assert settings() == preset_settings("scrfd_0.5g")[0]
    assert settings("--test-size", "original").size is None
    assert settings("--test-size", "1280").size == 1280
    assert settings("--flip").flip and settings("--flip").nms_iou == 0.45


@pytest.mark.parametrize(("flags", "shown"), [((), "640"), (("--test-size", "96"), "96")])
def test_the_settings_are_printed(tmp_path, few_images, capsys, flags, shown):
    config = load_preset("scrfd_0.5g")[0]
    torch.save(build_detector(config).state_dict(), tmp_path / "w.pth")
    argv = ["--checkpoint", str(tmp_path / "w.pth"), "--preset", "scrfd_0.5g", *flags]
    argv += ["--data", "synthetic", "--tracking-uri", "none", "--runs-dir", str(tmp_path)]
    assert cli.main(evaluate.make_parser(), evaluate.run, argv) == 0
    assert (
        f"evaluation settings of scrfd_0.5g: long side at most {shown} px, padded to "
        f"{shown}×{shown} px, linear resizing, NMS 0.45 of the best 5,000 boxes"
    ) in capsys.readouterr().out


def test_test_time_augmentation_of_a_preset_holds_unless_flags_say_otherwise():
    own = Evaluation(flip=True, scales=(0.5, 1.0))
    args = evaluate.make_parser().parse_args([])
    assert tta_flags.tta_settings(args, own) == own
    args = evaluate.make_parser().parse_args(["--scales", "2"])
    assert tta_flags.tta_settings(args, own) == Evaluation(flip=True, scales=(2.0,))
