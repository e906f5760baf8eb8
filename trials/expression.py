"""Expressions for the score, such as `2 * accuracy + 1 - log10(macs / 1e8) / 3`: read, checked,
evaluated. Never run as Python: only what is listed here is known. Imports numpy when one is read.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

from detector.base.errors import ConfigError, did_you_mean, first_line
from detector.base.plugins import checked_new, plugin_faults
from detector.metrics.levels import LEVELS

COSTS = ("macs", "params", "latency_ms")
NAMES = ("accuracy", *LEVELS, *COSTS)
"""Numbers that an expression may use: AP in [0, 1], the fields of a `Cost`."""
FUNCTIONS = {
    "log": 1,
    "log2": 1,
    "log10": 1,
    "exp": 1,
    "sqrt": 1,
    "abs": 1,
    "min": None,
    "max": None,
    "clip": 3,
}
"""Name → number of arguments; None means two or more. clip(x, low, high) limits x. Plugins add
theirs."""
MAX_LENGTH = 500
"""Characters."""
MAX_DEPTH = 40
"""Operators and calls inside each other."""
MAX_EXPONENT = 100
"""Of `**`; a power with a larger one is undefined."""
MAX_SCORE = 1e6
"""Scores are within ± this; the lowest one stands for an undefined result, such as 1 / 0."""

Evaluate = Callable[[Mapping[str, Any]], Any]
"""From values by name, numbers or arrays, to a number or an array."""

_registered: dict[str, Callable[..., Any]] = {}
_ACCURACIES = (0.2, 0.5, 0.9)
_TYPICAL_COSTS = tuple(
    dict(zip(COSTS, cost))
    for cost in ((1e7, 1e4, 0.2), (1e8, 1e5, 2.0), (1e9, 1e6, 20.0), (1e10, 1e7, 200.0))
)


@dataclass(frozen=True)
class Expression:
    text: str
    names: frozenset[str]
    """Those of NAMES that it uses."""
    _evaluate: Evaluate = field(repr=False, compare=False)

    def score(self, values: Mapping[str, Any]) -> Any:
        """The score, within ± MAX_SCORE; -MAX_SCORE where it is undefined.

        Args:
            values: numbers, or float arrays that can be broadcast, by NAMES; NaN where unknown.

        Returns:
            np.float64, or a float array.
        """
        import numpy as np

        result = self._value(values)
        return np.clip(np.where(np.isfinite(result), result, -MAX_SCORE), -MAX_SCORE, MAX_SCORE)[()]

    def check(self) -> None:
        """Evaluate it on typical values, so that mistakes show before a search.

        Raises:
            ConfigError: it is undefined there, far out of range (a wrong unit), or does not rise
                with accuracy.
        """
        rises = False
        for cost in _TYPICAL_COSTS:
            scores = [self._checked(_typical(accuracy) | cost) for accuracy in _ACCURACIES]
            for low, high, before, after in zip(_ACCURACIES, _ACCURACIES[1:], scores, scores[1:]):
                if after < before:
                    raise ConfigError(
                        f"falls from {before:.4g} to {after:.4g} where accuracy rises from {low} "
                        f"to {high}{self._at(cost, ', with ')}; a search looks for the highest "
                        "score: change a sign"
                    )
                rises |= after > before
        if not rises:
            raise ConfigError(
                f"does not depend on accuracy for typical designs; use one of "
                f"{', '.join(NAMES[:-3])} so that better detectors have higher scores"
            )

    def _checked(self, values: Mapping[str, float]) -> float:
        import numpy as np

        result = float(self._value(values))
        if not np.isfinite(result):
            try:
                self._value(values, errors="raise")
                cause = "not a number"
            except FloatingPointError as error:
                cause = str(error)
            raise ConfigError(
                f"is undefined ({cause}){self._at(values, ' with ')}; "
                "limit its arguments, as in log(max(x, 0.01))"
            )
        if abs(result) > MAX_SCORE:
            raise ConfigError(
                f"is {result:.4g}{self._at(values, ' with ')}, and must be within "
                f"±{MAX_SCORE:,.0f}; divide what is large (1 G MACs are 1e9), or take its log10"
            )
        return result

    def _value(self, values: Mapping[str, Any], errors: Any = "ignore") -> Any:
        import numpy as np

        with np.errstate(all=errors, under="ignore"):
            return self._evaluate({name: np.float64(values[name]) for name in self.names})

    def _at(self, values: Mapping[str, float], before: str) -> str:
        used = [f"{name} {values[name]:g}" for name in NAMES if name in self.names & values.keys()]
        return before + ", ".join(used) if used else ""


def register_function(
    name: str, *, arguments: int = 1, vectorized: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: a plugin's function for expressions, as in `score: 2 * accuracy + name(macs)`.

    Args:
        arguments: their number.
        vectorized: whether it takes numpy arrays; otherwise it is called with single numbers, which
            is slower.

    Raises:
        ConfigError: the name is taken.
    """
    checked_new("function", name, (*FUNCTIONS, *NAMES))

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        import numpy as np

        FUNCTIONS[name] = arguments
        _registered[name] = function if vectorized else np.vectorize(function, otypes=[float])
        return function

    return register


def _shown() -> str:
    return f"known: {', '.join(NAMES)}; functions {', '.join(FUNCTIONS)}"


@lru_cache(maxsize=100)
def read_expression(text: str) -> Expression:
    """An expression from its text.

    Raises:
        ConfigError: it uses what is not known, or exceeds a limit; names the position (the first
            character is 1) and what is known.
    """
    text = " ".join(text.split())
    if not text:
        raise ConfigError("is empty; give an expression such as 2 * accuracy - log10(macs / 1e8)")
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"has {len(text):,} characters; at most {MAX_LENGTH} are allowed")
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python, about odd literals
            body = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        offset = min(error.offset or len(text) + 1, len(text) + 1)
        raise _error(text, offset, f"not an expression ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, extreme nesting
        raise ConfigError(f"not an expression ({first_line(error)}); simplify it") from error
    reader = _Reader(text)
    evaluate = reader.number(body, 1)
    return Expression(text, frozenset(reader.names), evaluate)


def _of_plugin(name: str, arguments: Sequence[Evaluate]) -> Evaluate:
    function = _registered[name]

    def evaluate(values: Mapping[str, Any]) -> Any:
        given = [argument(values) for argument in arguments]
        with plugin_faults(f"function {name} of the score"):
            return function(*given)

    return evaluate


def _typical(accuracy: float) -> dict[str, float]:
    spread = dict(zip(LEVELS, (1.05 * accuracy, accuracy, 0.95 * accuracy)))
    return {"accuracy": accuracy, **spread}


def _error(text: str, position: int, message: str) -> ConfigError:
    """An error at a character; what comes from there on is quoted."""
    rest = text[position - 1 : position + 19]
    where = f"position {position}, at {rest!r}" if rest else f"position {position}, the end"
    return ConfigError(f"{where}: {message}")


class _Reader:
    """Turns the nodes of a syntax tree into functions; refuses all that it does not know."""

    def __init__(self, text: str):
        import numpy as np

        self._np, self._text = np, text
        self.names: set[str] = set()
        self._binary: dict[type[ast.operator], Callable] = {
            ast.Add: np.add,
            ast.Sub: np.subtract,
            ast.Mult: np.multiply,
            ast.Div: np.divide,
            ast.Pow: self._power,
        }
        self._comparisons: dict[type[ast.cmpop], Callable] = {
            ast.Lt: np.less,
            ast.LtE: np.less_equal,
            ast.Gt: np.greater,
            ast.GtE: np.greater_equal,
        }

    def number(self, node: ast.expr, depth: int) -> Evaluate:
        """The function of a node whose value is a number."""
        np = self._np
        if depth > MAX_DEPTH:
            raise self._refuse(node, f"is nested more than {MAX_DEPTH} levels deep; simplify it")
        match node:
            case ast.Constant(value=int() | float() as given) if not isinstance(given, bool):
                try:
                    constant = np.float64(given)
                except OverflowError:
                    constant = np.float64("inf")
                if not np.isfinite(constant):
                    raise self._refuse(node, "the number is too large")
                return lambda values: constant
            case ast.Name(id=name):
                if name not in NAMES:
                    raise self._unknown(node, name)
                self.names.add(name)
                return lambda values: values[name]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                inner = self.number(operand, depth + 1)
                negative = isinstance(node.op, ast.USub)
                return (lambda values: -inner(values)) if negative else inner
            case ast.BinOp(left=a, op=op, right=b) if type(op) in self._binary:
                apply, left = self._binary[type(op)], self.number(a, depth + 1)
                right = self.number(b, depth + 1)
                return lambda values: apply(left(values), right(values))
            case ast.BinOp(op=ast.BitXor()):
                raise self._refuse(node, "^ is not an operator here; use ** for powers")
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(node, name, args, depth)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition = self._condition(test, depth + 1)
                then, other = self.number(body, depth + 1), self.number(orelse, depth + 1)
                return lambda values: np.where(condition(values), then(values), other(values))
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                raise self._refuse(
                    node, "a comparison is only possible as in `1 if macs < 1e9 else 0`"
                )
        raise self._refuse(
            node, f"only numbers, names, + - * / **, parentheses and functions; {_shown()}"
        )

    def _call(self, node: ast.Call, name: str, args: list[ast.expr], depth: int) -> Evaluate:
        np = self._np
        if name not in FUNCTIONS:
            raise self._unknown(node, name)
        expected = FUNCTIONS[name]
        if len(args) != expected if expected else len(args) < 2:
            wanted = "two or more arguments" if expected is None else f"{expected} arguments"
            wanted = "1 argument" if expected == 1 else wanted
            raise self._refuse(node, f"{name} takes {wanted}, here it has {len(args)}")
        inner = [self.number(argument, depth + 1) for argument in args]
        if name == "clip":
            value, low, high = inner
            return lambda values: np.minimum(np.maximum(value(values), low(values)), high(values))
        if name in ("min", "max"):
            pick = np.minimum if name == "min" else np.maximum
            return lambda values: reduce(pick, [one(values) for one in inner])
        if name in _registered:
            return _of_plugin(name, inner)
        apply, (argument,) = getattr(np, name), inner
        return lambda values: apply(argument(values))

    def _condition(self, node: ast.expr, depth: int) -> Evaluate:
        """The function of a node whose value is true or false."""
        np = self._np
        if depth > MAX_DEPTH:
            raise self._refuse(node, f"is nested more than {MAX_DEPTH} levels deep; simplify it")
        match node:
            case ast.Compare(left=first, ops=ops, comparators=others) if all(
                type(op) in self._comparisons for op in ops
            ):
                sides = [self.number(side, depth + 1) for side in (first, *others)]
                tests = [self._comparisons[type(op)] for op in ops]

                def compare(values):
                    given = [side(values) for side in sides]
                    return reduce(
                        np.logical_and, [t(a, b) for t, a, b in zip(tests, given, given[1:])]
                    )

                return compare
            case ast.BoolOp(op=op, values=parts):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                inner = [self._condition(part, depth + 1) for part in parts]
                return lambda values: reduce(join, [one(values) for one in inner])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                negated = self._condition(operand, depth + 1)
                return lambda values: np.logical_not(negated(values))
        raise self._refuse(node, "a condition compares with <, <=, > or >=; and, or, not join them")

    def _power(self, base, exponent):
        np = self._np
        return np.where(np.abs(exponent) <= MAX_EXPONENT, np.float_power(base, exponent), np.nan)

    def _unknown(self, node: ast.expr, name: str) -> ConfigError:
        if name in FUNCTIONS:
            return self._refuse(node, f"{name} is a function; write {name}(…)")
        if name in NAMES:
            return self._refuse(node, f"{name} is a number, not a function; use *")
        hint = did_you_mean(name, (*NAMES, *FUNCTIONS))
        return self._refuse(node, f"{name} is unknown; {hint}{' ' * bool(hint)}{_shown()}")

    def _refuse(self, node: ast.expr, message: str) -> ConfigError:
        before = self._text.encode()[: node.col_offset]  # offsets count bytes
        return _error(self._text, len(before.decode(errors="ignore")) + 1, message)
