"""Padding to a square canvas and bilinear resizing, against a second implementation."""

import cv2
import numpy as np
import pytest
import torch

from detector.boxes.anchors import priors
from detector.boxes.postprocess import postprocess
from detector.config.detector import Pixels
from detector.config.presets import load_preset
from detector.config.recipe import ConfigError, Evaluation
from detector.inference.predict import detect_tta
from detector.inference.tta import canvas_size, pad_images, resize_image
from detector.network.model import build_detector

SCRFD = load_preset("scrfd_0.5g")[0]
SETTINGS = Evaluation(size=128, canvas="square", interpolation="linear", score_threshold=0.0)


@pytest.mark.parametrize(
    ("size", "settings", "factor", "wanted"),
    [
        ((1024, 768), Evaluation(size=640, canvas="square"), 1.0, (640, 640)),
        ((768, 1024), Evaluation(size=640, canvas="square"), 0.5, (320, 320)),
        ((100, 50), Evaluation(size=640, canvas="square"), 1.0, (640, 640)),  # not scaled up
        ((100, 50), Evaluation(size=640), 1.0, (100, 50)),
        ((100, 50), Evaluation(canvas="square"), 1.0, (100, 50)),  # original size: no padding
        ((1024, 683), Evaluation(size=448, canvas="stride"), 1.0, (448, 320)),
        ((640, 1024), Evaluation(size=448, canvas="stride"), 0.5, (192, 256)),
        ((100, 64), Evaluation(size=448, canvas="stride"), 1.0, (128, 64)),  # not scaled up
        ((100, 50), Evaluation(canvas="stride"), 1.0, (100, 50)),  # original size: no padding
        ((9000, 10), Evaluation(size=8000, canvas="square"), 1.0, (8000, 8000)),
        ((100, 10), Evaluation(size=8000, canvas="square"), 1.0, (4096, 4096)),
    ],
)
def test_canvas_size(size, settings, factor, wanted):
    assert canvas_size(size, settings, factor) == wanted


def test_padding_is_normalised_to_zero():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    assert (pad_images(images, (7, 5), SCRFD.pixels) == images).all()
    pixels = Pixels(order="rgb", mean=(10.0, 20.4, 30.6), std=(1.0, 1.0, 1.0))
    padded = pad_images(images, (9, 8), pixels)
    for image, wanted in zip(images, padded):
        other = cv2.copyMakeBorder(image, 0, 3, 0, 2, cv2.BORDER_CONSTANT, value=(31, 20, 10))
        assert (other == wanted).all()


def test_resizing():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    small = (20, 10)
    assert (resize_image(image, small, "linear") == cv2.resize(image, small)).all()
    by_area = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    assert (resize_image(image, small) == by_area).all()
    with pytest.raises(
        ConfigError, match=r"evaluation\.canvas: 'round' is not one of square, stride"
    ):
        Evaluation(canvas="round")
    with pytest.raises(ConfigError, match=r"evaluation\.interpolation: 'cubic' is not one of"):
        Evaluation(interpolation="cubic")


@pytest.mark.parametrize("flip", [False, True])
def test_detections_equal_those_of_scrfds_own_order(flip):
    """Resized, flipped, normalised, then padded with zeros, as in MMDetection's pipeline."""
    net = build_detector(SCRFD).eval()
    image = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
    height, width = round(90 * 128 / 200), 128
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    normalised = (torch.from_numpy(resized[..., ::-1].copy()).float() - 127.5) / 128
    padded = torch.nn.functional.pad(normalised.permute(2, 0, 1)[None], (0, 0, 0, 128 - height))
    net.normalise = torch.nn.Identity()
    with torch.inference_mode():
        (wanted,) = postprocess(
            net(padded), priors(SCRFD, (128, 128), torch.device("cpu")), SETTINGS
        )
    (found,) = detect_tta(build_detector(SCRFD).eval(), SCRFD, [image], SETTINGS)
    scale = torch.tensor([200 / width, 90 / height]).repeat(2)
    assert len(found) == len(wanted) > 0
    # half a grey value of padding, 0.004 after normalisation, is all that differs
    assert (found.scores - wanted.scores).abs().max() < 1e-3
    assert (found.boxes[:5] - wanted.boxes[:5] * scale).abs().max() < 1.0


def test_a_mirror_image_is_padded_at_the_same_side():
    """Flipping before the padding: with TTA, an image and its mirror image give mirrored boxes."""
    from dataclasses import replace

    net = build_detector(SCRFD).eval()
    image = np.random.default_rng(1).integers(0, 256, (128, 60, 3), np.uint8)
    settings = replace(SETTINGS, flip=True, nms_iou=1.0, keep=50)
    (one,) = detect_tta(net, SCRFD, [image], settings)
    (other,) = detect_tta(net, SCRFD, [np.ascontiguousarray(image[:, ::-1])], settings)
    assert torch.allclose(one.scores.sort().values, other.scores.sort().values, atol=1e-6)
    centres = (one.boxes[:, 0] + one.boxes[:, 2]) / 2
    mirrored = 60 - (other.boxes[:, 0] + other.boxes[:, 2]) / 2
    assert torch.allclose(centres.sort().values, mirrored.sort().values, atol=1e-3)
