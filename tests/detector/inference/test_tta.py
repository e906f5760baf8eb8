"""Sizes, mirror images and scales: the protocols' own arithmetic, and closed forms of voting."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detector.base.errors import ConfigError
from detector.boxes.postprocess import Detections
from detector.config.recipe import DataChoice, Evaluation
from detector.data.cache import limit_size
from detector.inference.predict import detect_batch, detect_tta
from detector.inference.tta import (
    box_voting,
    flip_detections,
    input_size,
    resize_image,
    scale_detections,
)
from detector.network.model import build_detector

VGA, SHORT = Evaluation(size=640), Evaluation(size=2150, short=1600)


@pytest.mark.parametrize(
    "size, settings, factor, wanted",
    [
        ((1024, 768), Evaluation(), 1.0, (1024, 768)),
        ((1024, 768), Evaluation(), 0.5, (512, 384)),
        ((1024, 683), VGA, 1.0, (640, 427)),
        ((320, 200), VGA, 1.0, (320, 200)),  # never up
        ((1024, 683), VGA, 1.5, (960, 640)),
        ((320, 200), VGA, 1.5, (480, 300)),  # but by a factor
        ((1024, 768), SHORT, 1.0, (2133, 1600)),  # up
        ((768, 1024), SHORT, 1.0, (1600, 2133)),
        ((1024, 1024), SHORT, 1.0, (1600, 1600)),
        ((4000, 3000), SHORT, 1.0, (2133, 1600)),
        ((1024, 300), SHORT, 1.0, (2150, 630)),  # limited by the long side
        ((20_000, 100), SHORT, 1.0, (2150, 11)),
        ((100, 20_000), VGA, 1.0, (3, 640)),
        ((20_000, 1), VGA, 1.0, (640, 1)),
        ((1, 1), SHORT, 1.0, (1600, 1600)),
        ((30, 20), Evaluation(short=40), 1.0, (60, 40)),
        ((20_000, 20_000), Evaluation(), 1.0, (4096, 4096)),
        ((0, 0), VGA, 1.0, (1, 1)),
    ],
)
def test_input_size(size, settings, factor, wanted):
    assert input_size(size, settings, factor) == wanted


def test_retinafaces_rule_by_its_own_arithmetic():
    for width, height in np.random.default_rng(0).integers(200, 3000, (200, 2)).tolist():
        scale = 1600 / min(width, height)
        if np.round(scale * max(width, height)) > 2150:
            scale = 2150 / max(width, height)
        assert input_size((width, height), SHORT) == (round(width * scale), round(height * scale))


@pytest.mark.parametrize(
    "given",
    [
        {"scales": ()},
        {"scales": (1.0, 0.0)},
        {"size": 0},
        {"short": 0},
        {"scales": (float("inf"),)},
    ],
)
def test_what_is_no_size(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        Evaluation(**given)


def test_an_image_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert resize_image(image, (6, 4)) is image
    mean = image.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    assert abs(resize_image(image, (3, 2)) - mean).max() <= 0.5  # areas, where it shrinks
    assert resize_image(image, (12, 8)).shape == (8, 12, 3)


# -- box voting -------------------------------------------------------------------------------


def faces(*rows):
    """Detections from x1, y1, x2, y2, score; each landmark is the upper left corner plus its
    number."""
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    points = values[:, None, :2] + torch.arange(5.0)[:, None]
    return Detections(values[:, :4], values[:, 4].float(), points)


def test_boxes_are_means_by_score():
    found = box_voting(
        [faces([0, 0, 10, 10, 0.9]), faces([0, 0, 10, 8, 0.3], [50, 50, 60, 60, 0.6])], Evaluation()
    )
    torch.testing.assert_close(
        found.boxes, torch.tensor([[0, 0, 10, 9.5], [50, 50, 60, 60]]).double(), atol=1e-6, rtol=0
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])  # as they were
    assert found.landmarks[1].tolist() == [[50 + i, 50 + i] for i in range(5)]


def test_landmarks_are_means_by_the_same_weights():
    found = box_voting([faces([4, 0, 14, 10, 0.75]), faces([5, 1, 15, 11, 0.25])], Evaluation())
    torch.testing.assert_close(
        found.boxes, torch.tensor([[4.25, 0.25, 14.25, 10.25]]).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        found.landmarks[0],
        torch.tensor([[4.25 + i, 0.25 + i] for i in range(5)]).double(),
        atol=1e-6,
        rtol=0,
    )


def test_what_overlaps_by_half_or_less_has_no_vote():
    # IoU 0.5 and 0.45 of the first: NMS at 0.4 takes them away, none moves it.
    found = box_voting(
        [faces([0, 0, 10, 10, 0.9], [0, 0, 10, 5, 0.8], [0, 0, 4.5, 10, 0.7])], Evaluation()
    )
    assert found.boxes.tolist() == [[0, 0, 10, 10]]
    # IoU 1/3 stays: both are kept, and neither votes for the other.
    found = box_voting([faces([0, 0, 10, 10, 0.9]), faces([5, 0, 15, 10, 0.8])], Evaluation())
    assert found.boxes.tolist() == [[0, 0, 10, 10], [5, 0, 15, 10]]


def test_best_first_and_as_many_as_asked_for():
    many = [faces([20 * i, 0, 20 * i + 10, 10, (i + 1) / 10]) for i in range(6)]
    found = box_voting(many, Evaluation(keep=3))
    assert found.scores.tolist() == pytest.approx([0.6, 0.5, 0.4])


def test_nothing_without_area_and_without_landmarks():
    nothing = box_voting([faces(), faces()], Evaluation())
    assert nothing.boxes.shape == (0, 4) and nothing.landmarks.shape == (0, 5, 2)
    assert box_voting([faces([3, 3, 3, 3, 0.5])], Evaluation()).boxes.tolist() == [[3, 3, 3, 3]]
    bare = Detections(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.5]), None)
    assert box_voting([bare, bare], Evaluation()).landmarks is None


# -- what a network sees ----------------------------------------------------------------------


def same(one, other, atol=1e-4):
    for name in ("boxes", "scores", "landmarks"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), atol=atol, rtol=0, check_dtype=False
        )


def test_flipping_twice_restores_and_swaps_landmarks():
    found = faces([0, 2, 10, 10, 0.9], [20, 30, 40, 50, 0.8])
    other = flip_detections(found, 100)
    assert other.boxes.tolist() == [[90, 2, 100, 10], [60, 30, 80, 50]]
    assert other.landmarks[0].tolist() == [[99, 3], [100, 2], [98, 4], [96, 6], [97, 5]]
    same(flip_detections(other, 100), found)


@pytest.fixture
def net(preset):
    torch.manual_seed(0)
    return build_detector(preset("retinaface_mobile025")).eval()


def test_the_mirror_image_has_the_mirrored_result(net, preset):
    """With flip, an image and its mirror image have the same two passes."""
    config = preset("retinaface_mobile025")
    settings = Evaluation(flip=True, scales=(1.0, 0.75), score_threshold=0.3, keep=20)
    image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    (found,) = detect_tta(net, config, [image], settings)
    (other,) = detect_tta(net, config, [np.ascontiguousarray(image[:, ::-1])], settings)
    assert len(found) == 20
    same(flip_detections(other, 120), found, atol=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (40, 1), (1, 40)])
def test_an_image_of_one_px(net, preset, size):
    (found,) = detect_tta(
        net,
        preset("retinaface_mobile025"),
        [np.zeros((*size, 3), np.uint8)],
        Evaluation(flip=True, scales=(0.01, 1.0, 3.0)),
    )
    assert len(found) <= 750


def test_passes_are_those_of_the_image_itself(net, preset):
    config = preset("retinaface_mobile025")
    settings = Evaluation(size=64, scales=(0.5, 1.5), flip=True, score_threshold=0.3)
    image = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)
    wanted = []
    for width, height in ((32, 24), (96, 72)):  # of the image, not of one scaled down before
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        for mirror in (False, True):
            seen = np.ascontiguousarray(small[:, ::-1]) if mirror else small
            (own,) = detect_batch(net, config, seen[None], settings)
            own = flip_detections(own, width) if mirror else own
            wanted.append(scale_detections(own, (128 / width, 96 / height)))
    (found,) = detect_tta(net, config, [image], settings)
    same(found, box_voting(wanted, settings))


@pytest.mark.parametrize(
    ("settings", "cached"),
    [
        (Evaluation(size=64), 64),
        (Evaluation(size=64, canvas="square", flip=True), 64),
        (Evaluation(size=64, interpolation="linear"), None),
        (Evaluation(size=64, short=48), None),
        (Evaluation(size=64, scales=(0.5, 2.0)), None),
        (Evaluation(), None),
    ],
)
def test_the_network_sees_the_same_of_a_cached_image(settings, cached):
    image = np.random.default_rng(3).integers(0, 256, (97, 131, 3), np.uint8)
    assert settings.cache_size == cached
    small = limit_size(image, cached)
    for factor in settings.scales:
        whole, again = (
            resize_image(
                one, input_size(one.shape[1::-1], settings, factor), settings.interpolation
            )
            for one in (image, small)
        )
        assert np.array_equal(whole, again)


def test_original_size_is_neither_scaled_nor_padded():
    settings = Evaluation(size=64, short=48, canvas="square", nms_iou=0.3).at_original_size
    assert settings == Evaluation(nms_iou=0.3)
    assert input_size((131, 97), settings) == (131, 97)


@pytest.mark.slow
def test_retinafaces_1600_on_photographs(wider_root, preset):
    """As its own test script does it: resized by one factor, boxes divided by it."""
    from detector.data.open import open_data
    from detector.inference.predict import detect
    from detector.weights.files import load_weights

    config = preset("retinaface_mobile025")
    net = build_detector(config).eval()
    load_weights(net, config, str(wider_root.parent / "weights" / "mobilenet0.25_Final.pth"))
    val = open_data(DataChoice(path=str(wider_root)), parts=("val",)).val

    class Few:
        name, fingerprint, labels = val.name, val.fingerprint, (val.labels[0], val.labels[160])

        def __len__(self):
            return len(self.labels)

        def image(self, index):
            return val.image(160 * index)

    images = Few()
    settings = Evaluation(size=2150, short=1600, score_threshold=0.5)
    found = detect(net, config, images, settings)
    for index, label in enumerate(images.labels):
        image = images.image(index)
        scale = min(1600 / min(image.shape[:2]), 2150 / max(image.shape[:2]))
        large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        (wanted,) = detect_batch(net, config, large[None], settings)
        # Sides of whole px move the picture by a grey level here and there, the network's answer a
        # little more: boxes of 500 px by 2, scores in their third digit.
        iou = box_iou(found[label.name].boxes, wanted.boxes.double() / scale)
        sure, other_sure = found[label.name].scores > 0.52, wanted.scores > 0.52
        assert sure.any() and iou[sure].amax(dim=1).min() > 0.96
        assert iou[:, other_sure].amax(dim=0).min() > 0.96
