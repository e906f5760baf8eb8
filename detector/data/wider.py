"""Images and labels on disk: WIDER FACE's official layout, RetinaFace's, SCRFD's, or JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from detector.base import files
from detector.base.errors import UserError
from detector.base.listing import Listing, find_names, list_files
from detector.data.annotations.formats import read_any
from detector.data.annotations.text_formats import read_names
from detector.data.image_files import check_label_size, read_image, read_size
from detector.data.splits import fingerprint, label_bytes
from detector.data.types import ImageLabel, image_key

# Possible paths of a part's annotation, of which the first that exists is read, and its images.
_ANNOTATIONS = (
    "wider_face_split/wider_face_{part}_bbx_gt.txt",
    "{part}/label.txt",
    "{part}/labelv2.txt",
    "{part}/label.json",
    "annotations/{part}.json",
    "annotations/instances_{part}.json",
)
_NAMES = "{part}/wider_{part}.txt"
_IMAGES = ("WIDER_{part}/images", "{part}/images")
_IMAGES_OF_JSON = (*_IMAGES, "{part}", "images")


def layouts(part: str) -> str:
    """The layouts of a folder with this part, for messages."""
    return (
        f"WIDER_{part}/images and wider_face_split/wider_face_{part}_bbx_gt.txt (official "
        f"layout), {part}/images and {part}/label.txt (RetinaFace's) or labelv2.txt (SCRFD's), or "
        f"a list of images or COCO in {part}/label.json or annotations/{part}.json"
    )


class FolderImages:
    """An `ImageSet` of image files below one folder."""

    def __init__(
        self,
        name: str,
        folder: Path,
        labels: Sequence[ImageLabel],
        sizes: Sequence[int],
        paths: Mapping[str, str] | None = None,
    ):
        """
        Args:
            sizes: bytes of each file, for the fingerprint.
            paths: by a label's name, the path in `folder` of an image whose name on disk differs.
        """
        self.name = name
        self.labels = labels
        self.fingerprint = fingerprint(label_bytes(labels), *sizes)
        self._folder, self._paths = folder, paths or {}

    @property
    def source(self) -> dict:
        """Where the images can be read again, see `detector.data.sources`."""
        return {"folder": str(self._folder.resolve()), "paths": dict(self._paths)}

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        path = self._path(index)
        image = read_image(path)
        check_label_size(path, image, self.labels[index].size)
        return image

    def size(self, index: int) -> tuple[int, int]:
        return read_size(self._path(index))

    def _path(self, index: int) -> Path:
        name = self.labels[index].name
        return self._folder / self._paths.get(name, name)


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
    found = _find(root, part)
    if found is None:
        return None
    text, folder, others = found
    if not files.exists(text):
        raise UserError(
            f"{text}: missing annotation of {folder}; add the file from "
            "WIDER FACE's wider_face_split or RetinaFace's labels"
        )
    bare = text == root / _NAMES.format(part=part)
    annotation = read_names(text) if bare else read_any(text)
    listing = list_files(folder)
    paths = find_names([label.name for label in annotation.labels], listing.files)
    sizes = _sizes(folder, listing, paths)
    labels = [label for label in annotation.labels if label.name in sizes]
    missing = [label.name for label in annotation.labels if label.name not in sizes]
    _check_closed(folder, listing, missing)
    if not annotation.labels:
        raise UserError(f"{text}: lists no images; give the annotation file as published")
    if not labels:
        raise UserError(
            f"{folder}: none of the {len(missing)} images that {text} lists is there, "
            f"the first is {_described(folder, missing[0])}; "
            f"unpack the {part} images to this folder"
        )
    _check_keys(text, labels)
    notes = list(annotation.notes)
    if others:
        notes.append(f"{text}: read for {part}; {others[0]} exists, too, and was not read")
    if missing:
        notes.append(
            f"{text}: {len(missing)} of {len(annotation.labels)} listed images are "
            f"missing in {folder}, the first is {_described(folder, missing[0])}; "
            "continuing without them"
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
    byte_counts = [sizes[label.name] for label in labels]
    renamed = {name: path for name, path in paths.items() if name != path}
    return FolderImages(f"WIDER {part}", folder, labels, byte_counts, renamed), notes


def _find(root: Path, part: str) -> tuple[Path, Path, list[Path]] | None:
    """The annotation file, which may be missing, the image folder, and other annotation files; None
    without images."""

    def existing(patterns: tuple[str, ...]) -> list[Path]:
        return [
            path for path in (root / p.format(part=part) for p in patterns) if files.exists(path)
        ]

    texts = existing((*_ANNOTATIONS, _NAMES))
    folders = existing(_IMAGES_OF_JSON if texts and texts[0].suffix == ".json" else _IMAGES)
    if not folders:
        return None
    if not texts:
        layout = _IMAGES.index(str(folders[0].relative_to(root)).replace(part, "{part}"))
        texts = [root / _ANNOTATIONS[layout].format(part=part)]
    return texts[0], folders[0], [t for t in texts[1:] if t != root / _NAMES.format(part=part)]


def _sizes(folder: Path, listing: Listing, paths: Mapping[str, str]) -> dict[str, int]:
    """Bytes of the file of each name; without those that are links to nothing. What is no regular
    file has 0: reading it says what it is."""
    sizes = {}
    for name, path in paths.items():
        entry = listing.files[path]
        try:
            sizes[name] = entry.stat().st_size if entry.is_file() else 0 * entry.stat().st_size
        except PermissionError as error:
            raise files.cannot_read(folder / path, error, "") from error
        except OSError:  # a link to nothing, or to itself
            continue
    return sizes


def _check_keys(text: Path, labels: Sequence[ImageLabel]) -> None:
    """Raises `UserError` if two images differ in their suffix alone: metrics and prediction files
    would take them for one."""
    names: dict[str, str] = {}
    for label in labels:
        other = names.setdefault(image_key(label.name), label.name)
        if other != label.name:
            raise UserError(
                f"{text}: lists {other} and {label.name}, which differ in their suffix alone, but "
                f"predictions are stored without it, as {image_key(other)}.txt; rename one of the "
                "two, here and on disk"
            )


def _described(folder: Path, name: str) -> str:
    """The name of a missing image, and what is there instead: a folder, or a link to nothing."""
    path = folder / name
    try:
        files.open_file(path).close()
    except OSError as error:
        return f"{name} ({files.reason(error)})" if os.path.lexists(path) else name
    return name


def _check_closed(folder: Path, listing: Listing, missing: Sequence[str]) -> None:
    """Raises `UserError` if missing images may be in a folder that could not be listed."""
    for path, error in listing.closed.items():
        if not path or any(name.startswith(f"{path}/") for name in missing):
            raise files.cannot_read(folder / path, error, "give a folder that can be listed")
