"""Shell completion: the scripts of all shells, and what bash completes with its own."""

import shutil
import subprocess

import pytest

from nas.__main__ import COMMANDS, main
from nas.terminal.completion import SHELLS

COMPLETE = r"""
source ./script
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMP_TYPE=9
spec=$(complete -p retina-nas)
[[ $spec =~ -F\ ([^ ]+) ]] && "${BASH_REMATCH[1]}" retina-nas "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path, capsys):
    """Function: words of a command line, the last one unfinished → what bash offers for it."""
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "complete").write_text(COMPLETE)

    def offered(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "complete", "retina-nas", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return sorted(line.strip() for line in done.stdout.splitlines() if line.strip())

    return offered


def test_bash_completes_commands_flags_and_values(complete, tmp_path):
    assert complete("sea") == ["search"]
    assert set(complete("")) >= set(COMMANDS)
    assert complete("search", "--sp") == ["--space"]
    assert complete("rescore", "--obj") == ["--objective"]
    assert complete("search", "--scheduler", "h") == ["halving"]
    assert complete("retrain", "--preset", "yunet") == ["yunet_n", "yunet_s"]
    (tmp_path / "runs" / "retina-001").mkdir(parents=True)
    (tmp_path / "my_space.yaml").write_text("")
    assert complete("choose", "--study", "ret") == ["retina-001"]
    assert complete("search", "--space", "my_") == ["my_space.yaml"]
    assert complete("search", "--runs-dir", "ru") == ["runs"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell, tmp_path, capsys):
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS) and "space" in script
    (tmp_path / "script").write_text(script)
    if shutil.which(shell):
        subprocess.run([shell, "-n", "script"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("words", [[], ["ksh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_one_line(words, capsys):
    assert main(["--print-completion", *words]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error == "error: --print-completion: name a shell: bash, zsh, fish\n"
