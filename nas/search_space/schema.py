"""JSON Schemas of space, preset and recipe files, for editors: made from the configuration classes.

Types, defaults and descriptions (the docstrings below the fields) come from the classes' source,
possible values and bounds from the classes' own checks, which are asked about a few values.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.base.errors import ConfigError
from detector.base.files import write_text
from detector.base.struct import Struct
from detector.config.anchors import ANCHOR_SETS
from detector.config.presets import load_preset
from detector.config.recipe import Recipe
from detector.config.shipped import SHIPPED, shipped_files
from nas.search_space.dimensions import MAX_CHOICES
from nas.search_space.mac_budget import Budget
from nas.search_space.resolve import DERIVED, is_shared
from nas.search_space.space import NAME, SearchSpace
from nas.search_space.yaml_parts import PROMOTE
from trials.constraints import Constraints
from trials.objective import Objective

SCHEMAS = SHIPPED / "schemas"
"""The shipped ones; the first line of each shipped YAML file refers to its own."""

Schema = dict[str, Any]
_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object"}
_SCALAR: Schema = {"type": ["boolean", "number", "string"]}
_NUMBER: Schema = {"type": "number"}


def schemas() -> dict[str, Schema]:
    """The schema of each kind of file, by name."""
    detector, recipe = _struct(load_preset("retinaface_mobile025")[0]), _struct(Recipe())
    preset = {
        "detector": {"description": "What gets built.", **detector},
        "recipe": _section("How it is trained.", recipe),
    }
    changes = {"recipe": _section("What replaces a recipe's own values.", recipe)}
    return {
        "preset": _file("A preset: a design and its recipe", preset, ("detector",)),
        "recipe": _file("Changes to a recipe", changes, ()),
        "space": _space(detector, recipe),
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write NAME.schema.json of each kind into a folder; returns the paths.

    Raises:
        UserError: a file cannot be written.
    """
    paths = []
    for name, schema in schemas().items():
        paths.append(folder / f"{name}.schema.json")
        write_text(paths[-1], json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    return paths


def _file(title: str, properties: Mapping[str, Schema], required: tuple[str, ...]) -> Schema:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **_mapping(properties, required),
    }


def _mapping(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """A mapping of these keys and no others."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    return schema | {"additionalProperties": False}


# -- classes ----------------------------------------------------------------------------------


def _struct(example: Struct) -> Schema:
    """The schema of a class, all of whose fields keep the values of an example but for one when its
    checks are asked."""
    kind = type(example)
    docs = field_docs(kind)
    hints, properties, required = typing.get_type_hints(kind), {}, []
    for field in dataclasses.fields(example):
        value = getattr(example, field.name)
        if isinstance(value, Struct):
            schema = _struct(value)
        else:
            schema = _type(hints[field.name]) | _values(example, field.name)
        if docs.get(field.name):
            schema = {"description": docs[field.name], **schema}
        if field.default is not dataclasses.MISSING:
            schema["default"] = field.default
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = schema
    return _mapping(properties, tuple(required))


def _type(hint) -> Schema:
    """The schema of a field's type, as `detector.base.struct` reads it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (_type(arg) for arg in args if arg is not type(None))
        return inner | {"type": [inner["type"], "null"]}
    if origin is tuple:
        schema = {"type": "array", "items": _type(args[0])}
        count = len(args)
        return schema if args[-1] is Ellipsis else schema | {"minItems": count, "maxItems": count}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"type": "string", "enum": [member.value for member in hint]}
    if isinstance(hint, type) and issubclass(hint, Struct):  # of numbers alone
        return _struct(hint(**{field.name: 0.0 for field in dataclasses.fields(hint)}))
    return {"type": _TYPES[hint]}


def _values(example: Struct, field: str) -> Schema:
    """The values of text, and the bounds of a number, that the class's checks allow; nothing where
    they do not say."""
    hint = typing.get_type_hints(type(example))[field]
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kind = next(a for a in typing.get_args(hint) if a is not type(None)) if optional else hint
    if kind is str:
        known = re.search(r"'\?' is not one of (.+)$", _refusal(example, field, "?") or "")
        return {"enum": known[1].split(", ") + [None] * optional} if known else {}
    if kind not in (int, float):
        return {}

    def allowed(value: float) -> bool:
        return _refusal(example, field, value) is None

    bounds: Schema = {}
    small = 1 if kind is int else 1e-9
    if not allowed(-small):
        if allowed(0):
            bounds["minimum"] = 0
        elif allowed(small):
            bounds |= {"minimum": 1} if kind is int else {"exclusiveMinimum": 0}
    if kind is float and not allowed(1 + 1e-9):
        if allowed(1.0):
            bounds["maximum"] = 1
        elif allowed(1 - 1e-9):
            bounds["exclusiveMaximum"] = 1
    return bounds


def _refusal(example: Struct, field: str, value) -> str | None:
    """Why the class refuses the example with this value; None if it does not."""
    try:
        dataclasses.replace(example, **{field: value})
    except ConfigError as error:
        return str(error)
    return None


def field_docs(kind: type) -> dict[str, str]:
    """The docstrings below a class's fields, each as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in zip(tree.body, tree.body[1:])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


# -- spaces -----------------------------------------------------------------------------------


def _space(detector: Schema, recipe: Schema) -> Schema:
    docs = field_docs(SearchSpace)
    preset: Schema = {"enum": [path.stem for path in shipped_files("preset")]}
    rungs: Schema = {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
    }
    without_epochs = {k: v for k, v in recipe["properties"].items() if k != "epochs"}
    properties: dict[str, Schema] = {
        "name": {
            "description": "Studies are named after it.",
            "type": "string",
            "pattern": f"^{NAME}$",
        },
        "baseline": {
            "description": "The preset that is trial 0, and whose values designs have where no "
            "dimension varies them; with a budget also several, of which the closest one is taken.",
            "anyOf": [preset, {"type": "array", "items": preset, "minItems": 1}],
        },
        "dimensions": _dimensions(detector, recipe),
        "proxy": {"description": docs["proxy"], **recipe},
        "rungs": {"description": docs["rungs"], **rungs},
        "eta": {"description": docs["eta"], **_NUMBER, "exclusiveMinimum": 1, "default": 3},
        "promote": {"description": docs["promote"], "enum": list(PROMOTE), "default": PROMOTE[0]},
        "objective": _section(docs["objective"], _struct(Objective())),
        "constraints": _section("Caps on the cost of designs.", _struct(Constraints())),
        "proxy_synthetic": _section(docs["proxy_synthetic"], _mapping(without_epochs)),
        "proxy_long": _section(docs["proxy_long"], _mapping(without_epochs)),
        "rungs_long": {"description": docs["rungs_long"], **rungs},
        "full": _section(
            "What a full training changes in a trial's recipe, "
            "such as its crops, losses or epochs.",
            _mapping(recipe["properties"]),
        ),
        "budget": _section(docs["budget"], _struct(Budget(macs=10**9))),
    }
    required = ("name", "baseline", "dimensions", "proxy", "rungs")
    return _file("A search space", properties, required) | {
        "definitions": {
            "dimension": _dimension(),
            "bundle": _bundle(detector, recipe),
        }
    }


def _section(description: str, schema: Schema) -> Schema:
    """A part of the file, which may be empty."""
    return {"description": description, **schema, "type": ["object", "null"]}


def _settings(detector: Schema, recipe: Schema) -> dict[str, Schema]:
    """Setting → schema of its value, for all that dimensions and bundles may set."""
    found = _leaves(detector, "") | _leaves(recipe, "recipe.")
    number: Schema = {"type": "number", "exclusiveMinimum": 0}
    for name, description in DERIVED.items():
        if name == "activation":
            schema = dict(found["backbone.activation"])
        elif name == "neck.levels":
            schema = {"type": "string", "pattern": "^P[2-7](-P[2-7])?$"}
        elif name == "anchors.name":
            schema = {"enum": list(ANCHOR_SETS)}
        elif name == "backbone.kind":
            schema = dict(found[name])
        else:
            schema = dict(number)
        found[name] = schema | {"description": description[0].upper() + description[1:] + "."}
    return {name: schema for name, schema in sorted(found.items()) if not is_shared(name)}


def _leaves(schema: Schema, prefix: str) -> dict[str, Schema]:
    leaves: dict[str, Schema] = {}
    for name, one in schema["properties"].items():
        inner = "properties" in one
        leaves |= _leaves(one, f"{prefix}{name}.") if inner else {prefix + name: one}
    return {
        name: {key: value for key, value in one.items() if key != "default"}
        for name, one in leaves.items()
    }


def _dimensions(detector: Schema, recipe: Schema) -> Schema:
    scalars = {
        name: schema
        for name, schema in _settings(detector, recipe).items()
        if "array" not in schema.get("type", ())
    }
    properties = {}
    for name, value in scalars.items():
        value = dict(value)
        description = value.pop("description", "")
        properties[name] = {
            "description": description,
            "allOf": [
                {"$ref": "#/definitions/dimension"},
                {
                    "if": {"required": ["sets"]},
                    "else": {
                        "properties": {
                            "choice": {"if": {"type": "array"}, "then": {"items": value}}
                        }
                    },
                },
            ],
        }
    names_a_setting = {"properties": {"sets": {"enum": list(scalars)}}, "required": ["sets"]}
    has_bundles = {"properties": {"choice": {"type": "object"}}, "required": ["choice"]}
    return {
        "description": "What varies: a name for each dimension, which is that of a setting unless "
        "`sets` gives one or the values are bundles of settings, and its values.",
        "type": "object",
        "minProperties": 1,
        "properties": properties,
        "additionalProperties": {
            "allOf": [
                {"$ref": "#/definitions/dimension"},
                {"anyOf": [names_a_setting, has_bundles]},
            ]
        },
    }


def _dimension() -> Schema:
    def bounds(kind: str) -> Schema:
        return {"type": "array", "items": {"type": kind}, "minItems": 2, "maxItems": 2}

    values: Schema = {
        "type": "array",
        "items": _SCALAR,
        "minItems": 1,
        "maxItems": MAX_CHOICES,
    }
    properties: dict[str, Schema] = {
        "choice": {
            "description": "The values; or a mapping of names to bundles of settings.",
            "if": {"type": "object"},
            "then": {
                "minProperties": 1,
                "additionalProperties": {"$ref": "#/definitions/bundle"},
            },
            "else": values | {"uniqueItems": True},
        },
        "int": {"description": "Lowest and highest value.", **bounds("integer")},
        "float": {"description": "Lowest and highest value.", **bounds("number")},
        "log": {"description": "int and float: a log scale.", "type": "boolean"},
        "step": {
            "description": "int and float: distance of neighbouring values.",
            "type": "number",
            "exclusiveMinimum": 0,
        },
        "when": {
            "description": "Active only where each of these dimensions, which are listed above, "
            "has this value or one of these.",
            "type": "object",
            "additionalProperties": {"if": {"type": "array"}, "then": values, "else": _SCALAR},
        },
        "sets": {
            "description": "The setting that takes the value, if it is not the dimension's name.",
            "type": "string",
        },
    }
    one_kind = [{"required": [kind]} for kind in ("choice", "int", "float")]
    return _mapping(properties) | {
        "oneOf": one_kind,
        "not": {
            "anyOf": [
                {"required": ["choice", "log"]},
                {"required": ["choice", "step"]},
                {"required": ["log", "step"], "properties": {"log": {"const": True}}},
                {"required": ["choice", "sets"], "properties": {"choice": {"type": "object"}}},
            ]
        },
    }


def _bundle(detector: Schema, recipe: Schema) -> Schema:
    return _mapping(_settings(detector, recipe)) | {"minProperties": 1}
