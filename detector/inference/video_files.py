"""Video files of any name: opened for OpenCV, written with it, and whether one is cut short.

OpenCV crashes (SIGSEGV) on paths that are not UTF-8, and FFmpeg takes a name such as 10:30.mp4 for
a URL. So both get paths in /proc/self/fd, where Linux has a link to each open file and folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
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


# -- whether a file is cut short --------------------------------------------------------------


def is_cut(path: Path) -> bool:
    """Whether an AVI, MP4 or Matroska file is shorter than its container says.

    The number of frames does not tell: Matroska stores the duration alone, and that of the longest
    track; MP4 also counts frames that its edit list leaves out.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF":
            return _end(file, size, _riff_chunk) > size
        if head[:4] == b"\x1aE\xdf\xa3":
            return _end(file, size, _ebml_element) > size
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _end(file, size, _mp4_box) > size
        return False


def _end(file: BufferedReader, size: int, length_at) -> int:
    """Where the last part at the top level of a container ends.

    Args:
        length_at: head of a part → its length in bytes; None if it is unknown or there is no part.
    """
    position = 0
    while position < size:
        file.seek(position)
        length = length_at(file.read(16))
        if not length:
            break
        position += length
    return position


def _riff_chunk(head: bytes) -> int | None:
    """AVI, of one or more RIFF chunks: name, length."""
    return 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else None


def _mp4_box(head: bytes) -> int | None:
    """MP4 and QuickTime: length (0: up to the end; 1: in the 8 bytes after the name), name."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    return length if length >= 8 else None


def _ebml_element(head: bytes) -> int | None:
    """Matroska and WebM: name and length, numbers whose leading zero bits tell their own length."""
    name = 9 - head[0].bit_length()
    if name > 4 or len(head) <= name:
        return None
    width = 9 - head[name].bit_length()
    number = int.from_bytes(head[name : name + width], "big") & ((1 << 7 * width) - 1)
    is_unknown = width > 8 or number == (1 << 7 * width) - 1
    return None if is_unknown else name + width + number
