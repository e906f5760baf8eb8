"""YAML with line numbers for error messages. Imports only PyYAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from detector.base.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML with the floats of version 1.2: 1e-3 is a number, not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """A YAML mapping and the lines of its keys."""

    path: Path
    data: dict
    lines: dict[tuple[str, ...], int]
    """1-based line of each key, by its path; list entries by index."""

    def error(self, keys: tuple[str, ...], message: str) -> UserError:
        """A UserError with the file, the line of the key if known, and the key."""
        line = next(
            (self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None
        )
        where = f"{self.path}:{line}" if line else f"{self.path}"
        return UserError(": ".join([where, *([" → ".join(keys)] if keys else []), message]))


def read(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML or not a mapping, or lists a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml"))
        hint = f"there are {', '.join(near)}" if near else "check the folder's name"
        raise UserError(f"{path}: no such file; {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a YAML file") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[tuple[str, ...], int] = {}
        _add_lines(path, node, (), lines)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML ({problem}); fix that line") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, such as `name: retina`")
    return Document(path, data, lines)


def _add_lines(path: Path, node, keys: tuple[str, ...], lines: dict) -> None:
    """Add the line of each key of a mapping and each entry of a list ("0", "1", …) to `lines`.

    Raises:
        UserError: a key is listed twice.
    """
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            lines[keys + (str(index),)] = entry.start_mark.line + 1
            _add_lines(path, entry, keys + (str(index),), lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = keys + (str(key.value),)
        line = key.start_mark.line + 1
        if name in lines:
            raise UserError(
                f"{path}:{line}: {' → '.join(name)}: is listed twice, first in line "
                f"{lines[name]}; remove one"
            )
        lines[name] = line
        _add_lines(path, value, name, lines)
