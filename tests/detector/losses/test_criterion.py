"""The criterion against a second implementation in plain loops, and edge cases."""

import math
from functools import partial

import pytest
import torch

from detector.boxes.anchors import Priors
from detector.boxes.coding import encode
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses import class_losses, criterion
from detector.losses.criterion import Criterion, Normalizers
from detector.losses.iou_assigner import assign_iou
from detector.losses.selection import select

ANCHORS = torch.tensor(
    [
        [x - s / 2, y - s / 2, x + s / 2, y + s / 2]
        for y in range(4, 64, 8)
        for x in range(4, 64, 8)
        for s in (16.0, 32.0)
    ]
)
PRIORS = Priors(ANCHORS, ANCHORS, ANCHORS, (len(ANCHORS),))
SETTINGS = Loss()


def losses_of(predicted, targets, settings=SETTINGS, priors=PRIORS):
    return Criterion(settings)(predicted, targets, priors)


def labels_of(targets, settings=SETTINGS):
    return assign_iou(Targets.of(targets), PRIORS, settings).labels


def target(boxes, known=(), ignore=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    landmarks = torch.full((len(boxes), 5, 2), torch.nan)
    for i in known:
        corner, size = boxes[i, :2], boxes[i, 2:] - boxes[i, :2]
        landmarks[i] = corner + size * torch.tensor(
            [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
        )
    flags = torch.zeros(len(boxes), dtype=torch.bool)
    flags[list(ignore)] = True
    return {"boxes": boxes, "landmarks": landmarks, "ignore": flags}


def outputs(batch, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, len(ANCHORS), size, generator=generator).to(dtype).requires_grad_()
        for name, size in (("class_logits", 2), ("box_deltas", 4), ("landmark_deltas", 10))
    }


BATCH = [
    target([[5, 5, 22, 24], [30, 28, 60, 62], [40, 4, 43, 8]], known=(0,)),
    target([]),
    target([[10, 30, 30, 52], [34, 34, 50, 50]], known=(0, 1), ignore=(1,)),
]


def smooth(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def slow_losses(predicted, targets, settings):
    """The same sums with loops and Python floats."""
    terms = {"class": 0.0, "box": 0.0, "landmark": 0.0}
    counted = positives = known = 0
    for i, truth in enumerate(targets):
        labels, faces = assign_iou(Targets.of([truth]), PRIORS, settings)
        margins, own = [], 0
        for a, anchor in enumerate(ANCHORS.tolist()):
            background, face_logit = predicted["class_logits"][i, a].tolist()
            if labels[0, a] == 0:
                margins.append(face_logit - background)
            if labels[0, a] != 1:
                continue
            own += 1
            terms["class"] += math.log1p(math.exp(background - face_logit))
            w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
            cx, cy = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            x1, y1, x2, y2 = truth["boxes"][faces[0, a]].tolist()
            target = [
                ((x1 + x2) / 2 - cx) / (0.1 * w),
                ((y1 + y2) / 2 - cy) / (0.1 * h),
                math.log((x2 - x1) / w) / 0.2,
                math.log((y2 - y1) / h) / 0.2,
            ]
            terms["box"] += sum(
                smooth(p - q) for p, q in zip(predicted["box_deltas"][i, a].tolist(), target)
            )
            points = truth["landmarks"][faces[0, a]].tolist()
            if not any(math.isnan(v) for point in points for v in point):
                known += 1
                flat = [v for x, y in points for v in ((x - cx) / (0.1 * w), (y - cy) / (0.1 * h))]
                terms["landmark"] += sum(
                    smooth(p - q) for p, q in zip(predicted["landmark_deltas"][i, a].tolist(), flat)
                )
        hardest = sorted(margins, reverse=True)[: int(settings.negatives * max(own, 1))]
        terms["class"] += sum(math.log1p(math.exp(m)) for m in hardest)
        counted += max(own, 1)
        positives += own
    return {
        "class": terms["class"] / counted,
        "box": terms["box"] / max(positives, 1),
        "landmark": terms["landmark"] / max(known, 1),
    }


@pytest.mark.parametrize("settings", [SETTINGS, Loss(negatives=2.5, match_iou=0.5)])
def test_equals_the_slow_reference(settings):
    predicted = outputs(3)
    losses = losses_of(predicted, BATCH, settings)
    expected = slow_losses(predicted, BATCH, settings)
    assert list(losses) == ["class", "box", "landmark", "total"]
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4)
    weighted = (
        expected["class"]
        + settings.box_weight * expected["box"]
        + settings.landmark_weight * expected["landmark"]
    )
    assert losses["total"].item() == pytest.approx(weighted, rel=1e-4)


def test_low_precision_outputs_give_float32_losses():
    exact = losses_of(outputs(3), BATCH)
    rough = losses_of(outputs(3, dtype=torch.bfloat16), BATCH)
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.02)


def test_no_known_landmarks_is_zero_and_differentiable():
    predicted = outputs(2)
    losses = losses_of(predicted, [target([[5, 5, 22, 24]]), target([])])
    assert losses["landmark"].item() == 0.0
    losses["landmark"].backward()
    assert not predicted["landmark_deltas"].grad.any()


def test_one_unknown_point_leaves_the_face_out():
    truth = target([[5, 5, 22, 24]], known=(0,))
    truth["landmarks"][0, 3, 1] = torch.nan
    assert losses_of(outputs(1), [truth])["landmark"].item() == 0.0


def test_a_head_without_landmarks_has_no_such_term():
    predicted = outputs(3)
    del predicted["landmark_deltas"]
    assert list(losses_of(predicted, BATCH)) == ["class", "box", "total"]


def test_images_without_faces_are_all_negative():
    predicted = outputs(2)
    losses = losses_of(predicted, [target([]), target([])])
    assert losses["box"].item() == losses["landmark"].item() == 0.0
    losses["total"].backward()
    touched = predicted["class_logits"].grad.abs().sum(2) > 0
    assert touched.sum(1).tolist() == [7, 7]
    assert all(p.grad.isfinite().all() for p in predicted.values())


def test_only_positives_and_the_hardest_negatives_are_learnt():
    predicted = outputs(1)
    truth = target([[30, 28, 60, 62]])
    labels = labels_of([truth])
    losses_of(predicted, [truth])["class"].backward()
    touched = predicted["class_logits"].grad[0].abs().sum(1) > 0
    positives = int((labels == 1).sum())
    negatives = touched & (labels[0] == 0)
    assert touched[labels[0] == 1].all()
    assert negatives.sum() == min(7 * positives, int((labels == 0).sum()))
    margin = (predicted["class_logits"][0, :, 1] - predicted["class_logits"][0, :, 0]).detach()
    left_out = ~touched & (labels[0] == 0)
    if left_out.any():
        assert margin[negatives].min() >= margin[left_out].max()


def test_all_anchors_ignored_is_finite():
    losses = losses_of(outputs(1), [target([[-99, -99, 199, 199]], ignore=(0,))])
    assert all(value.item() == 0.0 for value in losses.values())


def test_the_batch_is_the_images_put_together():
    """Per-image sums weighted by their counts give the batch: no image leaks into another."""
    predicted = outputs(3)
    whole = losses_of(predicted, BATCH)
    counts = [max(int((labels_of([t]) == 1).sum()), 1) for t in BATCH]
    single = [
        losses_of({k: v[i : i + 1] for k, v in predicted.items()}, [t])["class"].item()
        for i, t in enumerate(BATCH)
    ]
    mean = sum(c * s for c, s in zip(counts, single)) / sum(counts)
    assert whole["class"].item() == pytest.approx(mean, rel=1e-5)


# -- every combination of rule, losses and head ------------------------------------------------

PARTS = {
    "iou": {},
    "atss": {"assignment": "atss"},
    "simota": {"assignment": "simota"},
    "cross_entropy": {"class_loss": "cross_entropy"},
    "focal": {"class_loss": "focal"},
    "quality_focal": {"class_loss": "quality_focal"},
    "giou": {"box_loss": "giou"},
    "diou": {"box_loss": "diou"},
    "eiou": {"box_loss": "eiou"},
    "scrfd": {"assignment": "atss", "class_loss": "quality_focal", "box_loss": "diou"},
    "yunet": {"assignment": "simota", "class_loss": "cross_entropy", "box_loss": "eiou"},
}
HEADS = ("softmax", "sigmoid", "objectness")
COUNTS = (len(ANCHORS) - 12, 12)
EVERY = pytest.mark.parametrize(
    "settings", [Loss(**part) for part in PARTS.values()], ids=list(PARTS)
)


def predicted_by(head, batch, seed=0, scale=1.0):
    predicted = {
        name: (value.detach() * scale).requires_grad_()
        for name, value in outputs(batch, seed).items()
    }
    if head != "softmax":
        predicted["class_logits"] = predicted["class_logits"].detach()[..., :1].requires_grad_()
    if head == "objectness":
        generator = torch.Generator().manual_seed(seed + 1)
        predicted["objectness"] = torch.randn(
            batch, len(ANCHORS), 1, generator=generator
        ).requires_grad_()
    return predicted


def losses_by_level(predicted, targets, settings, coding="anchor"):
    priors = Priors(ANCHORS, ANCHORS, ANCHORS, COUNTS, coding)
    return losses_of(predicted, targets, settings, priors)


@EVERY
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("coding", ["anchor", "distance", "point"])
def test_every_output_gets_a_finite_gradient(settings, head, coding):
    predicted = predicted_by(head, len(BATCH))
    losses = losses_by_level(predicted, BATCH, settings, coding)
    assert list(losses) == [
        "class",
        *(["objectness"] if head == "objectness" else []),
        "box",
        "landmark",
        "total",
    ]
    losses["total"].backward()
    for name, output in predicted.items():
        assert output.grad.isfinite().all(), name
        assert output.grad.any(), name


@EVERY
@pytest.mark.parametrize("head", HEADS)
def test_a_batch_without_faces_learns_only_negatives(settings, head):
    predicted = predicted_by(head, 2)
    losses = losses_by_level(predicted, [target([]), target([])], settings)
    assert losses["box"].item() == losses["landmark"].item() == 0.0
    losses["total"].backward()
    foreground = predicted["objectness" if head == "objectness" else "class_logits"]
    assert foreground.grad.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in predicted.values())


@EVERY
def test_right_predictions_have_lower_losses(settings):
    """Outputs that equal the faces assigned to the anchors, against random ones."""
    random = losses_by_level(predicted_by("sigmoid", len(BATCH)), BATCH, settings)
    right = {
        name: value.detach().clone()
        for name, value in predicted_by("sigmoid", len(BATCH), scale=0.0).items()
    }
    right["class_logits"] -= 8
    priors = Priors(ANCHORS, ANCHORS, ANCHORS, COUNTS)
    # The assignment may depend on the predictions: repeat until both agree.
    for _ in range(4):
        labels, faces = Criterion(settings).assign(right, Targets.of(BATCH), priors).matches
        positive = labels == 1
        boxes = torch.cat([t["boxes"] for t in BATCH])
        image, anchor = positive.nonzero(as_tuple=True)
        right["class_logits"][image, anchor] = 8.0
        right["box_deltas"][image, anchor] = encode(boxes[faces[image, anchor]], ANCHORS[anchor])
    losses = losses_by_level(right, BATCH, settings)
    assert losses["box"] < 1e-3
    assert losses["class"] < 0.1 * random["class"]


@pytest.mark.parametrize("kind", ["ohem", "focal", "quality_focal", "cross_entropy"])
@pytest.mark.parametrize("rule", ["iou", "atss", "simota"])
def test_all_anchors_masked_give_what_the_selected_ones_give(kind, rule, monkeypatch):
    """As a GPU computes it: no length depends on the data, faces are padded."""
    settings = Loss(
        assignment=rule, class_loss=kind, box_loss="eiou" if rule == "simota" else "smooth_l1"
    )

    def learn(targets):
        predicted = outputs(3)
        losses = losses_of(predicted, targets, settings)
        losses["total"].backward()
        return losses, {name: value.grad for name, value in predicted.items()}

    few, gradients = learn(BATCH)
    for module in (criterion, class_losses):
        monkeypatch.setattr(module, "select", partial(select, all_entries=True))
    every, others = learn(Targets.of(BATCH).padded())
    assert list(every) == list(few)
    for name, value in few.items():
        assert every[name].item() == pytest.approx(value.item(), rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, atol=1e-6)


@EVERY
@pytest.mark.parametrize("head", HEADS)
def test_parts_that_share_their_normalizers_add_up_to_the_batch(settings, head):
    predicted = predicted_by(head, len(BATCH))
    priors = Priors(ANCHORS, ANCHORS, ANCHORS, COUNTS)
    criterion = Criterion(settings)
    whole = criterion(predicted, BATCH, priors)
    parts = []
    for images in (slice(0, 1), slice(1, 3)):
        outputs = {name: value[images] for name, value in predicted.items()}
        targets = Targets.of(BATCH[images])
        known = criterion.assign(outputs if criterion.needs_outputs else None, targets, priors)
        parts.append((outputs, targets, known))
    normalizers = Normalizers(
        *torch.stack([torch.stack(known.normalizers) for *_, known in parts]).sum(0)
    )
    losses = [
        criterion(outputs, targets, priors, known._replace(normalizers=normalizers))
        for outputs, targets, known in parts
    ]
    for name, value in whole.items():
        total = sum(part[name].item() for part in losses)
        assert total == pytest.approx(value.item(), rel=1e-5), name
