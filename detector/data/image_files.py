"""One image file: read within bounds, or only its size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from detector.base import files
from detector.base.process import MAX_IMAGE_PIXELS
from detector.data.types import UnreadableImage

_EQUAL_SIZES = ("JPEG", "PNG", "BMP", "WEBP")  # formats in which Pillow and OpenCV read equal sizes
_BOUNDED = (*_EQUAL_SIZES, "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")


def read_image(path: Path, upright: bool = False) -> np.ndarray:
    """uint8 [H, W, 3] BGR, as stored: labels refer to pixels before any EXIF rotation.

    Args:
        upright: rotate by the EXIF orientation.

    Raises:
        UnreadableImage: not an image, a truncated JPEG, or of more than `MAX_IMAGE_PIXELS`.
    """
    data = _read(path)
    if _is_truncated(data):  # OpenCV silently fills the missing part with grey
        raise UnreadableImage(f"{path}: not a readable image (a truncated JPEG)")
    width, height = _header_size(BytesIO(data), _BOUNDED) or (0, 0)
    if width * height > MAX_IMAGE_PIXELS:
        raise UnreadableImage(
            f"{path}: has {width:,}×{height:,} px, more than the {MAX_IMAGE_PIXELS:,} that are "
            "decoded; scale it down"
        )
    try:
        image = (
            None
            if not data
            else cv2.imdecode(
                np.frombuffer(data, np.uint8),
                cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION),
            )
        )
    except cv2.error:
        image = None
    if image is None:
        raise UnreadableImage(f"{path}: not a readable image")
    return image


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image as `read_image` returns it, from the file's header, or else by
    decoding it.

    Raises:
        UnreadableImage: as `read_image`. Damage after an intact header is not detected.
    """
    try:
        with files.open_file(path) as file:
            size = _header_size(file, _EQUAL_SIZES)
    except OSError as error:
        raise UnreadableImage(f"{path}: {files.reason(error)}") from error
    if size is None or size[0] * size[1] > MAX_IMAGE_PIXELS:
        height, width = read_image(path).shape[:2]
        return width, height
    return size


def check_label_size(path: Path, image: np.ndarray, label: tuple[int, int]) -> None:
    """Check that an image is what its label describes, or that scaled as a whole: that some scale
    gives both sides to within a pixel.

    Args:
        image: [H, W, 3], as `read_image` returns it.
        label: (width, height) of the image by its label; (0, 0) if it does not tell.

    Raises:
        UnreadableImage: it is not.
    """
    height, width = image.shape[:2]
    if label[0] and abs(width * label[1] - height * label[0]) > label[0] + label[1]:
        raise UnreadableImage(
            f"{path}: has {width}×{height} px as stored, but {label[0]}×{label[1]} by its label; "
            "correct width, height and boxes in the label file, or, if the image has an EXIF "
            "rotation, store it rotated"
        )


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise UnreadableImage(f"{path}: {files.reason(error)}") from error


def _header_size(file: BinaryIO, formats: tuple[str, ...]) -> tuple[int, int] | None:
    """(width, height) by the header of a file, None if it has none of these formats.

    Pillow's `Image.open` would warn of large images, and a warning cannot be switched off for one
    thread alone, so its readers of headers are called directly.
    """
    start = file.read(16)
    for load in (Image.preinit, Image.init):  # the usual formats, and all, which takes a moment
        load()
        for name in formats:
            opener, accepts = Image.OPEN.get(name, (None, None))  # None: not in this Pillow
            if opener is None or (accepts is not None and accepts(start) is not True):
                continue
            file.seek(0)
            try:
                return (JpegImageFile if name == "JPEG" else opener)(file, "").size
            except Exception:  # of any kind; OpenCV decides what is an image
                return None
    return None


def _is_truncated(data: bytes) -> bool:
    """Whether it is a JPEG without an end-of-image marker; one in an embedded thumbnail does not
    count."""
    if not data.startswith(b"\xff\xd8"):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # skip segments
        fill = data[at + 1 : at + 2] == b"\xff"
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0
