"""retina-nas: every subcommand is the command of its module."""

import runpy
import subprocess
import sys
from importlib import metadata

import pytest

from nas.__main__ import COMMANDS, main


def words(text: str, prog: str) -> str:
    """The help text without the program's name, and without line breaks, which depend on it."""
    return " ".join(text.split()).replace(f"usage: {prog} ", "usage: ")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_the_help_of_its_module(name, monkeypatch, capsys):
    """Which fits on 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    subcommand_help = capsys.readouterr().out
    assert subcommand_help.startswith(f"usage: retina-nas {name} ")
    module = COMMANDS[name][0]
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    module_help = capsys.readouterr().out
    assert module_help.startswith(f"usage: python -m {module} ")
    assert words(subcommand_help, f"retina-nas {name}") == words(module_help, f"python -m {module}")
    assert max(map(len, module_help.splitlines())) <= 80


def test_an_error_names_the_subcommand_as_typed(capsys):
    assert main(["space", "--frobnicate"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: retina-nas space: ") and "see retina-nas space --help" in error


def test_a_subcommand_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["space", "quick", "--draws", "5"]) == 0
    assert capsys.readouterr().out.startswith("quick: ")


def test_help_lists_all_commands(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, summary) in COMMANDS.items():
        assert sum(line.split() == [name, *summary.split()] for line in lines) == 1


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"retina-nas {metadata.version('retina-nas')}\n"


def test_an_unknown_command_is_one_line(capsys):
    assert main(["serch"]) == 2
    out, error = capsys.readouterr()
    assert (out, error) == (
        "",
        "error: 'serch' is not a command of retina-nas; did you mean search?\n",
    )
    main(["fly"])
    assert capsys.readouterr().err.startswith(
        "error: 'fly' is not a command of retina-nas; choose from search, "
    )


def test_a_mistyped_flag_has_a_hint(capsys):
    assert main(["search", "--space", "quick", "--trails", "4"]) == 2
    assert "unrecognized arguments: --trails 4; did you mean --trials? see" in (
        capsys.readouterr().err
    )


def test_only_the_chosen_command_is_imported():
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
    process = subprocess.run(
        [sys.executable, "-m", "nas", "rescore", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.startswith("usage: python -m nas rescore ")
