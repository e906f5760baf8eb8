"""The WIDER protocol against golden numbers, a literal second implementation, and closed cases."""

import tarfile

import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.types import ImageLabel
from detector.metrics.wider import (
    GroundTruth,
    height_ground_truth,
    official_ground_truth,
    wider_ap,
)
from detector.metrics.wider_files import read_predictions

GOLDEN = {
    "retinaface_mobile025": (0.907076104848709, 0.8816501731241937, 0.7382726532319118),
    "jittered_gt": (0.9548287777695547, 0.9262565322609397, 0.7697512364023282),
}
GOLDEN_LISTED = (0.9271978013894713, 0.8987260677236961, 0.734930773171812)


# --- Golden numbers of the usual evaluator ---


@pytest.fixture(scope="module")
def official(wider_root):
    return official_ground_truth(wider_root / "ground_truth")


@pytest.fixture(scope="module")
def prediction_set(wider_root, official, tmp_path_factory):
    """Function: name → predictions of all 3,226 images, read from the files."""
    read = {}

    def load(name):
        if name not in read:
            folder = tmp_path_factory.mktemp(name)
            with tarfile.open(wider_root.parent / "predictions" / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
            read[name], missing = read_predictions(folder, official.names)
            assert missing == []
        return read[name]

    return load


@pytest.mark.parametrize("name", GOLDEN)
def test_every_digit_over_all_images(name, official, prediction_set):
    assert len(official) == 3226
    assert len(official.boxes) == 39708
    assert tuple(wider_ap(prediction_set(name), official).values()) == GOLDEN[name]


def test_every_digit_over_the_listed_images(wider_root, official, prediction_set):
    text = (wider_root / "wider_face_split" / "wider_face_val_bbx_gt.txt").read_text()
    listed = [line for line in text.splitlines() if line.endswith(".jpg")]
    assert len(listed) == 488
    ap = wider_ap(prediction_set("retinaface_mobile025"), official.subset(listed))
    assert tuple(ap.values()) == GOLDEN_LISTED
    assert list(ap) == ["easy", "medium", "hard"]


def test_heights_agree_with_the_official_lists(official):
    corner, size = official.boxes[:, :2], official.boxes[:, 2:]
    boxes = np.concatenate([corner, corner + size], axis=1)
    landmarks = np.full((len(boxes), 5, 2), np.nan)
    label = ImageLabel("a/all.jpg", (0, 0), boxes, landmarks, np.zeros(len(boxes), bool))
    by_height = height_ground_truth([label]).counted
    agreement = [(by_height[level] == official.counted[level]).mean() for level in official.counted]
    assert np.round(agreement, 3).tolist() == [0.998, 0.994, 0.980]


# --- A second implementation: the nine rules, one detection and one threshold at a time ---


def literal_ap(predictions, names, boxes, counted):
    """AP of one level; `boxes` and `counted` by image."""
    low, high = 1.0, 0.0
    for name in names:
        for row in predictions.get(name, ()):
            low, high = min(low, row[4]), max(high, row[4])
    if low == high:
        return 0.0
    proposals, found = np.zeros(1000), np.zeros(1000)
    faces = 0
    for name, image_boxes, image_counted in zip(names, boxes, counted):
        faces += sum(image_counted)
        rows = predictions.get(name, ())
        if len(rows) == 0:
            continue
        scores = [(row[4] - low) / (high - low) for row in rows]
        counts, hits, hit = [], [], set()
        for row in rows:
            overlaps = [literal_iou(row, box) for box in image_boxes]
            best = int(np.argmax(overlaps)) if overlaps else None
            matched = best is not None and overlaps[best] >= 0.5
            if matched and image_counted[best]:
                hit.add(best)
            counts.append(0 if matched and not image_counted[best] else 1)
            hits.append(len(hit))
        for t in range(1000):
            reaching = [i for i, score in enumerate(scores) if score >= 1 - (t + 1) / 1000]
            if reaching:
                proposals[t] += sum(counts[: reaching[-1] + 1])
                found[t] += hits[reaching[-1]]
    if faces == 0:
        return 0.0
    recall = [0.0] + [f / faces for f in found] + [1.0]
    precision = [0.0] + [f / p if p else 0.0 for f, p in zip(found, proposals)] + [0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def literal_iou(a, b):
    ax2, ay2, bx2, by2 = a[0] + a[2], a[1] + a[3], b[0] + b[2], b[1] + b[3]
    width = min(ax2, bx2) - max(a[0], b[0]) + 1
    height = min(ay2, by2) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = (ax2 - a[0] + 1) * (ay2 - a[1] + 1) + (bx2 - b[0] + 1) * (by2 - b[1] + 1)
    return width * height / (areas - width * height)


def ground_truth(boxes, counted):
    """Of images a/0, a/1 … with the same faces counted in all levels."""
    flat = np.concatenate([np.reshape(b, (-1, 4)) for b in boxes]).astype(float)
    mask = np.concatenate([np.asarray(k, dtype=bool) for k in counted])
    return GroundTruth(
        tuple(f"a/{i}" for i in range(len(boxes))),
        np.array([len(b) for b in boxes]),
        flat,
        dict.fromkeys(("easy", "medium", "hard"), mask),
    )


def random_case(seed):
    """Few places, sizes and scores, so that scores and IoUs tie and boxes meet 0.5 exactly."""
    rng = np.random.default_rng(seed)
    coarse = seed % 2 == 0
    boxes, counted, predictions = [], [], {}
    for image in range(rng.integers(1, 7)):
        n = rng.integers(0, 7)
        faces = np.concatenate([rng.integers(0, 14, (n, 2)), rng.integers(1, 8, (n, 2))], axis=1)
        boxes.append(faces * (1 if coarse else 3))
        counted.append(rng.random(n) < rng.choice([0.0, 0.6, 1.0, 1.0]))
        if rng.random() < 0.2:
            continue
        rows = np.concatenate(
            [rng.integers(-2, 9, (m := rng.integers(0, 12), 2)), rng.integers(-2, 7, (m, 2))],
            axis=1,
        ).astype(float)
        if n and m:
            near = rng.integers(0, n, m)
            moved = faces[near] + rng.choice([-1, 0, 0, 0, 1], (m, 4))
            rows = np.where(rng.random((m, 1)) < 0.7, moved, rows)
        if not coarse:
            rows = rows * 3 + rng.normal(0, 0.5, rows.shape)
        scores = rng.choice([0.0, 0.1, 0.25, 0.5, 0.999, 1.0], m) if coarse else rng.random(m)
        if rng.random() < 0.5:
            scores = np.sort(scores)[::-1]
        predictions[f"a/{image}"] = np.concatenate([rows, scores[:, None]], axis=1)
    return predictions, boxes, counted


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_literal_rules(seed):
    predictions, boxes, counted = random_case(seed)
    truth = ground_truth(boxes, counted)
    expected = literal_ap(predictions, truth.names, boxes, counted)
    assert wider_ap(predictions, truth)["hard"] == pytest.approx(expected, abs=1e-12)


def test_the_random_cases_are_not_trivial():
    expected = [wider_ap(p, ground_truth(b, k))["hard"] for p, b, k in map(random_case, range(60))]
    assert len(set(np.round(expected, 6))) > 35


def test_the_order_of_work_changes_nothing(monkeypatch):
    predictions, boxes, counted = random_case(3)
    truth = ground_truth(boxes, counted)
    whole = wider_ap(predictions, truth)
    monkeypatch.setattr("detector.metrics.wider._CHUNK", 1)
    assert wider_ap(predictions, truth) == whole


# --- Closed cases ---

FACE = (10, 10, 20, 20)
AWAY = (200, 200, 20, 20)


def ap_of(rows, boxes=(FACE,), counted=(True,), other=((*AWAY, 0.0),)):
    """AP of one image a/0; a detection in image a/1 gives the lowest score of the set."""
    truth = ground_truth([np.array(boxes), np.zeros((0, 4))], [counted, []])
    predictions = {"a/0": np.array(rows, dtype=float).reshape(-1, 5), "a/1": np.array(other)}
    return wider_ap(predictions, truth)["easy"]


def test_one_face_found_is_1():
    assert ap_of([(*FACE, 0.9)]) == 1.0


def test_false_positives_before_and_after():
    assert ap_of([(*AWAY, 0.9), (*FACE, 0.5)]) == 0.5
    assert ap_of([(*FACE, 0.9), (*AWAY, 0.5)]) == 1.0


def test_a_second_hit_is_a_false_positive():
    two = (FACE, (100, 10, 20, 20))
    rows = [(*FACE, 0.9), (*FACE, 0.8), (*two[1], 0.7)]
    assert ap_of(rows, two, (True, True)) == pytest.approx(0.5 + 0.5 * 2 / 3, abs=1e-15)


def test_a_detection_whose_best_face_is_ignored_counts_neither_way():
    ignored, wanted = (10, 10, 20, 20), (12, 10, 20, 20)
    rows = [(*ignored, 0.9), (*wanted, 0.5)]
    assert ap_of(rows, (ignored, wanted), (False, True)) == 1.0
    assert ap_of([(*ignored, 0.9)], (ignored, wanted), (False, True)) == 0.0


def test_the_first_of_equal_faces_is_taken():
    assert ap_of([(*FACE, 0.9)], (FACE, FACE), (True, False)) == 1.0
    assert ap_of([(*FACE, 0.9)], (FACE, FACE), (False, True)) == 0.0


def test_lists_are_cut_not_sorted():
    # The false positive stands before the hit in the file, so it comes along, whatever its score.
    assert ap_of([(*AWAY, 0.1), (*FACE, 0.9)]) == 0.5


def test_iou_of_one_half_is_a_match_in_whole_pixels():
    assert ap_of([(0, 0, 9, 9, 0.9)], ((0, 0, 9, 4),)) == 1.0  # 10 × 10 over 10 × 5 pixels
    assert ap_of([(0, 0, 9, 9, 0.9)], ((0, 0, 9, 3),)) == 0.0


def test_an_image_without_counted_faces_adds_its_false_positives():
    assert ap_of([(*FACE, 0.5)], other=((*AWAY, 0.9), (*AWAY, 0.0))) == 0.5


def test_an_image_without_detections_is_missed():
    truth = ground_truth([np.array([FACE]), np.array([FACE])], [[True], [True]])
    assert wider_ap({"a/0": np.array([(*FACE, 0.9), (*AWAY, 0.0)])}, truth)["easy"] == 0.5


@pytest.mark.parametrize(
    "predictions",
    [
        {},
        {"a/0": np.zeros((0, 5))},
        {"a/0": np.array([(*FACE, 0.7)])},
        {"a/0": np.array([(*FACE, 0.7), (*FACE, 0.7)])},
    ],
)
def test_nothing_found_or_one_constant_score_is_0(predictions):
    truth = ground_truth([np.array([FACE])], [[True]])
    assert wider_ap(predictions, truth) == {"easy": 0.0, "medium": 0.0, "hard": 0.0}


def test_no_face_that_counts_is_0():
    assert ap_of([(*FACE, 0.9)], counted=(False,)) == 0.0


def test_huge_and_inverted_boxes_match_nothing():
    assert ap_of([(-1e12, -1e12, 2e12, 2e12, 0.9), (30, 30, -20, -20, 0.8), (*FACE, 0.5)]) == (
        pytest.approx(1 / 3)
    )


# --- Ground truth ---


def label(name, heights, ignore=None):
    n = len(heights)
    boxes = np.array([(5, 5, 25, 5 + h) for h in heights], dtype=np.float32).reshape(-1, 4)
    return ImageLabel(
        name,
        (0, 0),
        boxes,
        np.full((n, 5, 2), np.nan, np.float32),
        np.zeros(n, bool) if ignore is None else np.array(ignore),
    )


def test_levels_by_height():
    truth = height_ground_truth(
        [
            label("a/x.jpg", [51, 50, 31, 30, 11, 10]),
            label("a/y.jpg", []),
            label("a/z.png", [80, 80], [True, False]),
        ]
    )
    assert truth.names == ("a/x", "a/y", "a/z")
    assert truth.counts.tolist() == [6, 0, 2]
    assert truth.boxes[0].tolist() == [5, 5, 20, 51]
    counted = {level: np.flatnonzero(mask).tolist() for level, mask in truth.counted.items()}
    assert counted == {"easy": [0, 7], "medium": [0, 1, 2, 7], "hard": [0, 1, 2, 3, 4, 7]}


def test_a_subset_has_the_named_images_in_order():
    truth = height_ground_truth(
        [label("a/x.jpg", [60]), label("a/y.jpg", [20, 70]), label("a/z.jpg", [])]
    )
    part = truth.subset(["a/z.jpg", "a/y"])
    assert part.names == ("a/z", "a/y")
    assert part.counts.tolist() == [0, 2]
    assert part.counted["easy"].tolist() == [False, True]
    assert len(truth.subset([])) == 0
    with pytest.raises(UserError, match=r"a/w: not in the ground truth \(2 such images\)"):
        truth.subset(["a/x", "a/w.jpg", "a/v"])


def test_suffixes_of_images_do_not_matter():
    truth = height_ground_truth([label("a/x.jpg", [60])])
    rows = np.array([(5, 5, 20, 60, 0.9), (300, 5, 20, 60, 0.1)])
    assert wider_ap({"a/x.jpg": rows}, truth) == wider_ap({"a/x": rows}, truth)
    assert wider_ap({"a/x": rows}, truth)["easy"] == 1.0


def test_no_images_at_all():
    assert wider_ap({}, height_ground_truth([])) == {"easy": 0.0, "medium": 0.0, "hard": 0.0}


def test_a_missing_official_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"wider_face_val\.mat: no such file"):
        official_ground_truth(tmp_path)


def test_a_broken_official_list_is_named(tmp_path):
    (tmp_path / "wider_face_val.mat").write_bytes(b"not a list" * 50)
    with pytest.raises(UserError, match=r"wider_face_val\.mat: not an official WIDER FACE list"):
        official_ground_truth(tmp_path)
