"""Expressions: values by hand, what is refused and where, and that nothing else is evaluated."""

import math

import numpy as np
import pytest

from detector.base.errors import ConfigError
from trials.expression import MAX_LENGTH, MAX_SCORE, read_expression

VALUES = {
    "accuracy": 0.5,
    "easy": 0.6,
    "medium": 0.5,
    "hard": 0.4,
    "macs": 1e9,
    "params": 4e5,
    "latency_ms": 8.0,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * accuracy + 1 - log10(macs / 1e8) / 3", 2 * 0.5 + 1 - 1 / 3),
        ("-accuracy ** 2", -0.25),
        ("(easy + 2 * hard) / 3 - .5", 1.4 / 3 - 0.5),
        ("2 ** 3 ** 2", 512),
        ("log2(latency_ms) + log(params) - sqrt(4) + exp(0)", 3 + math.log(4e5) - 1),
        ("min(easy, medium, hard) + max(1, 2) + abs(-3)", 5.4),
        ("clip(latency_ms, 10, 20) + clip(5, 0, 1)", 11),
        ("accuracy if macs < 2e9 and not params > 1e6 else 0", 0.5),
        ("1 if 0.1 < accuracy <= 0.4 or hard >= 1 else -1", -1),
        ("1\n  + 1", 2),
        ("+1_000 * 0x10", 16_000),
    ],
)
def test_values_by_hand(text, value):
    assert read_expression(text).score(VALUES) == pytest.approx(value, rel=1e-14)


def test_arrays_are_evaluated_element_by_element():
    expression = read_expression("accuracy if macs < 5e8 else max(accuracy - log10(macs), 0.25)")
    accuracy = np.array([[0.1, 0.9], [0.3, 0.7]])
    macs = np.array([1e8, 1e9])
    assert expression.names == {"accuracy", "macs"}
    assert expression.score({"accuracy": accuracy, "macs": macs}).tolist() == [
        [0.1, 0.25],
        [0.3, 0.25],
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 / (accuracy - 0.5)", -MAX_SCORE),
        ("log(accuracy - 0.5)", -MAX_SCORE),
        ("log(accuracy - 1)", -MAX_SCORE),
        ("(-accuracy) ** 0.5", -MAX_SCORE),
        ("2 ** 101", -MAX_SCORE),
        ("exp(macs)", -MAX_SCORE),
        ("macs", MAX_SCORE),
        ("-macs", -MAX_SCORE),
        ("min(1 / (accuracy - 0.5), 3)", 3),  # infinity has its usual order
    ],
)
def test_undefined_results_are_the_lowest_score_without_a_warning(text, value):
    assert read_expression(text).score(VALUES) == value


def test_unknown_latency_is_undefined():
    expression = read_expression("accuracy - latency_ms / 100")
    assert expression.score(VALUES | {"latency_ms": math.nan}) == -MAX_SCORE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give an expression"),
        ("accuracy + mac", "position 12, at 'mac': mac is unknown; did you mean macs? known: acc"),
        ("accuracy * speed", "position 12, at 'speed': speed is unknown; known: accuracy, easy"),
        ("accuracy +", "position 11, the end: not an expression (invalid syntax)"),
        ("2 × accuracy", "position 3, at '× accuracy': not an expression (invalid character"),
        ("(accuracy", "position 1, at '(accuracy': not an expression ('(' was never closed)"),
        ("é + x", "position 1, at 'é + x': é is unknown"),
        ("accuracy + é + x", "position 12, at 'é + x': é is unknown"),
        ("accuracy + log", "position 12, at 'log': log is a function; write log(…)"),
        ("macs(2)", "macs is a number, not a function; use *"),
        ("log(2, 3)", "log takes 1 argument, here it has 2"),
        ("min(2)", "min takes two or more arguments, here it has 1"),
        ("clip(2)", "clip takes 3 arguments, here it has 1"),
        ("accuracy ^ 2", "^ is not an operator here; use ** for powers"),
        ("accuracy > 0.5", "a comparison is only possible as in"),
        ("1 if accuracy else 0", "a condition compares with <, <=, > or >="),
        ("1 if accuracy == 1 else 0", "a condition compares with <, <=, > or >="),
        ("1e999", "the number is too large"),
        ("9" * 400, "the number is too large"),
        ("+".join(["accuracy"] * 60), f"characters; at most {MAX_LENGTH} are allowed"),
        ("-" * 60 + "1", "is nested more than 40 levels deep"),
        ("(" * 240 + "1" + ")" * 240, "not an expression (too many nested parentheses)"),
        ("1 if " * 99 + "1", "not an expression"),
        ("accuracy\0", "not an expression"),
    ],
)
def test_what_is_refused_and_where(text, message):
    with pytest.raises(ConfigError) as error:
        read_expression(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "accuracy.__class__",
        "(lambda: 1)()",
        "[1, 2]",
        "{1: 2}",
        "'text'",
        "f'{accuracy}'",
        "True",
        "None",
        "1j",
        "accuracy[0]",
        "[x for x in (1,)]",
        "(x := 1)",
        "log(x=1)",
        "max(*[1, 2])",
        "1 @ 2",
        "7 // 2",
        "7 % 2",
        "1 << 9",
        "~1",
        "not 1",
        "1; 2",
        "yield 1",
        "eval('1')",
        "log.__call__(1)",
        "(log)(1)(2)",
    ],
)
def test_nothing_else_of_python_is_known(text):
    with pytest.raises(ConfigError):
        read_expression(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy + 1 / abs(macs - 1e9)", "is undefined (divide by zero encountered in divide)"),
        ("accuracy + log(macs - 1e9)", "is undefined (invalid value encountered in log) with accu"),
        ("accuracy * 2 ** 101", "is undefined (not a number) with accuracy 0.2"),
        ("2 * accuracy - macs", "is -1e+07 with accuracy 0.2, macs 1e+07, and must be within"),
        ("1 - accuracy", "falls from 0.8 to 0.5 where accuracy rises from 0.2 to 0.5"),
        ("-easy * log10(macs)", "falls from -1.47 to -3.675 where accuracy rises from 0.2 to 0.5"),
        ("log10(1e11 / macs)", "does not depend on accuracy for typical designs; use one of"),
        ("3", "does not depend on accuracy"),
    ],
)
def test_mistakes_that_typical_values_show(text, message):
    with pytest.raises(ConfigError) as error:
        read_expression(text).check()
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy",
        "hard - latency_ms / 1000",
        "accuracy if macs < 5e7 else accuracy - 1",
        "min(accuracy, 0.8) - 1000 * max(0, latency_ms - 50)",
        "log(max(accuracy, 0.01)) - 0.07 * log2(params)",
        "accuracy * (latency_ms / 80) ** -0.07",  # MnasNet's
    ],
)
def test_sensible_ones_pass(text):
    read_expression(text).check()
