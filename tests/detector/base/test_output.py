"""Commands under every locale, and with a stdout that is closed, full or without a reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.base import cli
from detector.base.output import print_wrapped

COMMAND = """
import sys
from detector.base import cli
from rich.console import Console
from rich.table import Table

def run(args):
    print("640×640 → 0.5 ± 0.1 …", "\\udcff ü")
    table = Table("a")
    table.add_row("█")
    Console().print(table)
    for line in range(int(args.lines)):
        print(line)
    return {"text": "ü×"}

parser = cli.parser("command", "Prints some lines.")
parser.add_argument("--lines", default=0)
sys.exit(cli.main(parser, run))
"""


@pytest.fixture
def call(tmp_path):
    """Function: redirections, flags, environment → the ended process, and what --json wrote."""

    def run(redirection: str = "", flags: str = "", **environment):
        (tmp_path / "command.py").write_text(COMMAND, encoding="utf-8")
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} command.py --json r.json {flags} {redirection}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **environment},
            capture_output=True,
            check=False,
        )
        result = tmp_path / "r.json"
        return done, json.loads(result.read_text(encoding="utf-8")) if result.exists() else None

    return run


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    ],
)
def test_what_ascii_lacks_is_replaced(call, environment):
    done, result = call(**environment)
    assert done.returncode == 0 and done.stderr == b"" and result == {"text": "ü×"}
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[0] == "640x640 -> 0.5 +- 0.1 ... \\udcff ?"
    assert any("#" in line for line in lines) and any("+---" in line for line in lines)


def test_latin_1_keeps_what_it_has(call):
    done, _ = call(PYTHONIOENCODING="latin-1")
    assert done.stdout.decode("latin-1").startswith("640×640 -> 0.5 ± 0.1 ... \\udcff ü\n")


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_is_told_in_one_line_after_the_work(call, lines, unbuffered):
    done, result = call("> /dev/full", f"--lines {lines}", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == cli.EXIT_PARTIAL and result is not None
    assert done.stderr.decode() == (
        "error: stdout cannot be written (No space left on device); everything else is done\n"
    )


def test_a_reader_that_has_gone_does_not_stop_the_work(call):
    done, result = call("| head -1; exit ${PIPESTATUS[0]}", "--lines 100000")
    assert (done.returncode, done.stderr) == (0, b"") and result is not None


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(call, redirection):
    done, result = call(redirection)
    assert (done.returncode, done.stderr) == (0, b"") and result is not None


def test_help_on_a_full_device(call):
    done, _ = call("> /dev/full", "--help")
    assert done.returncode == cli.EXIT_PARTIAL and done.stderr.count(b"\n") == 1


def test_an_error_is_one_printable_line_of_bounded_length(capsys):
    from detector.base.errors import UserError

    def run(args):
        raise UserError("\x1b[31mred\nline " + "x" * 100_000 + " the way out")

    assert cli.main(cli.parser("command", "Fails."), run, []) == cli.EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: \\x1b[31mred line xx") and error.endswith("the way out\n")
    assert len(error) < cli.MAX_ERROR + 50 and error.count("\n") == 1


@pytest.mark.parametrize("text", ["1e3", "-1", "0", "1.5", "", "9" * 5_000, "1000001", "²"])
def test_a_count_is_a_number_in_digits_within_bounds(text):
    with pytest.raises(cli.argparse.ArgumentTypeError):
        cli.count(text)


@pytest.mark.parametrize("text", ["-1", "1e3", str(2**32), "9" * 5_000])
def test_a_seed_is_one_that_every_library_takes(text):
    with pytest.raises(cli.argparse.ArgumentTypeError):
        cli.seed(text)
    assert cli.seed(str(2**32 - 1)) == cli.MAX_SEED


@pytest.mark.parametrize("text", ["1e999", "9" * 5_000, "nan", "inf", "-1"])
def test_a_quantity_is_finite(text):
    with pytest.raises(cli.UserError):
        cli.quantity(text, "--budget")


def test_sentences_are_broken_between_words_on_a_terminal_only(monkeypatch, capsys):
    text = "rule   one two-three four " + "x" * 25
    print_wrapped(text, "  ")
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_wrapped(text, "  ")
    assert capsys.readouterr().out.splitlines() == [
        "rule   one two-three",
        "  four",
        "  " + "x" * 25,
    ]
