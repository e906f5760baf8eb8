"""From images to rows and AP: scales, batches, images that cannot be read, released weights."""

import numpy as np
import pytest
import torch
from torch import nn

from detector.boxes.coding import encode
from detector.boxes.postprocess import Detections
from detector.config.recipe import DataChoice, Evaluation
from detector.data.types import ImageLabel, UnreadableImage
from detector.inference.predict import (
    _batches,
    _cudnn_pays,
    coco_rows,
    detect,
    detect_batch,
    evaluate,
    wider_rows,
)
from detector.metrics.wider import official_ground_truth
from detector.metrics.wider_files import read_predictions, write_predictions
from detector.network.model import build_detector


class Images:
    """An ImageSet in memory; None cannot be decoded. `sizes`: (width, height) of the labels."""

    name, fingerprint = "images", "0" * 12

    def __init__(self, images, sizes=None, boxes=None):
        sizes = sizes or [(0, 0)] * len(images)
        boxes = boxes or [np.zeros((0, 4))] * len(images)
        self.images = images
        self.labels = [
            ImageLabel(
                f"a/{i}.jpg",
                size,
                np.asarray(b, np.float32),
                np.full((len(b), 5, 2), np.nan, np.float32),
                np.zeros(len(b), bool),
            )
            for i, (size, b) in enumerate(zip(sizes, boxes))
        ]

    def __len__(self):
        return len(self.images)

    def image(self, index):
        if self.images[index] is None:
            raise UnreadableImage(self.labels[index].name)
        return self.images[index]


class Finder(nn.Module):
    """A network that finds one face wherever it looks: the lower right quarter of the image.

    Its confidence comes from the image's first pixel, so that results can be distinguished.
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.seen = config, []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        from detector.boxes.anchors import anchors

        assert not self.training
        assert images.dtype == torch.uint8
        batch, _, height, width = images.shape
        self.seen.append((batch, height, width))
        boxes = anchors(self.config, (height, width))
        wanted = torch.tensor([width / 2, height / 2, width, height]).expand_as(boxes)
        logits = torch.full((batch, len(boxes), 2), 0.0)
        logits[..., 1] = -20
        logits[:, 0, 1] = images[:, 0, 0, 0].float() / 100
        return {"class_logits": logits, "box_deltas": encode(wanted, boxes).repeat(batch, 1, 1)}


@pytest.fixture
def finder(preset):
    return Finder(preset("retinaface_mobile025"))


def picture(height, width, value=0):
    return np.full((height, width, 3), value, np.uint8)


def test_boxes_come_back_in_original_pixels(finder):
    images = Images([picture(96, 128)] * 3, sizes=[(0, 0), (128, 96), (1024, 768)])
    found = detect(finder, finder.config, images, Evaluation(size=64))
    assert {shape[1:] for shape in finder.seen} == {(48, 64)}
    assert list(found) == ["a/0.jpg", "a/1.jpg", "a/2.jpg"]
    boxes = [np.round(own.boxes[0].numpy(), 2).tolist() for own in found.values()]
    assert boxes[0] == boxes[1] == [64, 48, 128, 96]  # its own size
    assert boxes[2] == [512, 384, 1024, 768]  # a cache of a larger one


def test_nothing_is_scaled_up(finder):
    detect(finder, finder.config, Images([picture(50, 70)]), Evaluation(size=640))
    detect(finder, finder.config, Images([picture(51, 70)]), Evaluation())
    assert finder.seen == [(1, 50, 70), (1, 51, 70)]


def test_images_of_one_shape_share_a_batch(finder):
    shapes = [(32, 64), (64, 32), (32, 64), (64, 32), (32, 64)]
    images = Images(
        [picture(*shape, value=10 * i) for i, shape in enumerate(shapes)],
        sizes=[(w, h) for h, w in shapes],
    )
    updates = []
    found = detect(
        finder, finder.config, images, Evaluation(), progress=lambda *now: updates.append(now)
    )
    assert sorted(finder.seen) == [(2, 64, 32), (3, 32, 64)]
    assert updates[-1] == (5, 5)
    scores = [float(own.scores[0]) for own in found.values()]
    assert scores == pytest.approx([1 / (1 + np.exp(-i / 10)) for i in range(5)])


def test_unreadable_images_have_no_detections_and_are_reported(finder):
    unreadable = []
    found = detect(
        finder,
        finder.config,
        Images([None, picture(32, 32), None]),
        Evaluation(),
        unreadable=unreadable,
    )
    assert [len(own) for own in found.values()] == [0, 1, 0]
    assert wider_rows(found["a/0.jpg"]).shape == (0, 5)
    assert unreadable == ["a/0.jpg", "a/2.jpg"]


def test_the_mode_of_the_model_is_left_as_it_was(finder):
    finder.train()
    detect(finder, finder.config, Images([picture(32, 32)]), Evaluation())
    assert finder.training


def test_no_images(finder):
    assert detect(finder, finder.config, Images([]), Evaluation()) == {}


def test_ap_of_a_detector_that_is_right(finder):
    # The second image has no face, and its false positive the lowest score of all.
    right = [(512, 384, 1024, 768)]
    images = Images(
        [picture(96, 128, 255), picture(96, 128, 0)], [(1024, 768)] * 2, [right, np.zeros((0, 4))]
    )
    ap = evaluate(finder, finder.config, images, Evaluation(size=64))
    assert ap == {"easy": 1.0, "medium": 1.0, "hard": 1.0}


def test_rows_are_whole_pixels_as_the_usual_writer_truncates_them():
    found = Detections(torch.tensor([[-1.75, 2.75, 10.25, 20.125]]), torch.tensor([0.25]), None)
    assert wider_rows(found).tolist() == [[-1, 2, 11, 18, 0.25]]
    assert coco_rows(found).tolist() == [[-1.75, 2.75, 12, 17.375, 0.25]]


def test_written_detections_score_the_same(tiny_data, preset, tmp_path):
    config = preset("retinaface_mobile025")
    model = build_detector(config)
    settings = Evaluation(size=160, score_threshold=0.3, keep=50)
    found = {
        name: wider_rows(own)
        for name, own in detect(model, config, tiny_data.val, settings).items()
    }
    assert sum(map(len, found.values())) > 20
    write_predictions(tmp_path, found)
    read, missing = read_predictions(tmp_path, found)
    assert missing == []
    for name in found:
        assert (found[name] == read[name]).all()


def test_a_batch_equals_its_images_one_by_one(preset):
    config = preset("retinaface_mobile025")
    model = build_detector(config).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 65, 97, 3), np.uint8)
    settings = Evaluation(score_threshold=0.0, nms_iou=1.0, keep=10**6, pre_nms=10**6)
    for image, found in zip(images, detect_batch(model, config, images, settings)):
        (alone,) = detect_batch(model, config, image[None], settings)
        assert len(found) == len(alone) > 50
        torch.testing.assert_close(found.scores, alone.scores, rtol=0, atol=1e-5)
        order, order_alone = (d.boxes.sum(dim=1).argsort() for d in (found, alone))
        torch.testing.assert_close(found.boxes[order], alone.boxes[order_alone], rtol=0, atol=1e-2)


@pytest.mark.slow
def test_released_weights_at_original_size(wider_root, preset):
    from detector.data.open import open_data
    from detector.weights.files import load_weights

    config = preset("retinaface_mobile025")
    model = build_detector(config)
    load_weights(model, config, str(wider_root.parent / "weights" / "mobilenet0.25_Final.pth"))
    images = open_data(DataChoice(path=str(wider_root))).val
    truth = official_ground_truth(wider_root / "ground_truth").subset(
        label.name for label in images.labels
    )
    ap = evaluate(model, config, images, Evaluation(), truth=truth)
    assert list(ap.values()) == pytest.approx([0.9272, 0.8987, 0.7349], abs=1e-3)


def test_threads_read_the_same_images_in_the_same_order(tiny_data):
    settings = Evaluation(size=96)
    alone, ahead = (
        [
            (indices, batch)
            for indices, batch in _batches(tiny_data.train, settings, 2**16, readers, [])
        ]
        for readers in (0, 3)
    )
    assert [indices for indices, _ in alone] == [indices for indices, _ in ahead]
    for (_, one), (_, other) in zip(alone, ahead):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_cudnn_plans_for_few_sizes_alone():
    gpu, settings = torch.device("cuda"), Evaluation(size=640)
    few = Images([None] * 30, [(1024, 768 + i % 3) for i in range(30)])
    many = Images([None] * 30, [(1024, 700 + 9 * i) for i in range(30)])
    assert _cudnn_pays(few, settings, gpu) and not _cudnn_pays(many, settings, gpu)
    assert _cudnn_pays(many, settings, torch.device("cpu"))
    assert not _cudnn_pays(Images([None] * 3), settings, gpu)  # sizes are not known yet
