"""Text is read and written in UTF-8 whatever the locale is: every call says so."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for package in ("detector", "trials", "nas", "analysis")
    for path in (ROOT / package).rglob("*.py")
)


def calls_without_encoding(tree: ast.Module) -> list[str]:
    """Calls of open(), and of a path's read_text and write_text, for text without an encoding."""
    own = {  # functions of ours with these names
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or "encoding" in {k.arg for k in node.keywords}:
            continue
        function = node.func
        if isinstance(function, ast.Name):
            opens_text = function.id == "open" and "open" not in own
        else:
            opens_text = isinstance(function, ast.Attribute) and (
                function.attr in ("read_text", "write_text")
                and not (isinstance(function.value, ast.Name) and function.value.id in own)
            )
        modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
        binary = any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in modes)
        if opens_text and not binary:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_files_are_opened_with_an_encoding(path):
    assert not calls_without_encoding(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("call", ["open(p)", "open(p, 'w')", "p.read_text()", "p.write_text(t)"])
def test_the_check_finds_each_kind_of_call(call):
    assert calls_without_encoding(ast.parse(call))
    assert not calls_without_encoding(ast.parse("open(p, 'rb'); p.read_text(encoding='utf-8')"))
