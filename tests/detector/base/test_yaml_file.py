"""YAML within limits: what a few lines can stand for, and what is no plain data."""

import time

import pytest

from detector.base import yaml_file
from detector.base.errors import UserError
from detector.base.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_NODES, read

NINE = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{previous}'])}]\n"
    for previous, name in zip("abcdefgh", "bcdefghi")
)
MERGES = "m: &m {k: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join(9 * [f'*m{n - 1 or str()}'])}]}}\n" for n in range(1, 9)
)
REFUSED = {
    "nine levels of aliases": (NINE, ":5: the file has more than 50,000 keys and values"),
    "nine levels of merges": (MERGES, f"more than {MAX_NODES:,} keys and values"),
    "alias of itself": ("a: &a [*a]\n", ":1: alias *a is inside its own anchor"),
    "alias of a mapping in itself": ("a: &a {b: {c: *a}}\n", "inside its own anchor"),
    "merge of itself": ("a: &a {<<: *a}\n", "inside its own anchor"),
    "unknown alias": ("a: *b\n", "not valid YAML (found undefined alias"),
    "deep list": (f"a: {'[' * 20_000}\n", f":1: is nested more than {MAX_DEPTH} levels deep"),
    "deep mapping": (f"a: {'{b: ' * 200}1{'}' * 200}\n", "levels deep"),
    "digits": (f"a: {'9' * 5_000}\n", ":1: 99999999999999999999…9999999999 cannot be read as a"),
    "hexadecimal digits": (f"a: 0x{'f' * 5_000}\n", "must have at most 63 bits"),
    "64 bits": (f"a:\n  b: {2**63}\n", ":2: 9223372036854775808: must have at most 63 bits"),
    "infinity": ("a: [1, -.inf]\n", ":1: -.inf: must be a finite number"),
    "not a number": ("a: .NaN\n", "must be a finite number"),
    "overflow": ("a: 1e400\n", "must be a finite number"),
    "lone surrogate": ('a: "\\ud800"\n', "half a surrogate pair"),
    "lone surrogate in a key": ('"\\udfff": 1\n', "half a surrogate pair"),
    "empty int": ('a: !!int ""\n', "cannot be read as a whole number"),
    "wrong float": ("a: !!float b\n", "b cannot be read as a number"),
    "python": ("a: !!python/object/apply:os.getcwd []\n", "is not supported; remove it"),
    "binary": ("a: !!binary aGk=\n", "is not supported; remove it"),
    "set": ("a: !!set {b}\n", "is not supported; remove it"),
    "list as a key": ("? [a]\n: b\n", "not valid YAML (found unhashable key)"),
    "key twice": ("a: 1\nb: {c: 1, c: 2}\n", ":2: b → c: is listed twice"),
    "key twice as JSON": ('{"a": 1, "a": 2}\n', ":1: a: is listed twice, first in line 1"),
    "tab": ("a:\n\tb: 1\n", ":2: not valid YAML"),
    "NUL": ("a: b\0\n", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 1\n", "not valid YAML"),
    "empty": ("", "must be a mapping"),
    "list": ("- a\n", "must be a mapping"),
    "text": ("a\n", "must be a mapping"),
}


@pytest.fixture
def written(tmp_path):
    """Function: content → path of a file with it."""

    def write(content: str | bytes):
        path = tmp_path / "x.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_at_once(written, name):
    text, message = REFUSED[name]
    started = time.process_time()
    with pytest.raises(UserError) as error:
        read(written(text))
    assert message in str(error.value) and len(str(error.value)) < 400
    assert time.process_time() - started < 10


@pytest.mark.parametrize("text", ["\ufeffa: 1\nb: 2\n", "a: 1\r\nb: 2\r\n", '{"a": 1,\n "b": 2}'])
def test_other_editors_files_are_read(written, text):
    document = read(written(text))
    assert document.data == {"a": 1, "b": 2} and document.lines["b",] == 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_named(written, encoding):
    with pytest.raises(UserError, match=r"is not text in UTF-8 \(byte \d+\); save it in UTF-8"):
        read(written("a: grün\n".encode(encoding)))


def test_a_large_file_is_not_read(written):
    path = written("a: 1\n")
    with open(path, "r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"has 1\.0 MB; at most 1\.0 MB are read"):
        read(path)


def test_shared_values_are_allowed_within_the_limits(written, monkeypatch):
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n"
    path = written(text)
    shared = {"x": 1, "y": [1, 2]}
    assert read(path).data == {"a": shared, "b": {**shared, "x": 2}, "c": [shared, shared]}
    # keys, values, lists and mappings: a 8, b 13, c 18, and the document itself
    monkeypatch.setattr(yaml_file, "MAX_NODES", 37)
    read(path)
    monkeypatch.setattr(yaml_file, "MAX_NODES", 36)
    with pytest.raises(UserError, match="more than 36"):
        read(path)


def test_dates_are_text_and_keys_need_not_be(written):
    document = read(written("a: 2024-13-45\n1: 2\n"))
    assert document.data == {"a": "2024-13-45", 1: 2}
    assert str(document.error((1,), "unknown key")).endswith(":2: 1: unknown key")
