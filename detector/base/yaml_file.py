"""YAML with line numbers for error messages, read within limits. Imports only PyYAML."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from detector.base.errors import UserError
from detector.base.files import read_text, reason

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
"""Keys, values and entries of lists, where what an alias stands for counts each time."""
MAX_DEPTH = 50
"""Levels of mappings and lists inside each other."""
MAX_INT = 2**63 - 1
"""Largest whole number that databases and numpy take."""

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {_TAG + "int": "a whole number", _TAG + "float": "a number"}
_TAGS = {_TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null")}
_MERGE = _TAG + "merge"


class _Refused(yaml.MarkedYAMLError):
    """What this loader does not read although YAML allows it; the problem names the way out."""

    def __init__(self, problem: str, where):
        super().__init__(problem=problem, problem_mark=where.start_mark)
        self.line = where.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    """YAML of plain data, with the numbers of version 1.2: 1e-3 is a number, 2024-01-01 is text.

    Raises a `yaml.MarkedYAMLError` for all that it cannot read, and as soon as a limit is exceeded:
    a few lines with aliases can stand for more than fits into memory.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}
        """Nodes in each complete node, itself included."""

    def compose_node(self, parent, index):
        event, before = self.peek_event(), self._nodes
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"is nested more than {MAX_DEPTH} levels deep; flatten it", event)
        node = super().compose_node(parent, index)
        assert node is not None, "its errors are exceptions"
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _Refused(f"alias *{event.anchor} is inside its own anchor; remove it", event)
            self._nodes += self._sizes[node]
        else:
            self._nodes += 1
            self._sizes[node] = self._nodes - before
            _check(node)
        if self._nodes > MAX_NODES:
            raise _Refused(
                f"the file has more than {MAX_NODES:,} keys and values up to here, those that "
                "aliases repeat included; shorten it",
                event,
            )
        return node

    def construct_object(self, node, deep=False):
        try:
            value = super().construct_object(node, deep)
        except (ValueError, IndexError, OverflowError) as error:  # of int() and float()
            text = _shortened(node.value)
            raise _Refused(f"{text} cannot be read as {_NUMBERS[node.tag]}", node) from error
        if isinstance(value, int) and abs(value) > MAX_INT:
            raise _Refused(f"{_shortened(node.value)}: must have at most 63 bits", node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _Refused(f"{_shortened(node.value)}: must be a finite number", node)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS | {_MERGE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _check(node: yaml.Node) -> None:
    """Raise a `yaml.MarkedYAMLError` for what is no plain data."""
    if node.tag not in _TAGS and node.tag != _MERGE:
        raise _Refused(f"tag {node.tag} is not supported; remove it", node)
    if isinstance(node, yaml.ScalarNode) and any("\ud800" <= c <= "\udfff" for c in node.value):
        raise _Refused(f"{node.value!r}: has half a surrogate pair, which is no character", node)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}…{text[-10:]}"


@dataclass(frozen=True)
class Document:
    """A YAML mapping and the lines of its keys."""

    path: Path
    data: dict
    lines: dict[tuple[str, ...], int]
    """1-based line of each key, by its path; list entries by index."""

    def error(self, keys: tuple, message: str) -> UserError:
        """A UserError with the file, the line of the key if known, and the key."""
        keys = tuple(map(str, keys))  # YAML has keys that are no text
        line = next(
            (self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None
        )
        where = f"{self.path}:{line}" if line else f"{self.path}"
        return UserError(": ".join([where, *([" → ".join(keys)] if keys else []), message]))


def read(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML or not a mapping, lists a key twice, or exceeds
            one of the limits above.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml"))
        hint = f"there are {', '.join(near)}" if near else "check the folder's name"
        raise UserError(f"{path}: no such file; {hint}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not text in UTF-8 (byte {error.start + 1:,}); save it in UTF-8"
        ) from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[tuple[str, ...], int] = {}
        _add_lines(path, node, (), lines)
        data = loader.construct_document(node) if node is not None else None
    except _Refused as error:
        raise UserError(f"{path}:{error.line}: {error.problem}") from error
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
