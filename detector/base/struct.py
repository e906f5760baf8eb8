"""Frozen dataclasses to and from plain data (YAML, JSON); unknown keys, wrong types are errors."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Self

from detector.base.errors import ConfigError, did_you_mean

_SCALARS = frozenset({int, float, str, bool, type(None)})
Reader = Callable[[typing.Any, str], typing.Any]
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
        readers = _readers(cls)  # type: ignore[arg-type]  # classes are hashable: python/mypy#11470
        if not data.keys() <= readers.keys():
            key = next(key for key in data if key not in readers)
            hint = did_you_mean(str(key), readers) or f"known keys: {', '.join(readers)}"
            raise ConfigError(f"{prefix}{key}: unknown key; {hint}")
        required = _required(cls)  # type: ignore[arg-type]
        if not required <= data.keys():
            raise ConfigError(f"{prefix}{min(required - data.keys())}: missing key; add it")
        return cls(**{key: readers[key](value, prefix + key) for key, value in data.items()})

    def to_dict(self) -> dict:
        """Plain data (dicts, lists, scalars) with every field."""
        return {name: _plain(getattr(self, name)) for name in _names(type(self))}  # type: ignore[arg-type]


@cache
def _readers(cls) -> dict[str, Reader]:
    """By the names of the fields."""
    return {name: _reader(hint) for name, hint in typing.get_type_hints(cls).items()}


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
def _reader(hint) -> Reader:
    """Function: a value, where it stands → the value as the type `hint`; ConfigError if it is of
    another type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        read = _reader(next(a for a in args if a is not type(None)))
        if type(None) not in args:
            return read
        return lambda value, where: None if value is None else read(value, where)
    if origin is tuple:
        return _reader_of_tuples(args)
    if not isinstance(hint, type):
        raise TypeError(f"fields of type {hint} cannot be read")
    if issubclass(hint, Struct):
        return lambda value, where: (
            value if isinstance(value, hint) else hint.from_dict(value, where)
        )
    if issubclass(hint, enum.Enum):
        return _reader_of_enum(hint)

    def read_scalar(value, where):
        if type(value) is hint:
            return value
        if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise ConfigError(f"{where}: {value!r} is too large a number") from None
        if hint is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            return int(value)
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise ConfigError(f"{where}: {value!r} must be {_NAMES.get(hint, hint.__name__)}")
        return value

    return read_scalar


def _reader_of_tuples(types_of_entries: tuple) -> Reader:
    first = types_of_entries[0]
    if types_of_entries[-1] is Ellipsis:
        read_entry = _reader(first)

        def read_any(value, where):
            _check_list(value, where)
            if set(map(type, value)) <= {first}:  # most are plain already
                return tuple(value)
            return tuple(read_entry(v, f"{where}[{i}]") for i, v in enumerate(value))

        return read_any
    readers = [_reader(hint) for hint in types_of_entries]

    def read_fixed(value, where):
        _check_list(value, where)
        if len(value) != len(readers):
            raise ConfigError(f"{where}: {value!r} must have {len(readers)} entries")
        return tuple(read(v, f"{where}[{i}]") for i, (read, v) in enumerate(zip(readers, value)))

    return read_fixed


def _check_list(value, where: str) -> None:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: {value!r} must be a list")


def _reader_of_enum(kind: type[enum.Enum]) -> Reader:
    members = {member.value: member for member in kind}

    def read(value, where):
        try:
            return members[value]
        except (KeyError, TypeError):
            raise ConfigError(
                f"{where}: {value!r} is not one of {', '.join(map(str, members))}"
            ) from None

    return read
