"""retina-nas, which python -m nas is as well: every command of the project as a sub-command."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "search": ("nas.search", "search a space: sample designs, train proxies, keep the front"),
    "retrain": ("nas.retrain", "train one design in full"),
    "evaluate": ("nas.evaluate", "AP on the val images, cost, score and the competition's rules"),
    "export": ("nas.export", "write a trained model as ONNX or OpenVINO"),
    "detect": ("nas.detect", "find faces in images, folders and videos"),
    "replay": ("nas.replay", "compare samplers on a table of trained designs"),
    "rescore": ("nas.rescore", "rank a finished study under another formula"),
    "sync": ("nas.sync", "send MLflow what it lacks of a study"),
    "space": ("nas.space", "check a search space and show what is in it"),
    "cost": ("detector.cost", "parameters, MACs and latency of a design"),
    "convert": ("detector.data.convert", "convert annotation from one format to another"),
    "report": ("analysis.report", "what one or several searches found, as a page"),
    "choose": ("analysis.choose", "the front's candidates within limits, and how to retrain one"),
}
"""Sub-command → its module, of which only the chosen one is imported, and what it does."""


def help_text(prog: str) -> str:
    """What --help prints."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {does}" for name, (_, does) in COMMANDS.items())
    return f"""\
usage: {prog} COMMAND ...

Search small, fast, accurate face detectors.

commands, each with its own --help; `{prog} search` is the same as `python -m nas.search`:
{lines}

options:
  -h, --help  show this message and exit
  --version   show the version and exit"""


def version() -> str:
    """As pyproject.toml had it when the project was installed."""
    from importlib import metadata

    try:
        return metadata.version("retina-nas")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(argv: list[str] | None = None, prog: str = "retina-nas") -> int:
    """Run a sub-command.

    Args:
        argv: what follows the program's name (default: the command line's).
        prog: the program's name, as help and errors say it.

    Returns:
        The exit code; 2 where there is no command of that name.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(help_text(prog))
        return 0 if name else 2
    if name == "--version":
        print(f"retina-nas {version()}")
        return 0
    if name not in COMMANDS:
        print(
            f"error: {name!r} is not a command of {prog}; there are {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    from detector.base import cli

    module = import_module(COMMANDS[name][0])
    parser = module.make_parser()
    parser.prog = f"{prog} {name}"
    return cli.main(parser, module.run, rest)


if __name__ == "__main__":
    sys.exit(main(prog="python -m nas"))
