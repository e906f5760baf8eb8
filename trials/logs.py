"""log.txt in a trial's folder: the output, warnings and log messages of its workers, a line per
epoch, and the traceback of a failure. It is not deleted with the checkpoints."""

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
def captured_in_log(folder: Path) -> Iterator[None]:
    """Append all that this process prints, warns, logs and raises in the block to the folder's log.

    Waits for other processes in such a block for the same folder: the worker of a killed search may
    still be training its last epoch there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as log:
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


def append_to_log(folder: Path, line: str) -> None:
    """Append a line with the time to the folder's log."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(timestamped(line) + "\n")


def timestamped(line: str) -> str:
    """The line with the local time before it."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
