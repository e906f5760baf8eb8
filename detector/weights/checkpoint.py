"""Checkpoints: weights with their design and recipe, written atomically."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeGuard, TypeVar

import torch
from torch import nn

from detector.base.errors import ConfigError, UserError, first_line
from detector.base.files import atomic_path, cannot_read, open_file
from detector.base.struct import Struct
from detector.config.detector import Detector, arch_hash
from detector.config.recipe import Recipe
from detector.weights.file_kinds import DamagedCheckpoint, kind_of, zip_damage
from detector.weights.file_names import LAST

FORMAT = 1  # raised when older readers would misread the file
MAX_DEPTH, MAX_ENTRIES = 30, 10**6
"""Of the dicts and lists in a checkpoint: how deep they may be nested, and how many values they may
hold. Far more than training writes."""
MAX_MESSAGE = 400
"""Most characters of a message about a wrong value, which repeats the value."""
S = TypeVar("S", bound=Struct)


class NonFiniteWeights(UserError):
    """A file whose weights are not all finite: its training diverged."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    config: Detector
    recipe: Recipe
    model: dict[str, torch.Tensor]
    """State of the detector as `build_detector(config)` names it."""
    state: dict = field(default_factory=dict)
    """What else the writer needs to resume, see `TrainingState.save`; empty for finished models."""


def save(
    path: Path,
    model: nn.Module,
    config: Detector,
    recipe: Recipe,
    state: dict,
    metadata: dict | None = None,
) -> None:
    """Writes `path` and, beside it, the readable `<stem>.json`, each atomically.

    The file is a dict with the keys `format`, `detector` and `recipe` (plain data), `model` (state
    dict) and `state`; it loads with `weights_only=True`.

    Args:
        state: tensors and plain data that training needs to resume.
        metadata: plain data for the readable file, besides the design and the recipe.

    Raises:
        UserError: the disk is full or the folder not writable; an older checkpoint stays intact.
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "detector": config.to_dict(),
        "recipe": recipe.to_dict(),
        "model": model.state_dict(),
        "state": state,
    }
    readable = {
        "design": arch_hash(config),
        **(metadata or {}),
        "torch": str(torch.__version__),
        "detector": config.to_dict(),
        "recipe": recipe.to_dict(),
    }
    _write(path, lambda file: torch.save(content, file))
    _write(
        path.with_suffix(".json"), lambda file: file.write(json.dumps(readable, indent=2).encode())
    )


def load(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads what `save` wrote, with tensors on `device`. Runs no code from the file
    (`weights_only=True`), and checks the checksums in it.

    Raises:
        DamagedCheckpoint: a damaged file, or one of another kind.
        NonFiniteWeights: its weights contain NaN or infinity.
        UserError: no such file, or a checkpoint of another program or version.
    """
    path = Path(path)
    remedy = f"give a file that training wrote, such as {LAST}"
    try:
        content = read_tensors(path, device)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; check the path") from None
    except OSError as error:
        raise cannot_read(path, error, remedy) from error
    except ValueError as error:
        raise DamagedCheckpoint(f"{path}: not a readable checkpoint ({error}); {remedy}") from None
    if not is_checkpoint(content):
        raise UserError(f"{path}: not a checkpoint of this program; {remedy}")
    if content["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {str(content['format'])[:20]}, this version reads "
            f"{FORMAT}; use the version that wrote it"
        )
    if not is_state_dict(content["model"]) or not isinstance(content["state"], dict):
        raise DamagedCheckpoint(f"{path}: its weights are no table of named tensors; {remedy}")
    config = read_design(content["detector"], content["model"], str(path))
    for state in (content["model"], content["state"].get("model")):  # an average, and the model
        if is_state_dict(state):
            check_finite(state, str(path))
    return Checkpoint(
        config=config,
        recipe=_read_struct(Recipe, content["recipe"], f"{path}: recipe"),
        model=content["model"],
        state=content["state"],
    )


def read_tensors(path: Path, device: str | torch.device = "cpu") -> Any:
    """The tensors and plain data in a file of torch.save. Runs no code from it; control characters
    in texts come back escaped, as texts are printed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or of another kind; says of which, in one line.
    """
    if path.is_dir():
        raise ValueError("it is a folder; expected is a file of torch.save")
    with open_file(path) as file:
        if file.read(2) == b"PK" and (damaged := zip_damage(file)):
            kind = kind_of(path)
            raise ValueError(f"damaged: {damaged}" if "torch file" in kind else _expected(kind))
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):  # about foreign pickles
                content = torch.load(file, map_location=device, weights_only=True)
        except Exception:  # other kinds of files raise any exception, with advice to run their code
            raise ValueError(_expected(kind_of(path))) from None
    return _bounded(content)


def _expected(kind: str) -> str:
    return f"it looks like {kind}; expected is a file of torch.save with tensors and plain data"


def _bounded(content: Any) -> Any:
    """The content with control characters escaped; ValueError if it is nested too deeply, or takes
    more memory than its file."""
    count = 0

    def read(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH or count > MAX_ENTRIES:  # also a small file with lists in lists
            raise ValueError(
                f"its content is nested more than {MAX_DEPTH} levels deep, or has more than "
                f"{MAX_ENTRIES:,} entries"
            )
        if isinstance(value, str):
            return printable(value)
        if isinstance(value, torch.Tensor):
            _check_storage(value)
        if type(value) is dict:
            return {read(key, depth + 1): read(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Mapping):  # a state dict, which has attributes of its own
            for key in value:
                if isinstance(key, str) and not key.isprintable():
                    raise ValueError(f"a tensor has the name {key[:60]!r}")
                read(value[key], depth + 1)
            return value
        if type(value) in (list, tuple):
            return type(value)(read(item, depth + 1) for item in value)
        return value

    return read(content, 0)


def _check_storage(tensor: torch.Tensor) -> None:
    """ValueError for a tensor of more values than its file holds: a view that repeats them."""
    if tensor.is_meta or tensor.layout != torch.strided:
        raise ValueError("a tensor in it has no values of its own")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor in it has the shape {list(tensor.shape)}, but fewer values")


def printable(text: str) -> str:
    """The text with control characters as escape sequences, so that a terminal only shows it."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def is_state_dict(value: object) -> TypeGuard[dict[str, torch.Tensor]]:
    """Whether it maps names to tensors, at least one."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in value.items())
    )


def check_finite(state: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise NonFiniteWeights, with the name of the first such tensor, if a value is NaN or
    infinite."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise NonFiniteWeights(
                f"{where}: {name} contains NaN or infinity, so the network would detect nothing: "
                "its training diverged; give other weights, or train again at a lower learning rate"
            )


def read_design(data: Any, model: Mapping[str, torch.Tensor], where: str) -> Detector:
    """The design in a checkpoint.

    Raises:
        ConfigError: it is no design.
        DamagedCheckpoint: it has more layers than there are tensors, so it would only cost memory.
    """
    design = _read_struct(Detector, data, f"{where}: detector")
    layers = sum(design.backbone.depths) + design.head.layers + len(design.neck.levels)
    if layers > len(model):
        raise DamagedCheckpoint(
            f"{where}: its design has at least {layers} layers, but it holds {len(model)} tensors; "
            f"give a file that training wrote, such as {LAST}"
        )
    return design


def _read_struct(cls: type[S], data: Any, where: str) -> S:
    try:
        return cls.from_dict(data, where)
    except ConfigError as error:
        message = str(error) if str(error).startswith(where) else f"{where}: {error}"
        raise ConfigError(message[:MAX_MESSAGE]) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # of absurd values
        raise ConfigError(f"{where}: {first_line(error)}; give another file") from error


def is_checkpoint(content: object) -> bool:
    """Whether a loaded file is a checkpoint of this program, of any version."""
    return isinstance(content, dict) and {"format", "detector", "recipe", "model", "state"} <= set(
        content
    )


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, fsync=True) as temporary, open(temporary, "wb") as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write in a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be written ({reason}); free some disk space or choose "
            "another folder, then run the same command again"
        ) from error
