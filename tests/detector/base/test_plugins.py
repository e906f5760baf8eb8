"""Plugins: read, run once, and what is said about wrong ones."""

import sys

import pytest
from helpers import registrations_undone

from detector.base import cli
from detector.base.errors import ConfigError, UserError
from detector.base.plugins import (
    MODULE_PREFIX,
    checked_new,
    load_plugin,
    loaded_plugins,
    plugin_faults,
)

REGISTERS = """\
from trials.expression import register_function

@register_function("half")
def half(x):
    return x / 2
"""


@pytest.fixture(autouse=True)
def undone():
    with registrations_undone():
        yield


def plugin(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plugin_runs_once(tmp_path):
    path = plugin(tmp_path, REGISTERS)
    load_plugin(path)
    load_plugin(str(path))  # a second registration would be refused
    (loaded,) = loaded_plugins()
    assert (loaded.name, loaded.path, loaded.text) == ("mine.py", path.resolve(), REGISTERS)
    assert sys.modules[MODULE_PREFIX + "mine"].half(4) == 2


def test_a_copy_of_a_loaded_plugin_is_not_run_again(tmp_path):
    load_plugin(plugin(tmp_path, REGISTERS))
    (tmp_path / "copy").mkdir()
    load_plugin(plugin(tmp_path / "copy", REGISTERS))
    assert len(loaded_plugins()) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ny = (\n", r"line 2: SyntaxError: '\(' was never closed"),
        ("x = 1\n\nz = missing\n", "line 3: NameError: name 'missing' is not defined"),
        ("import nothing_like_this\n", "line 1: ModuleNotFoundError: No module named 'nothing_"),
        (REGISTERS.replace("half", "log"), "line 3: function 'log' exists already; choose another"),
        (REGISTERS.replace('"half"', '"Half"'), "line 3: function 'Half': use lower-case letters"),
    ],
)
def test_a_plugin_that_fails_is_refused_with_its_line(tmp_path, text, told):
    path = plugin(tmp_path, text)
    with pytest.raises(UserError, match=rf"^--plugin {path}: {told}"):
        load_plugin(path)
    assert loaded_plugins() == [] and MODULE_PREFIX + "mine" not in sys.modules


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.py", "cannot be read .No such file or directory.; give a Python file"),
        ("my-plugin.py", "letters, digits and underscores"),
        ("mine.txt", "must be a Python file"),
    ],
)
def test_a_path_that_is_no_plugin(tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        load_plugin(tmp_path / name)


def test_another_plugin_of_the_same_name(tmp_path):
    load_plugin(plugin(tmp_path, REGISTERS))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="which has the same name, is loaded already; rename"):
        load_plugin(plugin(tmp_path / "other", "x = 1\n"))


def test_text_that_is_not_utf_8(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = '\xff'\n")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        load_plugin(path)


@pytest.mark.parametrize("name", ["", "a b", "9a", "a-b", "log"])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ConfigError):
        checked_new("loss", name, ["log"])


def test_what_a_plugin_raises_later_names_its_line():
    told = r"^neck.kind x fails: KeyError: 3 \(test_plugins.py, line \d+\); mend the plugin$"
    with pytest.raises(ConfigError, match=told), plugin_faults("neck.kind x"):
        raise KeyError(3)
    with pytest.raises(UserError, match=r"^own words$"), plugin_faults("neck.kind x"):
        raise UserError("own words")


def test_every_command_takes_plugins_before_its_other_flags(tmp_path, capsys):
    """A flag may have a value that a plugin registers, wherever --plugin stands."""
    path = plugin(
        tmp_path,
        "from nas.samplers.proposer import SAMPLERS, register_sampler\n"
        "@register_sampler('mine', description='one of my own')\n"
        "class Mine: ...\n",
    )
    from nas.samplers.proposer import SAMPLERS

    parser = cli.parser("x", "description")
    parser.add_argument("--sampler", choices=SAMPLERS)
    seen = []

    def run(args):
        seen.append((args.sampler, args.plugin))

    assert cli.main(parser, run, ["--sampler", "mine", "--plugin", str(path)]) == 0
    assert seen == [("mine", [str(path)])]
    assert cli.main(parser, run, ["--plugin"]) == 2
    assert "expected one argument" in capsys.readouterr().err
    assert cli.main(parser, run, [f"--plugin={tmp_path / 'no.py'}"]) == 2
    assert "no.py: cannot be read (No such file" in capsys.readouterr().err
