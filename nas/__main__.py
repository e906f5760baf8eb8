"""`retina-nas` and `python -m nas`: every command of the project as a subcommand."""

from __future__ import annotations

import os
import sys
from importlib import import_module

COMMANDS = {
    "search": (
        "nas.search",
        "search a space: sample designs, train proxies, keep the Pareto front",
    ),
    "retrain": ("nas.retrain", "train a design in full"),
    "evaluate": ("nas.evaluate", "AP on the val images, cost, score and the competition's rules"),
    "export": ("nas.export", "write a trained model as ONNX or OpenVINO"),
    "entry": ("nas.entry", "pack a model as a competition entry, evaluated and checked"),
    "detect": ("nas.detect", "find faces in images, folders and videos"),
    "replay": ("nas.replay", "compare samplers on a table of trained designs"),
    "ladder": ("nas.ladder", "measure how well a study's proxies rank designs trained in full"),
    "rescore": ("nas.rescore", "rank a finished study under another formula"),
    "ui": ("nas.ui", "MLflow's pages, opened where searches are compared"),
    "sync": ("nas.sync", "send MLflow everything it lacks of a study"),
    "space": ("nas.space", "check a search space and show its designs and their cost"),
    "cost": ("detector.cost", "parameters, MACs and latency of a design"),
    "convert": ("detector.data.convert", "convert labels from one format to another"),
    "report": ("analysis.report", "a report on one or several searches, as a web page"),
    "watch": ("analysis.watch", "follow a running search on a page that reloads itself"),
    "choose": ("analysis.choose", "list the designs on the Pareto front within limits"),
}
"""Subcommand → its module, imported only if it is chosen, and its summary."""


def help_text(prog: str) -> str:
    """The text of --help."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return f"""\
usage: {prog} COMMAND ...

Search small, fast, accurate face detectors.

commands (each has its own --help; `{prog} search` is the same as `python -m nas.search`):
{lines}

options:
  -h, --help  show this message and exit
  --version   show the version and exit
  --print-completion {{bash,zsh,fish}}
              print a script by which the shell completes commands and flags;
              bash reads it by source, docs/index.md has the others"""


def version() -> str:
    """The installed version."""
    from importlib import metadata

    try:
        return metadata.version("retina-nas")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _print(text: str) -> int:
    """Print a text; returns the exit code. (`detector.base.output` is for commands: it is not
    imported before one is chosen.)"""
    try:
        print(text, flush=True)
    except OSError as error:  # a full device, or the reader of a pipe has closed it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
        if not isinstance(error, BrokenPipeError):
            print(f"error: stdout cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    return 0


def _print_completion(words: list[str]) -> int:
    from nas.terminal.completion import SHELLS, completion_script

    if len(words) != 1 or words[0] not in SHELLS:
        print(f"error: --print-completion: name a shell: {', '.join(SHELLS)}", file=sys.stderr)
        return 2
    return _print(completion_script(words[0], "retina-nas", COMMANDS))


def main(argv: list[str] | None = None, prog: str = "retina-nas") -> int:
    """Run a subcommand.

    Args:
        argv: the arguments after the program's name; None means those of the process.
        prog: the program's name in help texts and errors.

    Returns:
        The exit code; 2 if there is no such command.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        return _print(help_text(prog)) or (0 if name else 2)
    if name == "--version":
        return _print(f"retina-nas {version()}")
    if name == "--print-completion":
        return _print_completion(rest)
    if name not in COMMANDS:
        from detector.base.errors import did_you_mean

        hint = did_you_mean(name, COMMANDS) or f"choose from {', '.join(COMMANDS)}"
        print(f"error: {name!r} is not a command of {prog}; {hint}", file=sys.stderr)
        return 2
    from detector.base import cli

    module = import_module(COMMANDS[name][0])
    parser = module.make_parser()
    parser.prog = f"{prog} {name}"
    return cli.main(parser, module.run, rest)


if __name__ == "__main__":
    sys.exit(main(prog="python -m nas"))
