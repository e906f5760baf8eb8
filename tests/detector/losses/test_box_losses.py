"""Box losses: closed forms, torchvision's as a second implementation, gradient descent."""

import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

from detector.boxes.coding import iou
from detector.losses.box_losses import diou, eiou, giou, paired_iou
from detector.losses.tables import BOX_LOSSES

OVERLAP_LOSSES = {name: row.loss for name, row in BOX_LOSSES.items() if not row.of_deltas}
KINDS = pytest.mark.parametrize("kind", list(OVERLAP_LOSSES))


def pairs(count=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 60
    sides = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 40 + 1
    return torch.cat((corners, corners + sides), dim=-1)


def test_smooth_l1_in_closed_form():
    loss = BOX_LOSSES["smooth_l1"].loss(torch.tensor([[0.5, -3.0, 0, 0]]), torch.zeros(1, 4))
    assert_close(loss, torch.tensor([0.125 + 2.5]))


def test_pairs_are_the_diagonal_of_all_pairs():
    a, b = pairs()
    assert_close(paired_iou(a, b), iou(a, b).diagonal())


def test_giou_and_diou_are_torchvisions():
    a, b = pairs()
    assert_close(giou(a, b), generalized_box_iou_loss(a, b), rtol=1e-5, atol=1e-6)
    assert_close(diou(a, b), distance_box_iou_loss(a, b), rtol=1e-5, atol=1e-6)


def test_eiou_in_closed_form():
    box = torch.tensor([[0.0, 0, 10, 10]])
    # Half covered: IoU 1/3, loss 2/3 less half of 0.1 above the quadratic part.
    assert_close(eiou(box, torch.tensor([[5.0, 0, 15, 10]])), torch.tensor([2 / 3 - 0.05]))
    # IoU 0.95: in the quadratic part, 0.05² / 0.2.
    assert_close(eiou(box, torch.tensor([[0.0, 0, 10, 9.5]])), torch.tensor([0.0125]))
    # 10 px apart along x: the intersection is (10 - 20) · (0 + 10) = -100.
    assert_close(eiou(box, torch.tensor([[20.0, 0, 30, 10]])), torch.tensor([1 + 1 / 3 - 0.05]))


@pytest.mark.parametrize(
    "a, b, loss",
    [
        ([0, 0, 10, 10], [2, 3, 9, 14], 1 - 49 / 128 - 0.05),  # they overlap
        ([2, 2, 5, 5], [0, 0, 10, 10], 1 - 9 / 100 - 0.05),  # one in the other
        ([0, 0, 4, 4], [10, 12, 20, 20], 1 + 208 / 304 - 0.05),  # apart along both axes
    ],
)
def test_eiou_is_that_of_yunets_training_code(a, b, loss):
    """Its formula worked out on paper: (x2 y2 + x1' y1' - x1 y2' - x2' y1) from the hull's corner,
    where x1, y1, x2, y2 are the intersection's sides and the primed ones put in order."""
    computed = eiou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    assert_close(computed, torch.tensor([loss], dtype=torch.float64))


@KINDS
def test_equal_boxes_cost_nothing_and_others_something(kind):
    a, b = pairs()
    loss = OVERLAP_LOSSES[kind]
    assert_close(loss(a, a), torch.zeros(len(a), dtype=a.dtype), rtol=0, atol=1e-9)
    assert (loss(a, b) > 0).all()
    assert_close(loss(a, b), loss(b, a))


@KINDS
def test_gradients_lead_to_the_face_from_afar(kind):
    """Gradient descent on the boxes themselves: from beside the face onto it."""
    target = torch.tensor([[40.0, 40, 60, 64]])
    box = torch.tensor([[5.0, 10, 15, 20]], requires_grad=True)
    optimizer = torch.optim.Adam([box], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        OVERLAP_LOSSES[kind](box, target).sum().backward()
        optimizer.step()
    assert paired_iou(box.detach(), target).item() > 0.9


@KINDS
def test_boxes_without_area_or_inside_out_are_finite(kind):
    boxes = torch.tensor([[5.0, 5, 5, 5], [9, 9, 1, 1], [3, 8, 20, 2]], requires_grad=True)
    target = torch.tensor([[4.0, 4, 8, 8]]).expand(3, -1)
    loss = OVERLAP_LOSSES[kind](boxes, target)
    loss.sum().backward()
    assert loss.isfinite().all() and boxes.grad.isfinite().all()
    assert OVERLAP_LOSSES[kind](boxes[:0], target[:0]).shape == (0,)
