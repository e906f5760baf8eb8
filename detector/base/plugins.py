"""Plugins: Python files of the user that register backbones, losses, samplers and the like.

A plugin is code, so it only runs where the user names it (--plugin FILE), and in the workers of a
command that was given it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from detector.base.errors import ConfigError, UserError, first_line, out_of_memory
from detector.base.files import cannot_read, read_text

MODULE_PREFIX = "retina_nas_plugin_"
"""Before the file's name, in the name of its module."""
FILE_NAME = r"[A-Za-z_]\w*\.py"
NAME = r"[a-z][a-z0-9_]*"
"""Of what a plugin registers."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that runs in this process."""

    path: Path
    """Absolute."""
    given: str
    """The path as the user typed it."""
    text: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


_loaded: dict[str, Plugin] = {}
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def loaded_plugins() -> list[Plugin]:
    """The plugins of this process, in the order in which they were loaded."""
    return list(_loaded.values())


def load_plugin(path: str | Path) -> None:
    """Run a plugin, whose registrations hold for the rest of the process; nothing happens if it has
    been loaded already.

    Raises:
        UserError: the file cannot be read or fails, or another one with its name is loaded.
    """
    file = Path(path)
    if not re.fullmatch(FILE_NAME, file.name):
        raise UserError(
            f"--plugin {path}: must be a Python file whose name has letters, digits and "
            "underscores, such as my_backbone.py"
        )
    try:
        text = read_text(file)
    except OSError as error:
        raise cannot_read(f"--plugin {path}", error, "give a Python file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--plugin {path}: is not text in UTF-8; give a Python file") from error
    known = _loaded.get(file.name)
    if known is None:
        _run(file, text)
        _loaded[file.name] = Plugin(file.resolve(), str(path), text)
    elif known.text != text:
        raise UserError(
            f"--plugin {path}: {known.given}, which has the same name, is loaded already; rename "
            "one of them, or start Python anew"
        )


def load_plugins(paths: Iterable[str | Path]) -> None:
    """`load_plugin`, one after the other."""
    for path in paths:
        load_plugin(path)


def _run(path: Path, text: str) -> None:
    module = ModuleType(MODULE_PREFIX + path.stem)
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses and pickle look it up
    try:
        exec(compile(text, module.__file__, "exec"), module.__dict__)
    except Exception as error:  # whatever the user's code raises
        del sys.modules[module.__name__]
        raise UserError(f"--plugin {path}: {_fault(error, module.__file__)}; mend it") from error


def _fault(error: Exception, file: str) -> str:
    """What is wrong with a plugin, with the line, as far as it is known."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, UserError):
        return where + str(error)
    return f"{where}{type(error).__name__}: {first_line(error)}"


def checked_new(what: str, name: str, known: Iterable[str]) -> str:
    """`name` itself, if something new may be registered by it.

    Args:
        what: that is registered, for the message.

    Raises:
        ConfigError: it is taken, or has other characters than a–z, 0–9 and underscore.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{what} {name!r}: use lower-case letters, digits and underscores")
    if name in known:
        raise ConfigError(f"{what} {name!r} exists already; choose another name")
    return name


@contextlib.contextmanager
def plugin_faults(what: str, *, among_ours: bool = False) -> Iterator[None]:
    """Names what a plugin has registered in the errors that it raises.

    Args:
        among_ours: the block may also fail by itself; only what a plugin's own lines raise counts.

    Raises:
        ConfigError: the block raised anything but a UserError, or ran out of memory.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the user's code raises
        frames = traceback.extract_tb(error.__traceback__)
        files = {str(plugin.path) for plugin in loaded_plugins()}
        theirs = [frame for frame in frames if frame.filename in files]
        if out_of_memory(error) or (among_ours and not theirs):
            raise
        frame = (theirs or frames)[-1]
        raise ConfigError(
            f"{what} fails: {type(error).__name__}: {first_line(error)} "
            f"({Path(frame.filename).name}, line {frame.lineno}); mend the plugin"
        ) from error


def with_named_faults(what: str, function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """A plugin's function whose errors are those of `plugin_faults`."""

    @functools.wraps(function)
    def named(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with plugin_faults(what):
            return function(*args, **kwargs)

    return named
