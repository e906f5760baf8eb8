"""How every command behaves: one-line errors, exit codes, files written whole. Light to import."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from detector.base.errors import UserError
from detector.base.process import collect_seldom

FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
EXIT_PARTLY = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Partly(Exception):
    """The command did what it could, but not all; its message is one line on stderr."""

    def __init__(self, message: str, result: dict | None = None):
        """`result`: what --json writes all the same."""
        super().__init__(message)
        self.result = result


class Parser(argparse.ArgumentParser):
    """argparse whose error is one line (the usage stands in --help)."""

    def error(self, message: str):
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def parser(prog: str, description: str) -> Parser:
    """A parser with the flag every command has, --json.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    made = Parser(
        prog=f"python -m {prog}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        dest="json_file",
        help="write the result as JSON to FILE, too",
    )
    return made


def size(text: str) -> tuple[int, int]:
    """(height, width) px from WIDTHxHEIGHT, an argparse type."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be WIDTHxHEIGHT in pixels, such as 640x480"
        )
    return int(height), int(width)


def count(text: str) -> int:
    """A whole number of at least 1, an argparse type."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def quantity(text: str, flag: str) -> float:
    """ "1G" → 1e9, "1.5M" → 1.5e6, "20" → 20.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?|\.\d+)([kmg]?)", text.strip().lower())
    if match is None:
        raise UserError(
            f"{flag} {text!r}: must be a number at least 0, with k, M or G where you "
            "like, such as 1.5G"
        )
    return float(match[1]) * FACTORS[match[2]]


def main(
    made: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], dict | None],
    argv: list[str] | None = None,
) -> int:
    """Parse, run, write the JSON result.

    Returns:
        The exit code: 0; 1 where a part could not be done, 2 for what the user can mend (one line
        on stderr each); 130 after Ctrl-C.
    """
    collect_seldom()
    try:
        args = made.parse_args(argv)
        if args.json_file is not None and not args.json_file.parent.is_dir():
            raise UserError(
                f"--json {args.json_file}: folder {args.json_file.parent} does not "
                "exist; make it first"
            )
        partly = None
        try:
            result = run(args)
        except Partly as error:
            partly, result = error, error.result
        if args.json_file is not None and result is not None:
            write_text(args.json_file, json.dumps(result, indent=2) + "\n")
        if partly is not None:
            print(f"error: {' '.join(str(partly).split())}", file=sys.stderr)
            return EXIT_PARTLY
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def write_text(path: Path, text: str) -> None:
    """Write all of `text` or nothing: aside first, then renamed.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.chmod(aside, 0o644)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
        ) from error
