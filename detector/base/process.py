"""What every process of this project sets when it starts, and how a command is stopped."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator

GC_THRESHOLD = 50_000
"""Allocations between runs of the garbage collector; Python's default is 700."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command as Ctrl-C does."""
PRIVACY_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Libraries read these when they are imported; the user's own settings take precedence."""

MAX_IMAGE_PIXELS = 250_000_000
"""Of an image that is decoded, in memory 3 bytes each; the largest cameras have 200 million."""


def relax_gc() -> None:
    """Run the garbage collector less often.

    Importing torch, Ray and MLflow creates a million objects that stay; scanning them again and
    again took a sixth of the import time. Objects without reference cycles are freed at once
    anyway.
    """
    gc.set_threshold(GC_THRESHOLD)


def disable_telemetry() -> None:
    """Keep MLflow, Ray, OpenVINO and NNCF from reporting their use; call it before they are
    imported."""
    for name, value in PRIVACY_SETTINGS.items():
        os.environ.setdefault(name, value)
    # The latter two have no setting, but send nothing where this package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def limit_opencv() -> None:
    """Keep OpenCV from decoding larger images of formats whose headers Pillow cannot read; call it
    before cv2 is imported."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))


def quieten_opencv() -> None:
    """Keep OpenCV and its FFmpeg from printing about damaged files, of which commands have a line
    of their own; call it before cv2 is imported."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its quietest


class StopRequest:
    """The signal that has stopped the command; None until one arrives."""

    number: int | None = None


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Makes STOP_SIGNALS stop the block as Ctrl-C does, by a KeyboardInterrupt; a second one of
    them ends the process at once.

    The exception is not one of our own, nor SystemExit: Ray's native code passes on a
    KeyboardInterrupt alone, and aborts the process at any other. Signals that are ignored, as
    SIGHUP is under nohup, stay ignored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    process = os.getpid()

    def stop(number, frame) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_DFL)
        if os.getpid() != process:  # a child that inherited this handler by a fork
            os.kill(os.getpid(), number)
            return
        request.number = number
        raise KeyboardInterrupt

    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, stop)
    try:
        yield request
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
