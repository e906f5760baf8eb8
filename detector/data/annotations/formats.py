"""The annotation formats by name, and which of them a file has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detector.data.annotations.annotation import Annotation, read_text
from detector.data.annotations.json_formats import read_coco, read_list, write_coco, write_list
from detector.data.annotations.text_formats import (
    is_scrfd_header,
    read_retinaface,
    read_scrfd,
    read_wider,
    write_retinaface,
    write_scrfd,
    write_wider,
)


@dataclass(frozen=True)
class Format:
    title: str
    read: Callable[[Path], Annotation]
    write: Callable[[Annotation], str]
    by_folder: bool = False
    """Whether images must be in folders: event/file.jpg."""


FORMATS = {
    "wider": Format("WIDER's text", read_wider, write_wider, by_folder=True),
    "retinaface": Format(
        "RetinaFace's label.txt", read_retinaface, write_retinaface, by_folder=True
    ),
    "scrfd": Format("SCRFD's labelv2.txt", read_scrfd, write_scrfd),
    "json": Format("a JSON list of images", read_list, write_list),
    "coco": Format("COCO", read_coco, write_coco),
}


def read_any(path: Path) -> Annotation:
    """The annotation in a file of any of the formats.

    Raises:
        UserError: it cannot be read, or violates its format.
    """
    return FORMATS[format_of(path)].read(path)


def format_of(path: Path) -> str:
    """The name of a file's format by its first line; wider if that is of no other format."""
    first = read_text(path).lstrip().partition("\n")[0]
    if is_scrfd_header(first):
        return "scrfd"
    return {"#": "retinaface", "[": "json", "{": "coco"}.get(first[:1], "wider")
