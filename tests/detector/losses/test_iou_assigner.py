"""The IoU assigner against a second implementation in plain loops, and edge cases."""

import pytest
import torch

from detector.boxes.anchors import Priors
from detector.boxes.coding import encode
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.assignment import INSIDE
from detector.losses.iou_assigner import assign_iou

ANCHORS = torch.tensor(
    [
        [x - s / 2, y - s / 2, x + s / 2, y + s / 2]
        for s in (16.0, 32.0, 96.0)
        for y in range(8, 96, 16)
        for x in range(8, 96, 16)
    ]
)


PRIORS = Priors(ANCHORS, ANCHORS, ANCHORS, (len(ANCHORS),))


def targets(boxes, ignore):
    return Targets.of([{"boxes": b, "ignore": i} for b, i in zip(boxes, ignore)])


def one(boxes, ignore=None, settings=None):
    """Labels and faces [A] of a single image."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    ignore = torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else torch.tensor(ignore)
    labels, faces = assign_iou(targets([boxes], [ignore]), PRIORS, settings or Loss())
    return labels[0], faces[0]


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)

    def area(box):
        return (box[2] - box[0]) * (box[3] - box[1])

    return inter / (area(a) + area(b) - inter), inter / area(b)


def slow_assign(boxes, ignore, anchors, settings):
    """The rules of `assign_iou`, face by face and anchor by anchor, in float64."""
    labels, faces = [0] * len(anchors), [0] * len(anchors)
    rows = [[overlap(box, anchor) for anchor in anchors] for box in boxes]
    learnt, unassigned = [], []
    for f, box in enumerate(boxes):
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        best = max(iou for iou, _ in rows[f])
        fits = best >= min(settings.match_iou, settings.force_iou)
        (learnt if fits and not ignore[f] else unassigned).append(f)
    claimed = {}
    for f in learnt:
        ious = [iou for iou, _ in rows[f]]
        a = ious.index(max(ious))
        if max(ious) >= settings.force_iou and (
            a not in claimed or ious[a] > rows[claimed[a]][a][0]
        ):
            claimed[a] = f
    for a in range(len(anchors)):
        best = max(learnt, key=lambda f: rows[f][a][0], default=None)
        if a in claimed:
            labels[a], faces[a] = 1, claimed[a]
        elif best is not None and rows[best][a][0] >= settings.match_iou:
            labels[a], faces[a] = 1, best
        else:
            for f in unassigned:
                iou, inside = rows[f][a]
                limit = min(settings.match_iou, max(i for i, _ in rows[f]) - 1e-6)
                if (iou > 0 and iou >= limit) or inside >= INSIDE:
                    labels[a] = -1
    return labels, faces


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    settings = Loss(match_iou=0.45, force_iou=0.25) if seed % 2 else Loss()
    boxes, ignore = [], []
    for count in (5, 0, 1, 12):
        centre = torch.rand(count, 2, generator=generator) * 96
        size = torch.exp(torch.randn(count, 2, generator=generator) * 0.9 + 2.8)
        boxes.append(torch.cat((centre - size / 2, centre + size / 2), 1))
        ignore.append(torch.rand(count, generator=generator) < 0.3)
    labels, faces = assign_iou(targets(boxes, ignore), PRIORS, settings)
    start = 0
    for i, own in enumerate(boxes):
        expected, indices = slow_assign(
            own.tolist(), ignore[i].tolist(), ANCHORS.tolist(), settings
        )
        assert labels[i].tolist() == expected
        positive = labels[i] == 1
        assert (faces[i][positive] - start).tolist() == [
            f for f, label in zip(indices, expected) if label == 1
        ]
        start += len(own)


def test_a_face_equal_to_an_anchor_is_learnt_by_it():
    labels, faces = one(ANCHORS[[50, 7]].tolist())
    assert labels[50] == labels[7] == 1
    assert (faces[50], faces[7]) == (0, 1)


def test_best_anchor_is_forced_below_the_match_threshold():
    box = [40.0, 40.0, 50.0, 49.0]  # 90 px² in one 16 px anchor: IoU 0.27, or less where cut
    labels, _ = one([box])
    assert (labels == 1).sum() == 1
    assert (one([box], settings=Loss(force_iou=0.4))[0] == 1).sum() == 0


def test_of_two_claims_the_larger_overlap_wins():
    anchor = ANCHORS[14]
    worse, better = anchor + torch.tensor([4.0, 4, 0, 0]), anchor + torch.tensor([3.0, 3, 0, 0])
    for boxes, winner in (([worse, better], 1), ([better, worse], 0)):
        labels, faces = one(torch.stack(boxes).tolist())
        assert labels[14] == 1
        assert faces[14] == winner


def test_tiny_faces_are_neither_learnt_nor_background():
    labels, _ = one([[40.0, 40.0, 41.0, 41.0], [9.0, 9.0, 9.0 + 1e-6, 9.0 + 1e-6]])
    assert (labels == 1).sum() == 0
    assert (labels == -1).sum() >= 1  # the 16 px anchors around the first


def test_targets_are_finite_however_small_the_face():
    boxes = torch.tensor([[40.0, 40.0, 40 + side, 40 + side] for side in (1e-3, 0.5, 2, 8, 30)])
    labels, faces = one(boxes.tolist(), settings=Loss(force_iou=0.0))
    positive = labels == 1
    assert encode(boxes[faces[positive]], ANCHORS[positive]).isfinite().all()


def test_boxes_without_area_do_not_exist():
    plain, _ = one([[30.0, 30.0, 60.0, 60.0]])
    more, _ = one([[30.0, 30.0, 60.0, 60.0], [10, 10, 10, 30], [50, 50, 40, 40], [0, 0, 0, 0]])
    assert plain.equal(more)


def test_images_without_faces_are_background():
    labels, _ = one([])
    assert (labels == 0).all()
    both, _ = assign_iou(
        targets(
            [torch.zeros(0, 4), ANCHORS[[3]]],
            [torch.zeros(0, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)],
        ),
        PRIORS,
        Loss(),
    )
    assert (both[0] == 0).all()
    assert both[1, 3] == 1


def test_anchors_on_an_ignored_face_are_neither():
    region = [0.0, 0.0, 90.0, 90.0]
    labels, _ = one([region], [True])
    assert (labels == 1).sum() == 0
    inside = (ANCHORS >= 0).all(1) & (ANCHORS <= 90).all(1)
    assert (labels[inside] == -1).all()
    labels, faces = one([region, ANCHORS[14].tolist()], [True, False])
    assert labels[14] == 1  # a face to learn within it stays one
    assert faces[14] == 1
