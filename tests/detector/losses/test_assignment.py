"""The assigners: what all of them guarantee, and slow references."""

import math

import pytest
import torch

from detector.boxes.anchors import Priors
from detector.boxes.coding import encode, iou
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses.assignment import IGNORED, NEGATIVE, POSITIVE
from detector.losses.criterion import Criterion

RULES = pytest.mark.parametrize("rule", ["iou", "atss", "simota"])
SIDE = 96


def grid(stride, scale=1.0, offset=0.5):
    centres = (torch.arange(SIDE // stride) + offset) * stride
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack((x, y), dim=-1).view(-1, 2)
    return torch.cat((points - scale * stride / 2, points + scale * stride / 2), dim=1)


CELLS = torch.cat([grid(stride) for stride in (8, 16, 32)])
ANCHORS = torch.cat([grid(stride, scale=2, offset=0) for stride in (8, 16, 32)])
PRIORS = Priors(ANCHORS, ANCHORS, CELLS, (144, 36, 9))


def faces(seed, count):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * SIDE
    size = torch.exp(torch.randn(count, 2, generator=generator) * 0.5 + 3)
    return torch.cat((centre - size / 2, centre + size / 2), dim=1)


def target(boxes, ignore=()):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.zeros(len(boxes), dtype=torch.bool)
    flags[list(ignore)] = True
    return {"boxes": boxes, "ignore": flags}


def predictions(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    boxes = ANCHORS + torch.randn(images, len(ANCHORS), 4, generator=generator) * 2
    return {
        "class_logits": torch.randn(images, len(ANCHORS), 1, generator=generator),
        "box_deltas": encode(boxes, ANCHORS),
    }


def assign(outputs, targets, settings):
    return Criterion(settings).assign(outputs, Targets.of(targets), PRIORS).matches


def run(rule, targets, **settings):
    return assign(predictions(len(targets)), targets, Loss(assignment=rule, **settings))


@RULES
def test_images_without_faces_are_background(rule):
    for targets in ([target([])], [target([]), target(faces(0, 2)), target([])]):
        labels, _ = run(rule, targets)
        assert labels.shape == (len(targets), len(ANCHORS))
        assert (labels[-1] == NEGATIVE).all() and (labels[0] == NEGATIVE).all()


@RULES
def test_a_batch_is_its_images_one_by_one(rule):
    targets = [
        target(faces(seed, count), ignore=[0] if count > 3 else [])
        for seed, count in enumerate((3, 0, 7, 1))
    ]
    outputs, settings = predictions(4), Loss(assignment=rule)
    labels, rows = assign(outputs, targets, settings)
    start = 0
    for i, own in enumerate(targets):
        alone = assign(
            {key: value[i : i + 1] for key, value in outputs.items()},
            [own],
            settings,
        )
        assert alone.labels[0].equal(labels[i])
        positive = labels[i] == POSITIVE
        assert (alone.faces[0] + start)[positive].equal(rows[i][positive])
        start += len(own["boxes"])


@RULES
def test_faces_are_learnt_by_anchors_on_them(rule):
    boxes = torch.tensor([[10.0, 10, 42, 40], [50, 44, 84, 90]])
    labels, rows = run(rule, [target(boxes)])
    positive = (labels[0] == POSITIVE).nonzero()[:, 0]
    assert set(rows[0, positive].tolist()) == {0, 1}
    where = CELLS if rule == "simota" else ANCHORS
    assert (iou(where[positive], boxes).gather(1, rows[0, positive, None]) > 0).all()


@RULES
def test_ignored_faces_are_neither_positive_nor_negative(rule):
    region = torch.tensor([[0.0, 0, SIDE, SIDE]])
    labels, _ = run(rule, [target(region, ignore=[0])])
    assert not (labels == POSITIVE).any()
    inside = (
        (CELLS if rule == "simota" else ANCHORS).clamp(0, SIDE)
        == (CELLS if rule == "simota" else ANCHORS)
    ).all(1)
    assert (labels[0, inside] == IGNORED).all()
    face = torch.tensor([[30.0, 30, 62, 62]])
    labels, rows = run(rule, [target(torch.cat((region, face)), ignore=[0])])
    assert set(rows[labels == POSITIVE].tolist()) == {1}


@RULES
def test_boxes_without_area_do_not_exist(rule):
    boxes = faces(3, 2)
    empty = torch.tensor([[10.0, 10, 10, 30], [50, 50, 40, 40], [0, 0, 0, 0]])
    plain, _ = run(rule, [target(boxes)])
    more, _ = run(rule, [target(torch.cat((boxes, empty)))])
    assert plain.equal(more)


@pytest.mark.parametrize("seed", range(4))
def test_atss_equals_the_slow_reference(seed):
    boxes = faces(seed, 5)
    owners = {}
    for f, box in enumerate(boxes):
        centre, chosen, start = (box[:2] + box[2:]) / 2, [], 0
        for count in PRIORS.counts:
            level = sorted(
                range(start, start + count),
                key=lambda a: math.dist(
                    centre.tolist(), ((ANCHORS[a, :2] + ANCHORS[a, 2:]) / 2).tolist()
                ),
            )
            chosen += level[:4]
            start += count
        ious = [iou(box[None], ANCHORS[a : a + 1]).item() for a in chosen]
        mean = sum(ious) / len(ious)
        least = mean + (sum((v - mean) ** 2 for v in ious) / (len(ious) - 1)) ** 0.5
        for a, overlap in zip(chosen, ious):
            x, y = ((ANCHORS[a, :2] + ANCHORS[a, 2:]) / 2).tolist()
            if (
                overlap >= least
                and box[0] < x < box[2]
                and box[1] < y < box[3]
                and overlap > owners.get(a, (-1, 0))[0]
            ):
                owners[a] = (overlap, f)
    labels, rows = run("atss", [target(boxes)], candidates=4)
    assigned = {a: rows[0, a].item() for a in (labels[0] == POSITIVE).nonzero()[:, 0].tolist()}
    assert assigned == {a: f for a, (_, f) in owners.items()}


@pytest.mark.parametrize("seed", range(12))
def test_simota_equals_the_slow_reference(seed):
    """Of the published rule, cell by cell; a cell that several faces take goes to the cheapest of
    all faces, also to one that did not take it."""
    boxes = faces(seed + 10, 5)
    if seed >= 4:  # a crowd on one spot, where cells are contested
        boxes = boxes - boxes[:, :2].repeat(1, 2) + 30 + 3 * torch.arange(5)[:, None]
    outputs = predictions(1, seed)
    scores = outputs["class_logits"][0, :, 0].sigmoid()
    generator = torch.Generator().manual_seed(seed)
    predicted = ANCHORS + torch.randn(1, len(ANCHORS), 4, generator=generator) * 2
    if seed >= 4:
        rows = torch.randint(5, (1, len(ANCHORS)), generator=generator)
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)[rows]
        noise = torch.randn(1, len(ANCHORS), 4, generator=generator)
        predicted = boxes[rows] + 0.1 * sides * noise
    outputs["box_deltas"] = encode(predicted, ANCHORS)
    overlaps = iou(boxes, predicted[0])

    def inside(f, a):
        x, y = ((CELLS[a, :2] + CELLS[a, 2:]) / 2).tolist()
        x1, y1, x2, y2 = boxes[f].tolist()
        return x1 < x < x2 and y1 < y < y2

    def near(f, a):
        centre, own = (boxes[f, :2] + boxes[f, 2:]) / 2, (CELLS[a, :2] + CELLS[a, 2:]) / 2
        return (centre - own).abs().max() < 2.5 * (CELLS[a, 2] - CELLS[a, 0])

    cells = [a for a in range(len(CELLS)) if any(inside(f, a) or near(f, a) for f in range(5))]
    costs, taken = [], {}
    for f in range(5):
        own = {
            a: -math.log(scores[a].sqrt())
            - 3 * math.log(overlaps[f, a] + 1e-7)
            + (0 if inside(f, a) and near(f, a) else 1e5)
            for a in cells
        }
        count = max(1, int(sum(sorted(overlaps[f, cells].tolist())[-10:])))
        for a in sorted(own, key=own.get)[:count]:
            taken.setdefault(a, []).append(f)
        costs.append(own)
    best = {
        a: by[0] if len(by) == 1 else min(range(5), key=lambda f: costs[f][a])
        for a, by in taken.items()
    }
    labels, rows = assign(outputs, [target(boxes)], Loss(assignment="simota"))
    assigned = {a: rows[0, a].item() for a in (labels[0] == POSITIVE).nonzero()[:, 0].tolist()}
    assert assigned == best


def test_a_contested_cell_goes_to_the_cheapest_of_all_faces():
    """Two faces take the same cell; the third is the cheapest there, but takes another one."""
    boxes = torch.tensor([[16.0, 16, 48, 48], [17, 17, 49, 49], [10, 10, 54, 54]])
    contested, other = 3 * 12 + 3, 4 * 12 + 4  # in the middle of all three
    predicted = torch.tensor([0.0, 0, 1, 1]).repeat(1, len(ANCHORS), 1)
    predicted[0, contested] = torch.tensor([12.0, 12, 52, 52])
    predicted[0, other] = boxes[2]
    outputs = {
        "class_logits": torch.zeros(1, len(ANCHORS), 1),
        "box_deltas": encode(predicted, ANCHORS),
    }
    overlaps = iou(boxes, predicted[0, [contested, other]])
    assert overlaps.argmax(1).tolist() == [0, 0, 1]  # what each face takes
    assert overlaps[:, 0].argmax() == 2  # the cheapest one of the contested cell
    labels, rows = assign(outputs, [target(boxes)], Loss(assignment="simota"))
    assert (labels[0] == POSITIVE).nonzero()[:, 0].tolist() == [contested, other]
    assert rows[0, [contested, other]].tolist() == [2, 2]


@RULES
def test_anchors_on_a_face_that_none_learns_are_background_if_so_set(rule):
    tiny = torch.tensor([[45.0, 45, 46, 46]])  # below force_iou with all anchors
    both = [target(torch.cat((tiny, torch.tensor([[0.0, 0, 20, 20]]))), ignore=[1])]
    ignored, _ = run(rule, both)
    background, _ = run(rule, both, unmatched="background")
    differs = ignored != background
    assert (background[differs] == NEGATIVE).all() and (ignored[differs] == IGNORED).all()
    assert differs.any() == (rule != "simota")  # which always finds a cell
    assert (background == IGNORED).any()  # those on the ignored face
