"""The tensors in a file written by torch, of this program or another one, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detector.base.errors import UserError
from detector.base.files import cannot_read, sha256_of
from detector.config.detector import Detector
from detector.weights.checkpoint import check_finite, is_state_dict, read_design, read_tensors
from detector.weights.pretrained import IMAGENET

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """What a file holds, with the names that it has there."""

    source: str
    """The file."""
    sha256: str
    state: State
    """Finite tensors by name, without the `module.` of data parallel training."""
    design: Detector | None = None
    """Of a checkpoint of this program."""
    training: dict | None = None
    """Of a checkpoint: its recipe and its `state` in one dict."""

    @property
    def first(self) -> str:
        """The name of the first tensor."""
        return next(iter(self.state))

    @classmethod
    def read(cls, source: str) -> TensorFile:
        """Reads a file, without running code from it.

        Raises:
            UserError: no such file, or it holds no finite named tensors.
        """
        try:
            content = read_tensors(Path(source))
        except FileNotFoundError:
            raise UserError(
                f"{source}: no such file of weights; give an existing file, or {IMAGENET}"
            ) from None
        except OSError as error:
            raise cannot_read(source, error, "give a file written by torch.save") from error
        except ValueError as error:
            raise UserError(
                f"{source}: cannot be read as weights ({error}); "
                "give a file written by torch.save that holds tensors only"
            ) from error
        state, design, training = content, None, None
        if isinstance(content, Mapping):
            design = content.get("detector")
            state = content.get("model", content.get("state_dict", content))
            rest = content.get("state")
            training = {"recipe": content.get("recipe")} | (rest if isinstance(rest, dict) else {})
        if not is_state_dict(state):
            raise UserError(
                f"{source}: holds no table of named tensors; give a state dict or a "
                "checkpoint with one under model or state_dict"
            )
        check_finite(state, source)
        return cls(
            source=source,
            sha256=sha256_of(source),
            state={name.removeprefix("module."): value for name, value in state.items()},
            design=None if design is None else read_design(design, state, source),
            training=training,
        )
