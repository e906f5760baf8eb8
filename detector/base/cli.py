"""How every command behaves: one-line errors, exit codes, --json. Imports no torch."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from detector.base.errors import UserError, did_you_mean
from detector.base.files import file_error, is_folder, write_text
from detector.base.output import safe_output
from detector.base.plugins import load_plugins
from detector.base.process import (
    StopRequest,
    disable_telemetry,
    limit_opencv,
    quieten_opencv,
    relax_gc,
    stopped_by_signals,
)

FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
PACKAGES = ("detector", "trials", "nas", "analysis")
"""Those whose log messages the user sees."""
EXIT_PARTIAL = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_SIGNALED = 128
"""Plus the number of the signal, as shells have it."""
MAX_ERROR = 4_000
"""Longest error in characters; a longer one, which quotes a huge value, loses its middle."""
MAX_COUNT = 1_000_000
"""Largest number of things that a flag can ask for."""
MAX_SIDE = 65_500
"""Largest side of an image in px: JPEG's, rounded."""
MAX_SEED = 2**32 - 1
"""Largest seed that Python, numpy and torch all take."""


class PartialFailure(Exception):
    """The command did only a part of its work; the message is one line on stderr."""

    def __init__(self, message: str, result: dict | None = None):
        """`result`: what --json still writes."""
        super().__init__(message)
        self.result = result


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors (without the usage, which --help shows)."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: --"):
            flag = message.split()[2].partition("=")[0]
            hint = did_you_mean(flag, self._option_string_actions)
        raise UserError(
            f"{self.prog}: {message}; {hint + ' ' if hint else ''}see {self.prog} --help"
        )


class _HelpFormatter(argparse.HelpFormatter):
    """Fills the paragraphs of a description to the terminal's width; those with indented lines,
    which are examples, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [
            paragraph
            if any(line.startswith(" ") for line in paragraph.splitlines())
            else textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False)
            for paragraph in text.split("\n\n")
        ]
        return "\n\n".join(paragraphs)


def parser(prog: str, description: str) -> Parser:
    """A parser with the flags that every command has, --json and --plugin.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    command_parser = Parser(
        prog=f"python -m {prog}",
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    command_parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        dest="json_file",
        help="also write the result to FILE as JSON",
    )
    add_plugin_flag(command_parser)
    return command_parser


def add_plugin_flag(command_parser: argparse.ArgumentParser) -> None:
    command_parser.add_argument(
        "--plugin",
        metavar="FILE",
        action="append",
        help="Python file that registers backbones, losses, samplers and the like of your own "
        "(docs/plugins.md); may be repeated. It runs with your rights: name only files you trust",
    )


def named_plugins(argv: list[str] | None) -> list[str]:
    """The values of --plugin; wrong arguments are left to the command's own parser."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--plugin", action="append", nargs="?", default=[])
    return [path for path in finder.parse_known_args(argv)[0].plugin if path is not None]


def size(text: str) -> tuple[int, int]:
    """(height, width) px from WIDTHxHEIGHT, an argparse type."""
    width, _, height = text.lower().partition("x")
    if not all(side.isdecimal() and 0 < int(side[:20]) <= MAX_SIDE for side in (width, height)):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be WIDTHxHEIGHT in pixels, each at most {MAX_SIDE}, such as 640x480"
        )
    return int(height), int(width)


def count(text: str) -> int:
    """A positive integer, an argparse type."""
    if not text.isdecimal() or not 0 < int(text[:20]) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a whole number from 1 to {MAX_COUNT:,}, written in digits"
        )
    return int(text)


def seed(text: str) -> int:
    """A random seed, an argparse type."""
    if not text.isdecimal() or int(text[:20]) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 to {MAX_SEED}")
    return int(text)


def quantity(text: str, flag: str) -> float:
    """ "1G" → 1e9, "1.5M" → 1.5e6, "20" → 20.

    Raises:
        UserError: `text` is not of this form.
    """
    match = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?|\.\d+)([kmg]?)", text.strip().lower())
    value = float(match[1]) * FACTORS[match[2]] if match else math.inf
    if not math.isfinite(value):
        raise UserError(
            f"{flag} {text!r}: must be a number of at least 0, optionally followed by k, M or G, "
            "such as 1.5G"
        )
    return value


class MessageHandler(logging.Handler):
    """Prints log messages on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Shows log messages of this project's packages, from INFO on."""
    handler, loggers = MessageHandler(), [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _print_error(message: str) -> None:
    """Print an error in one line, whatever the values are that it quotes."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    if len(line) > MAX_ERROR:
        line = f"{line[: MAX_ERROR // 2]} … {line[-MAX_ERROR // 2 :]}"
    print(f"error: {line}", file=sys.stderr)


def main(
    command_parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], dict | None],
    argv: list[str] | None = None,
) -> int:
    """Parse, run, write the JSON result.

    Returns:
        The exit code: 0; 1 if only a part was done, 2 for an error that the user can fix (each with
        one line on stderr); 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    relax_gc()
    disable_telemetry()
    limit_opencv()
    quieten_opencv()
    with safe_output() as output, stopped_by_signals() as request:
        try:
            code: int | None = _main(command_parser, run, argv, request)
        except SystemExit:  # after --help
            code = None
        if error := output.error():
            _print_error(error)
            code = code or EXIT_PARTIAL
    if code is None:
        raise SystemExit(0)
    return code


def _main(
    command_parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], dict | None],
    argv: list[str] | None,
    request: StopRequest,
) -> int:
    """As `main`, which handles signals."""
    try:
        load_plugins(named_plugins(argv))  # first: flags may have what they register as a value
        args = command_parser.parse_args(argv)
        if args.json_file is not None and not is_folder(args.json_file.parent):
            raise UserError(
                f"--json {args.json_file}: folder {args.json_file.parent} does not "
                "exist; make it first"
            )
        failure = None
        try:
            with messages_on_stderr():
                result = run(args)
        except PartialFailure as error:
            failure, result = error, error.result
        if args.json_file is not None and result is not None:
            write_text(args.json_file, json.dumps(result, indent=2) + "\n")
        if failure is not None:
            _print_error(str(failure))
            return EXIT_PARTIAL
    except UserError as error:
        _print_error(str(error))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        if request.number is not None:
            print(f"stopped by {signal.Signals(request.number).name}", file=sys.stderr)
            return EXIT_SIGNALED + request.number
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has closed it, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:  # not about a file
            raise
        _print_error(str(file_error(error)))
        return EXIT_USER_ERROR
    return 0
