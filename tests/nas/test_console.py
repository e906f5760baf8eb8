"""retina-nas: each sub-command is the command of its module."""

import runpy
import subprocess
import sys
from importlib import metadata

import pytest

from nas.__main__ import COMMANDS, main


def words(text: str, prog: str) -> str:
    """Help without the name it was called by, and without its line breaks, which depend on that."""
    return " ".join(text.split()).replace(f"usage: {prog} ", "usage: ")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_sub_command_has_the_help_of_its_module(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    here = capsys.readouterr().out
    assert here.startswith(f"usage: retina-nas {name} ")
    module = COMMANDS[name][0]
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    there = capsys.readouterr().out
    assert there.startswith(f"usage: python -m {module} ")
    assert words(here, f"retina-nas {name}") == words(there, f"python -m {module}")


def test_a_mistake_in_a_sub_command_is_named_as_typed(capsys):
    assert main(["space", "--frobnicate"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: retina-nas space: ") and "see retina-nas space --help" in error


def test_a_sub_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["space", "quick", "--draws", "5"]) == 0
    assert capsys.readouterr().out.startswith("quick: ")


def test_help_lists_all_commands(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, does) in COMMANDS.items():
        assert sum(line.split() == [name, *does.split()] for line in lines) == 1


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"retina-nas {metadata.version('retina-nas')}\n"


def test_an_unknown_command_is_one_line(capsys):
    assert main(["serch"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert error.startswith("error: 'serch' is not a command of retina-nas; there are search, ")


def test_nothing_but_the_chosen_command_is_imported():
    code = (
        "import sys\n"
        "from nas.__main__ import COMMANDS, main\n"
        "main(['--help'])\n"
        "ours = ('detector', 'trials', 'analysis', 'nas.')\n"
        "loaded = [m for m in sys.modules if m.startswith(ours) and m != 'nas.__main__']\n"
        "assert not loaded, loaded\n"
        "main(['rescore', '--frobnicate'])\n"
        "others = {module for module, _ in COMMANDS.values()} - {'nas.rescore'}\n"
        "assert 'nas.rescore' in sys.modules and not others & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_m_nas_is_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nas", "rescore", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m nas rescore ")
