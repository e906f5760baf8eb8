"""Video files of any name: opened for OpenCV, and written with it.

OpenCV crashes (SIGSEGV) on paths that are not UTF-8, and FFmpeg takes a name such as 10:30.mp4 for
a URL. So both get paths in /proc/self/fd, where Linux has a link to each open file and folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from detector.base.files import atomic_path, open_file

OPEN_FILES = "/proc/self/fd"


class UnwritableVideo(Exception):
    """A video of this size and frame rate that OpenCV cannot write."""


def open_video(path: Path) -> cv2.VideoCapture:
    """Opens a video for OpenCV, which may find that it is none.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:  # which FFmpeg opens a second time, and keeps open
        # Other backends would take the number for that of a picture in a sequence.
        return cv2.VideoCapture(f"{OPEN_FILES}/{file.fileno()}", cv2.CAP_FFMPEG)


@contextmanager
def atomic_video(path: Path, fps: float, size: tuple[int, int]) -> Iterator[cv2.VideoWriter]:
    """A writer of an .mp4 file that appears when the block succeeds; see `atomic_path`.

    Args:
        size: (width, height) of its frames.

    Raises:
        OSError: the folder cannot be opened, or the file not be renamed.
        UnwritableVideo: OpenCV refuses.
    """
    with atomic_path(path, suffix=".mp4") as temporary:
        folder = os.open(temporary.parent, os.O_PATH)
        try:
            writer = cv2.VideoWriter(
                f"{OPEN_FILES}/{folder}/{temporary.name}",
                cv2.VideoWriter.fourcc(*"mp4v"),
                fps,
                size,
            )
        finally:
            os.close(folder)
        try:
            if not writer.isOpened():
                width, height = size
                raise UnwritableVideo(
                    f"OpenCV writes no video of {width}×{height} px at {fps:g} frames per second"
                )
            yield writer
        finally:
            writer.release()
