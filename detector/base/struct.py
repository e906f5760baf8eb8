"""Frozen dataclasses to and from plain data (YAML, JSON); unknown keys, wrong types are errors."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from functools import cache
from typing import Self

from detector.base.errors import ConfigError

_SCALARS = frozenset({int, float, str, bool, type(None)})
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Struct:
    """Base class of the configuration dataclasses; `from_dict` is the inverse of `to_dict`."""

    @classmethod
    def from_dict(cls, data: dict, where: str = "") -> Self:
        """An instance from plain data.

        Args:
            data: an entry per field; fields with a default may be missing.
            where: prefix of error messages, such as "retina.yaml: detector".

        Raises:
            ConfigError: an unknown or missing key, or a value of the wrong type.
        """
        prefix = f"{where}." if where else ""
        if not isinstance(data, dict):
            raise ConfigError(
                f"{where or cls.__name__}: {data!r} must be a mapping of keys to values"
            )
        hints = _hints(cls)  # type: ignore[arg-type]  # classes are hashable: python/mypy#11470
        for key in data:
            if key not in hints:
                close = difflib.get_close_matches(str(key), hints, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(hints)}"
                raise ConfigError(f"{prefix}{key}: unknown key; {hint}")
        required = _required(cls)  # type: ignore[arg-type]
        for key in sorted(required - data.keys()):
            raise ConfigError(f"{prefix}{key}: missing key; add it")
        return cls(
            **{
                key: value if type(value) is hints[key] else _read(hints[key], value, prefix + key)
                for key, value in data.items()
            }
        )

    def to_dict(self) -> dict:
        """Plain data (dicts, lists, scalars) with every field."""
        return {name: _plain(getattr(self, name)) for name in _names(type(self))}  # type: ignore[arg-type]


@cache
def _hints(cls) -> dict[str, typing.Any]:
    return typing.get_type_hints(cls)


@cache
def _names(cls) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def _required(cls) -> frozenset[str]:
    missing = dataclasses.MISSING
    return frozenset(
        f.name
        for f in dataclasses.fields(cls)
        if f.default is missing and f.default_factory is missing
    )


def _plain(value):
    if type(value) in _SCALARS:  # most values are
        return value
    if isinstance(value, Struct):
        return value.to_dict()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


@cache
def _origin_and_args(hint) -> tuple[typing.Any, tuple]:
    return typing.get_origin(hint), typing.get_args(hint)


def _read(hint, value, where: str):
    """`value` as the type `hint`; raises ConfigError if it is of another type."""
    if type(value) is hint:
        return value
    origin, args = _origin_and_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _read(next(a for a in args if a is not type(None)), value, where)
    if isinstance(hint, type) and issubclass(hint, Struct):
        return value if isinstance(value, hint) else hint.from_dict(value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: {value!r} must be a list")
        if args[-1] is Ellipsis and set(map(type, value)) <= {args[0]}:
            return tuple(value)
        if args[-1] is Ellipsis:
            return tuple(_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise ConfigError(f"{where}: {value!r} must have {len(args)} entries")
        return tuple(_read(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in {member.value for member in hint}:
            raise ConfigError(
                f"{where}: {value!r} is not one of "
                f"{', '.join(str(member.value) for member in hint)}"
            )
        return hint(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: {value!r} must be {_NAMES.get(hint, hint.__name__)}")
    return value
