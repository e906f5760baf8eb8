"""The plugins of a study: copied into its folder when it is created, and run only where the user
names them.

Workers run the copies, so a search does not change when a file is edited meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from detector.base.errors import UserError
from detector.base.files import names_in, read_text, write_text
from detector.base.plugins import loaded_plugins

FOLDER = "plugins"


def copy_plugins(study_folder: Path) -> None:
    """Copy the plugins of this process into a study's folder.

    Raises:
        UserError: the disk is full, or the folder not writable.
    """
    for plugin in loaded_plugins():
        (study_folder / FOLDER).mkdir(exist_ok=True)
        write_text(study_folder / FOLDER / plugin.name, plugin.text)


def copied_plugins(study_folder: Path) -> tuple[str, ...]:
    """Absolute paths of a study's copies."""
    folder = study_folder / FOLDER
    return tuple(
        str(folder.resolve() / name) for name in sorted(names_in(folder)) if name.endswith(".py")
    )


def check_plugins(study_folder: Path) -> None:
    """Check that this process runs the plugins that a study was created with.

    Raises:
        UserError: one is missing, or has changed.
    """
    loaded = {plugin.name: plugin for plugin in loaded_plugins()}
    for path in map(Path, copied_plugins(study_folder)):
        copy = study_folder / FOLDER / path.name
        plugin = loaded.get(path.name)
        if plugin is None:
            raise UserError(
                f"study {study_folder.name} needs its plugin {path.name}, which is code and runs "
                f"only where it is named: add --plugin {copy}"
            )
        if plugin.text != read_text(path):
            raise UserError(
                f"--plugin {plugin.given}: has changed since study {study_folder.name} was "
                f"created; give its copy, --plugin {copy}, or start a new study"
            )
