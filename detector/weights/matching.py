"""Tensors of a file matched with those of a network: by their names, or by their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from detector.base.errors import UserError
from detector.config.detector import Detector
from detector.network.model import blank_detector

State = dict[str, Tensor]


def check_names(source: str, state: State, design: Detector) -> None:
    """Raise UserError, with the first difference, unless a design has exactly these tensors."""
    own = blank_detector(design).state_dict()
    for name in [*own, *(name for name in state if name not in own)]:
        here, there = own.get(name), state.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise UserError(_difference(source, name, there, name, here))


def by_name(source: str, state: State, designs: Mapping[str, Detector]) -> str:
    """The title of the design that has exactly these tensors; counters may be missing.

    Raises:
        UserError: none has; shows the difference from the design that has most of them.
    """
    best: tuple[int, str] = (-1, "")
    for title, design in designs.items():
        own = blank_detector(design).state_dict()
        names = [*own, *(name for name in state if name not in own)]
        wrong = [name for name in names if not _same_shape(own.get(name), state.get(name), name)]
        if not wrong:
            return title
        name, right = wrong[0], len(names) - len(wrong)
        if right > best[0]:
            best = right, _difference(source, name, state.get(name), name, own.get(name))
    raise UserError(best[1])


def _same_shape(here: Tensor | None, there: Tensor | None, name: str) -> bool:
    if here is None or there is None:
        return is_counter(name)
    return here.shape == there.shape


def by_order(
    source: str, state: State, part: str, designs: Mapping[str, Detector]
) -> tuple[str, State]:
    """The title of the design that the tensors fit, and the tensors with this program's names.

    Args:
        part: "backbone.", after which the file may have more (a classifier), or "" for all.

    Raises:
        UserError: they fit none; shows the difference from the first one.
    """
    # Older files lack num_batches_tracked, which norms with a fixed momentum never use.
    tensors = [item for item in state.items() if not is_counter(item[0])]
    message = ""
    for title, design in designs.items():
        own = [
            (name, tensor)
            for name, tensor in blank_detector(design).state_dict().items()
            if name.startswith(part) and not is_counter(name)
        ]
        difference = _first_difference(own, tensors, whole=not part)
        if difference is None:
            return title, {name: there for (name, _), (_, there) in zip(own, tensors)}
        message = message or _difference(source, *difference)
    raise UserError(message)


Named = tuple[str, Tensor]


def _first_difference(
    own: Sequence[Named], theirs: Sequence[Named], whole: bool
) -> tuple[str | None, Tensor | None, str | None, Tensor | None] | None:
    """(name there, tensor there, name here, tensor here), or None."""
    for index in range(max(len(own), len(theirs)) if whole else len(own)):
        name, here = own[index] if index < len(own) else (None, None)
        foreign, there = theirs[index] if index < len(theirs) else (None, None)
        if (
            name is None
            or foreign is None
            or here is None
            or there is None
            or here.shape != there.shape
            or _role(name) != _role(foreign)
        ):
            return foreign, there, name, here
    return None


def _role(name: str) -> str:
    return name.rpartition(".")[2]  # weight, bias, running_mean, running_var


def is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _difference(
    source: str, foreign: str | None, there: Tensor | None, name: str | None, here: Tensor | None
) -> str:
    def shown(label, tensor):
        return "nothing" if tensor is None else f"{label} {list(tensor.shape)}"

    return (
        f"{source}: weights of another design: first difference is {shown(foreign, there)} "
        f"there, {shown(name, here)} here; give the design they belong to"
    )
