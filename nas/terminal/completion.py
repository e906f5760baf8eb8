"""Shell completion for retina-nas: a script of all commands and flags, which a shell reads."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from detector.config.shipped import shipped_files
from trials.hints import DEFAULT_RUNS_DIR

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str, prog: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """The script that completes `prog`.

    Args:
        shell: one of SHELLS.
        commands: subcommand → its module and its summary.
    """
    import shtab

    root = argparse.ArgumentParser(prog=prog)
    root.add_argument("--version", action="version", version="")
    root.add_argument("--print-completion", choices=SHELLS, help="print a completion script")
    subparsers = root.add_subparsers()
    for name, (module, summary) in commands.items():
        parser = import_module(module).make_parser()
        for action in parser._actions:
            _add_completion(action)
        subparsers.add_parser(name, help=summary, parents=[parser], add_help=False)
    return shtab.complete(root, shell)


def _add_completion(action: argparse.Action) -> None:
    """Tell shtab how the values of a flag or an argument are completed."""
    import shtab

    if action.dest == "study":
        complete = shtab.cmd(f"ls {DEFAULT_RUNS_DIR} 2>/dev/null")
    elif action.dest == "preset":
        names = " ".join(path.stem for path in shipped_files("preset"))
        complete = shtab.cmd(f"printf '%s\\n' {names}")
    elif action.metavar in ("DIR", "FOLDER"):
        complete = shtab.DIRECTORY
    elif action.type is Path or action.metavar in ("FILE", "PATH"):
        complete = shtab.FILE
    else:
        return
    action.complete = complete  # type: ignore[attr-defined]
