"""YAML that remembers its lines, so that a complaint can name them. Needs PyYAML alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from detector.base.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of version 1.2: 1e-3 is a number here, too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """A YAML mapping and where its keys stand."""

    path: Path
    data: dict
    lines: dict[tuple[str, ...], int]
    """1-based line of each key; keys of keys as a path, entries of lists by their place."""

    def error(self, keys: tuple[str, ...], message: str) -> UserError:
        """A UserError that names the file, the line of the key where known, and the key."""
        line = next(
            (self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None
        )
        where = f"{self.path}:{line}" if line else f"{self.path}"
        return UserError(": ".join([where, *([" → ".join(keys)] if keys else []), message]))


def read(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is no YAML, no mapping, or has a key twice.
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
        _note_lines(path, node, (), lines)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML ({problem}); mend that line") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, such as `name: retina`")
    return Document(path, data, lines)


def _note_lines(path: Path, node, keys: tuple[str, ...], lines: dict) -> None:
    """Line of each key of a mapping and each entry of a list ("0", "1", …) into `lines`; a key that
    stands twice is an error."""
    if isinstance(node, yaml.SequenceNode):
        for place, entry in enumerate(node.value):
            lines[keys + (str(place),)] = entry.start_mark.line + 1
            _note_lines(path, entry, keys + (str(place),), lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = keys + (str(key.value),)
        line = key.start_mark.line + 1
        if name in lines:
            raise UserError(
                f"{path}:{line}: {' → '.join(name)}: stands twice, first in line "
                f"{lines[name]}; remove one"
            )
        lines[name] = line
        _note_lines(path, value, name, lines)
