"""Assigners and losses by the names that recipes give them.

A new one is a file of this folder, a row here, and its name in detector/config/recipe.py; or a
function of a plugin, registered here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor

from detector.base.plugins import checked_new, with_named_faults
from detector.boxes.anchors import Priors
from detector.config import recipe
from detector.config.recipe import Loss
from detector.data.targets import Targets
from detector.losses import box_losses, class_losses
from detector.losses.assignment import Matches
from detector.losses.atss_assigner import assign_atss
from detector.losses.iou_assigner import assign_iou
from detector.losses.simota_assigner import assign_simota


class Assigner(NamedTuple):
    assign: Callable[[Targets, Priors, Loss, Mapping[str, Tensor] | None], Matches]
    """The last argument is None where the outputs are not known (and not needed)."""
    needs_outputs: bool = False
    """Whether it goes by what the network predicts, not by the faces alone."""


class ClassLoss(NamedTuple):
    loss: Callable[[Tensor, Tensor, Tensor, Tensor, Loss], Tensor]
    """See `class_losses`."""
    weights_boxes: bool = False
    """Whether predicted scores weight the positives in the box loss."""


class BoxLoss(NamedTuple):
    loss: Callable[[Tensor, Tensor], Tensor]
    """Predicted [N, 4], target [N, 4] → [N]."""
    of_deltas: bool = False
    """Whether it compares deltas, not boxes."""


ASSIGNERS: dict[str, Assigner] = {
    "iou": Assigner(assign_iou),
    "atss": Assigner(assign_atss),
    "simota": Assigner(assign_simota, needs_outputs=True),
}
CLASS_LOSSES: dict[str, ClassLoss] = {
    "ohem": ClassLoss(class_losses.ohem_loss),
    "cross_entropy": ClassLoss(class_losses.cross_entropy_loss),
    "focal": ClassLoss(class_losses.focal_loss),
    "quality_focal": ClassLoss(class_losses.quality_focal_loss, weights_boxes=True),
}
BOX_LOSSES: dict[str, BoxLoss] = {
    "smooth_l1": BoxLoss(box_losses.smooth_l1, of_deltas=True),
    "giou": BoxLoss(box_losses.giou),
    "diou": BoxLoss(box_losses.diou),
    "eiou": BoxLoss(box_losses.eiou),
}

_Function = TypeVar("_Function", bound=Callable)


def register_assigner(
    name: str, *, needs_outputs: bool = False
) -> Callable[[_Function], _Function]:
    """Decorator: a plugin's assigner as `loss.assignment: name`, see `Assigner`."""

    def register(assign: _Function) -> _Function:
        checked_new("assigner", name, ASSIGNERS)
        named = with_named_faults(f"assigner {name}", assign)
        ASSIGNERS[name] = Assigner(named, needs_outputs)
        recipe.ASSIGNERS.append(name)
        return assign

    return register


def register_class_loss(
    name: str, *, weights_boxes: bool = False
) -> Callable[[_Function], _Function]:
    """Decorator: a plugin's function as `loss.class_loss: name`, see `ClassLoss`."""

    def register(loss: _Function) -> _Function:
        checked_new("class loss", name, CLASS_LOSSES)
        named = with_named_faults(f"class loss {name}", loss)
        CLASS_LOSSES[name] = ClassLoss(named, weights_boxes)
        recipe.CLASS_LOSSES.append(name)
        return loss

    return register


def register_box_loss(name: str, *, of_deltas: bool = False) -> Callable[[_Function], _Function]:
    """Decorator: a plugin's function as `loss.box_loss: name`, see `BoxLoss`."""

    def register(loss: _Function) -> _Function:
        checked_new("box loss", name, BOX_LOSSES)
        BOX_LOSSES[name] = BoxLoss(with_named_faults(f"box loss {name}", loss), of_deltas)
        recipe.BOX_LOSSES.append(name)
        return loss

    return register
