"""The losses against a teacher: by loops over cells, at equality, between unlike heads."""

import math
from dataclasses import replace

import helpers
import pytest
import torch

from detector.base.errors import UserError
from detector.boxes.anchors import priors
from detector.boxes.coding import decode, iou
from detector.boxes.logits import face_scores, score_logits
from detector.config.detector import Anchors, Head
from detector.config.recipe import Distillation
from detector.losses import distillation
from detector.losses.distillation import MIN_SCORE, DistillationLoss
from detector.losses.selection import select

RETINAFACE = helpers.TINY_DETECTOR
SCRFD = replace(
    RETINAFACE,
    head=Head(score="sigmoid", coding="distance", shared=True, landmarks=False),
)
YUNET = replace(
    RETINAFACE,
    neck=replace(RETINAFACE.neck, levels=(4, 5)),
    head=Head(score="objectness", coding="point"),
    anchors=Anchors(name="cell", offset=0),
)
DESIGNS = {"retinaface": RETINAFACE, "scrfd": SCRFD, "yunet": YUNET}
SIZE = (64, 96)


def outputs_of(design, seed, images=2):
    """Random outputs with some high scores, as a network of this design returns them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(images, *shape, generator=generator)

    count = len(priors(design, SIZE).anchors)
    outputs = {
        "class_logits": normal(count, 2 if design.head.score == "softmax" else 1, scale=2.0),
        "box_deltas": normal(count, 4, scale=0.5),
    }
    if design.head.coding == "distance":  # as trained ones, whose boxes are not inside out
        outputs["box_deltas"] = outputs["box_deltas"].abs() + 0.1
    if design.head.score == "objectness":
        outputs["objectness"] = normal(count, 1, scale=2.0)
    return outputs


def losses_of(student, teacher, ours, theirs, settings=None):
    loss = DistillationLoss(settings or Distillation(), student, teacher)
    own = priors(student, SIZE)
    targets = loss.targets(theirs, priors(teacher, SIZE), own)
    return loss(ours, own, targets, targets.normalizer), targets


def cell_by_cell(student, teacher, ours, theirs):
    """The two losses, by loops over images, levels, cells and anchors."""
    score_sum = box_sum = total = 0.0
    own, their_priors = priors(student, SIZE), priors(teacher, SIZE)
    their_scores, our_scores = face_scores(theirs).double(), face_scores(ours).double()
    their_boxes = decode(theirs["box_deltas"], their_priors.references, their_priors.coding)
    our_boxes = decode(ours["box_deltas"], own.references, own.coding)
    for level in set(student.neck.levels) & set(teacher.neck.levels):
        i, j = student.neck.levels.index(level), teacher.neck.levels.index(level)
        n, m = len(student.anchor_shapes()[i]), len(teacher.anchor_shapes()[j])
        start, begin = sum(own.counts[:i]), sum(their_priors.counts[:j])
        equal = student.anchor_shapes()[i] == teacher.anchor_shapes()[j]
        for image in range(len(our_scores)):
            for cell in range(own.counts[i] // n):
                pairs = [(start + cell * n + k, begin + cell * m + k) for k in range(n)]
                if not equal:
                    at = begin + cell * m
                    best = max(range(at, at + m), key=lambda b: their_scores[image, b])
                    a = start + cell * n
                    box = their_boxes[image, best]
                    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
                    shapes = torch.tensor(student.anchor_shapes()[i]) / 2
                    centred = torch.cat((middle - shapes, middle + shapes), dim=1)
                    fits = iou(centred, torch.cat((middle - half, middle + half))[None])[:, 0]
                    pairs = [(a + int(fits.argmax()), best)]
                for a, b in pairs:
                    p, t = float(our_scores[image, a]), float(their_scores[image, b])
                    entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
                    score_sum += abs(p - t) * entropy
                    if t >= MIN_SCORE:
                        total += t
                        box_sum += t * (1 - _giou(our_boxes[image, a], their_boxes[image, b]))
    return score_sum / max(total, 1), box_sum / max(total, 1)


def _giou(a, b):
    (ax, ay, au, av), (bx, by, bu, bv) = a.tolist(), b.tolist()
    overlap = max(min(au, bu) - max(ax, bx), 0) * max(min(av, bv) - max(ay, by), 0)
    union = (au - ax) * (av - ay) + (bu - bx) * (bv - by) - overlap
    hull = (max(au, bu) - min(ax, bx)) * (max(av, bv) - min(ay, by))
    return overlap / union - (hull - union) / hull


@pytest.mark.parametrize("teacher", DESIGNS)
@pytest.mark.parametrize("student", DESIGNS)
def test_losses_are_those_of_the_definition(student, teacher):
    ours, theirs = outputs_of(DESIGNS[student], 1), outputs_of(DESIGNS[teacher], 2)
    settings = Distillation(score_weight=3, box_weight=0.5)
    losses, targets = losses_of(DESIGNS[student], DESIGNS[teacher], ours, theirs, settings)
    score, box = cell_by_cell(DESIGNS[student], DESIGNS[teacher], ours, theirs)
    assert losses["teacher_score"].item() == pytest.approx(score, rel=1e-4)
    assert losses["teacher_box"].item() == pytest.approx(box, rel=1e-4)
    assert losses["total"].item() == pytest.approx(3 * score + 0.5 * box, rel=1e-4)
    assert score > 0 and box > 0
    for row in targets.anchors:  # each anchor learns from one prediction
        assert len(row.unique()) == len(row)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(name):
    design = DESIGNS[name]
    outputs = outputs_of(design, 3)
    ours = {key: value.clone().requires_grad_() for key, value in outputs.items()}
    losses, _ = losses_of(design, design, ours, outputs)
    assert losses["teacher_score"].item() == pytest.approx(0, abs=1e-5)
    assert losses["teacher_box"].item() == pytest.approx(0, abs=1e-5)
    losses["teacher_score"].backward()
    assert ours["class_logits"].grad.abs().max() < 1e-6
    for sign in (-1, 1):  # it is a minimum
        moved = outputs | {"class_logits": outputs["class_logits"].clone()}
        moved["class_logits"][..., -1] += 0.1 * sign
        assert losses_of(design, design, moved, outputs)[0]["teacher_score"] > 1e-4


@pytest.mark.parametrize("name", DESIGNS)
def test_score_logits_are_the_log_odds_of_the_scores(name):
    outputs = outputs_of(DESIGNS[name], 4)
    assert score_logits(outputs).sigmoid() == pytest.approx(face_scores(outputs), abs=1e-6)
    outputs["class_logits"][..., -1] = -200.0  # where the score itself is 0
    assert score_logits(outputs).max() < -100


def test_levels_that_one_of_them_lacks_are_left_out():
    coarse = replace(RETINAFACE, neck=replace(RETINAFACE.neck, levels=(5,)))
    _, targets = losses_of(RETINAFACE, coarse, outputs_of(RETINAFACE, 5), outputs_of(coarse, 6))
    counts = priors(RETINAFACE, SIZE).counts
    assert targets.anchors.shape == (2, counts[-1])
    assert targets.anchors.min() == sum(counts[:-1])  # those of the coarsest level


def test_without_a_common_stride_there_is_nothing_to_compare():
    fine = replace(RETINAFACE, neck=replace(RETINAFACE.neck, levels=(3, 4)))
    coarse = replace(RETINAFACE, neck=replace(RETINAFACE.neck, levels=(5,)))
    with pytest.raises(UserError, match=r"the teacher predicts at strides 32, .* at 8, 16; choose"):
        DistillationLoss(Distillation(), fine, coarse)


def test_the_anchor_of_the_most_similar_shape_learns():
    """A teacher with one point a cell sees faces of 30 px everywhere."""
    design = replace(YUNET, neck=replace(YUNET.neck, levels=(3, 4, 5)))
    theirs = outputs_of(design, 7, images=1)
    own, points = priors(RETINAFACE, SIZE), priors(design, SIZE)
    strides = points.references[:, 2:] - points.references[:, :2]
    theirs["box_deltas"] = torch.cat((torch.zeros_like(strides), (30 / strides).log()), 1)[None]
    _, targets = losses_of(RETINAFACE, design, outputs_of(RETINAFACE, 8, 1), theirs)
    learning = own.anchors[targets.anchors[0]]
    sides = (learning[:, 2] - learning[:, 0]).split(points.counts)
    assert [side.unique().tolist() for side in sides] == [[32], [64], [256]]


def test_without_faces_boxes_are_not_learned():
    theirs = outputs_of(RETINAFACE, 9)
    theirs["class_logits"][..., 1] = theirs["class_logits"][..., 0] - 8
    ours = {key: value.requires_grad_() for key, value in outputs_of(RETINAFACE, 10).items()}
    losses, targets = losses_of(RETINAFACE, RETINAFACE, ours, theirs)
    assert targets.normalizer == 0 and losses["teacher_box"] == 0 and losses["teacher_score"] > 0
    losses["total"].backward()
    assert ours["class_logits"].grad.isfinite().all()


def test_masked_as_on_a_gpu_equals_gathered(monkeypatch):
    ours, theirs = outputs_of(YUNET, 11), outputs_of(RETINAFACE, 12)

    def run():
        leaves = {key: value.clone().requires_grad_() for key, value in ours.items()}
        losses, _ = losses_of(YUNET, RETINAFACE, leaves, theirs)
        losses["total"].backward()
        return losses["total"].item(), {key: leaf.grad for key, leaf in leaves.items()}

    total, gradients = run()
    monkeypatch.setattr(distillation, "select", lambda mask: select(mask, all_entries=True))
    same, others = run()
    assert same == pytest.approx(total, rel=1e-6)
    for key, gradient in gradients.items():
        assert torch.allclose(gradient, others[key], rtol=1e-4, atol=1e-7), key
