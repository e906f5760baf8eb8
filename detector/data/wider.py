"""Images and labels on disk: WIDER FACE in its official layout or RetinaFace's, or JSON."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detector.base.errors import UserError
from detector.data.annotations.formats import read_any
from detector.data.annotations.text_formats import read_names
from detector.data.splits import fingerprint, label_bytes
from detector.data.types import ImageLabel, UnreadableImage

# Possible paths of a part's annotation, of which the first that exists is read, and its images.
_ANNOTATIONS = (
    "wider_face_split/wider_face_{part}_bbx_gt.txt",
    "{part}/label.txt",
    "{part}/label.json",
    "annotations/{part}.json",
    "annotations/instances_{part}.json",
)
_NAMES = "{part}/wider_{part}.txt"
_IMAGES = ("WIDER_{part}/images", "{part}/images")
_IMAGES_OF_JSON = (*_IMAGES, "{part}", "images")

_HEADERS = ("JPEG", "PNG", "BMP", "WEBP")  # formats in which Pillow and OpenCV read equal sizes


def layouts(part: str) -> str:
    """The layouts of a folder with this part, for messages."""
    return (
        f"WIDER_{part}/images and wider_face_split/wider_face_{part}_bbx_gt.txt (official "
        f"layout), {part}/images and {part}/label.txt (RetinaFace's), or a list of images or "
        f"COCO in {part}/label.json or annotations/{part}.json"
    )


class FolderImages:
    """An `ImageSet` of image files below one folder."""

    def __init__(self, name: str, folder: Path, labels: Sequence[ImageLabel], sizes: Sequence[int]):
        """`sizes`: bytes of each file, for the fingerprint."""
        self.name = name
        self.labels = labels
        self.fingerprint = fingerprint(label_bytes(labels), *sizes)
        self._folder = folder

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self.labels[index].name)

    def size(self, index: int) -> tuple[int, int]:
        return read_size(self._folder / self.labels[index].name)


def read_image(path: Path, upright: bool = False) -> np.ndarray:
    """uint8 [H, W, 3] BGR, as stored: labels refer to pixels before any EXIF rotation.

    Args:
        upright: rotate by the EXIF orientation.

    Raises:
        UnreadableImage: not an image, or a truncated JPEG.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from error
    if _is_truncated(data):  # OpenCV silently fills the missing part with grey
        raise UnreadableImage(f"{path}: not a readable image (a truncated JPEG)")
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
        UnreadableImage: not an image. Damage after an intact header is not detected.
    """
    try:
        with warnings.catch_warnings():  # about very large images
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_HEADERS) as image:
                return image.size
    except Exception:  # of any kind; OpenCV decides what is an image
        height, width = read_image(path).shape[:2]
        return width, height


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


def open_part(root: Path, part: str) -> tuple[FolderImages, list[str]] | None:
    """The images of one part of WIDER FACE, and lines of notes for the user.

    Args:
        root: the data set's folder, in any layout.
        part: train or val.

    Returns:
        None if the folder has no such part.

    Raises:
        UserError: images without an annotation, an annotation without images, or an invalid line.
    """
    paths = _find(root, part)
    if paths is None:
        return None
    text, folder, others = paths
    if not text.is_file():
        raise UserError(
            f"{text}: missing annotation of {folder}; add the file from "
            "WIDER FACE's wider_face_split or RetinaFace's labels"
        )
    bare = text == root / _NAMES.format(part=part)
    annotation = read_names(text) if bare else read_any(text)
    files = _file_sizes(folder)
    labels = [label for label in annotation.labels if label.name in files]
    missing = [label.name for label in annotation.labels if label.name not in files]
    if not annotation.labels:
        raise UserError(f"{text}: lists no images; give the annotation file as published")
    if not labels:
        raise UserError(
            f"{folder}: none of the {len(missing)} images that {text} lists is there, "
            f"the first is {missing[0]}; unpack the {part} images to this folder"
        )
    notes = list(annotation.notes)
    if others:
        notes.append(f"{text}: read for {part}; {others[0]} exists, too, and was not read")
    if missing:
        notes.append(
            f"{text}: {len(missing)} of {len(annotation.labels)} listed images are "
            f"missing in {folder}, the first is {missing[0]}; continuing without them"
        )
    if annotation.dropped:
        notes.append(
            f"{text}: boxes of no size or outside their image, left out: "
            f"{annotation.dropped}, the first is {annotation.first_dropped}"
        )
    if bare:
        notes.append(
            f"{text}: lists images without boxes; they can be scored with the official "
            "ground truth only"
        )
    sizes = [files[label.name] for label in labels]
    return FolderImages(f"WIDER {part}", folder, labels, sizes), notes


def _find(root: Path, part: str) -> tuple[Path, Path, list[Path]] | None:
    """The annotation file, which may be missing, the image folder, and other annotation files; None
    without images."""

    def existing(patterns: tuple[str, ...]) -> list[Path]:
        return [path for path in (root / p.format(part=part) for p in patterns) if path.exists()]

    texts = existing((*_ANNOTATIONS, _NAMES))
    folders = existing(_IMAGES_OF_JSON if texts and texts[0].suffix == ".json" else _IMAGES)
    if not folders:
        return None
    if not texts:
        layout = _IMAGES.index(str(folders[0].relative_to(root)).replace(part, "{part}"))
        texts = [root / _ANNOTATIONS[layout].format(part=part)]
    return texts[0], folders[0], [t for t in texts[1:] if t != root / _NAMES.format(part=part)]


def _file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file by its path relative to `folder`."""
    sizes = {}
    for directory, _, files in os.walk(folder):
        prefix = os.path.relpath(directory, folder).replace(os.sep, "/")
        prefix = "" if prefix == "." else f"{prefix}/"
        for name in files:
            sizes[f"{prefix}{name}"] = os.path.getsize(os.path.join(directory, name))
    return sizes
