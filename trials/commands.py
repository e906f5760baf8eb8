"""What all commands share, those of `nas` and of `analysis`: one-line errors, exit codes, the JSON
result. Light to import."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from detector.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """argparse whose error is one line (the usage stands in --help)."""

    def error(self, message: str):
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def parser(prog: str, description: str) -> tuple[argparse.ArgumentParser, argparse._ArgumentGroup]:
    """A parser with --runs-dir and --json, and the group of flags that they stand in.

    Args:
        prog: as typed after `python -m`, such as "nas.search".
        description: what the command does, for a newcomer.
    """
    made = _Parser(prog=f"python -m {prog}", description=description, allow_abbrev=False,
                   formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = made.add_argument_group("common to all commands")
    shared.add_argument("--runs-dir", metavar="DIR", type=Path, default=Path("runs"),
                        help="folder that holds all studies (default: runs)")
    shared.add_argument("--json", metavar="FILE", type=Path, dest="json_file",
                        help="write the result as JSON to FILE, too")
    return made, shared


def main(made: argparse.ArgumentParser, run: Callable[[argparse.Namespace], dict | None],
         argv: list[str] | None = None) -> int:
    """Parse, run, write the JSON result.

    Returns:
        The exit code: 0; 2 for what the user can mend (one line on stderr); 130 after Ctrl-C.
    """
    try:
        args = made.parse_args(argv)
        if args.json_file is not None and not args.json_file.parent.is_dir():
            raise UserError(f"--json {args.json_file}: folder {args.json_file.parent} does not "
                            "exist; make it first")
        result = run(args)
        if args.json_file is not None and result is not None:
            write_text(args.json_file, json.dumps(result, indent=2) + "\n")
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
        raise UserError(f"{path}: cannot be written ({error.strerror}); "
                        "free some space or choose another place") from error
