"""log.txt in a trial's folder: what its workers printed, warned and logged, a line an epoch, and
the traceback of a failure. It stays when checkpoints go."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

LOG = "log.txt"


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """What this process prints, warns, logs and raises meanwhile is added to the folder's log.

    Waits until no other process is within for the same folder: the worker of a search that was
    killed may still be at its last epoch there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", buffering=1) as log:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(log, fcntl.LOCK_EX)
        handler = logging.StreamHandler(log)
        logging.getLogger().addHandler(handler)
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        except Exception:
            traceback.print_exc(file=log)
            raise
        finally:
            logging.getLogger().removeHandler(handler)


def note(folder: Path, line: str) -> None:
    """Add a line with the time to the folder's log."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a") as log:
        log.write(stamped(line) + "\n")


def stamped(line: str) -> str:
    """The line behind the local time."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
