"""Commands to continue with, written so that they can be pasted into a shell.

No heavy imports (torch, Ray, MLflow).
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from detector.base.plugins import loaded_plugins

DEFAULT_RUNS_DIR = Path("runs")
"""Of --runs-dir."""
BUILT_IN_DATA = "synthetic"
"""Stands for the built-in drawn scenes where the path of images is asked for."""
BUILT_IN_EPOCHS = 20
MLFLOW_DEFAULT = "sqlite:///mlflow.db"
"""The store that MLflow's own commands open without flags, too."""
DEFAULT_TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW_DEFAULT
"""Of --tracking-uri; read when the command starts, since MLflow sets the variable itself."""
_DEFAULTS = {
    "runs_dir": str(DEFAULT_RUNS_DIR),
    "tracking_uri": DEFAULT_TRACKING_URI,
    "device": "auto",
}


def command(module: str, flags: Mapping[str, object], *arguments: str) -> str:
    """The command line of a module.

    Args:
        module: as typed after `python -m`.
        flags: name of each flag, with underscores, → its value. True is a flag without a value;
            None, False and the defaults of --runs-dir, --tracking-uri and --device are left out.
            The plugins of this process are added.
        arguments: that are no flags.
    """
    words = ["python", "-m", module, *arguments]
    given = [(name, value) for name, value in flags.items() if name != "plugin"]
    for name, value in [*given, *(("plugin", plugin.given) for plugin in loaded_plugins())]:
        if value is None or value is False or str(value) == _DEFAULTS.get(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            if str(value).startswith("-"):  # argparse would take it for a flag
                words[-1] += f"={value}"
            else:
                words.append(str(value))
    return shlex.join(words)


def given_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, object]:
    """The flags of a command line that differ from their defaults, by their names; without --json
    and arguments that are no flags."""
    return {
        action.dest: value
        for action in parser._actions
        if action.option_strings
        and action.dest not in ("help", "json_file")
        and (value := getattr(args, action.dest)) != action.default
    }


MAX_TOP = 4
"""Designs that a hint suggests to train in full, at most."""


def retrain_command(data: str | None, flags: Mapping[str, object]) -> str:
    """The command that trains designs in full: on the built-in scenes, which are there to see how
    everything works, for fewer epochs than by default.

    Args:
        data: the path of the images.
        flags: which designs.
    """
    epochs = BUILT_IN_EPOCHS if data == BUILT_IN_DATA else None
    return command("nas.retrain", {**flags, "epochs": epochs})


def top_command(data: str | None, tied: int, flags: Mapping[str, object]) -> str:
    """The command that trains the best designs in full where the search cannot tell them apart.

    Args:
        data: the path of the images.
        tied: how many there are, at least 2.
        flags: of which study.
    """
    line = retrain_command(data, {"top": min(tied, MAX_TOP), **flags})
    return f"{line}  # {tied} are tied: the hold-out chooses"


def detect_command(data: str | None, flags: Mapping[str, object]) -> str:
    """The command that finds faces with a model.

    Args:
        data: the path of the images that it was trained on. On photos, models of the built-in
            scenes find next to nothing.
        flags: which model.
    """
    inputs = BUILT_IN_DATA if data == BUILT_IN_DATA else "PHOTOS"
    return command("nas.detect", {"output": "found", "visualize": True, **flags}, inputs)


def is_server(uri: str) -> bool:
    """Whether an MLflow URI is a server, which has its own pages."""
    return uri.startswith(("http://", "https://", "databricks"))


def ui_command(uri: str) -> str | None:
    """The command that shows a store's searches in a browser; None without a store."""
    return None if uri == "none" else command("nas.ui", {"tracking_uri": uri})
