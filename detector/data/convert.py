"""python -m detector.data.convert: labels from one annotation format to another."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from detector.base import cli, files
from detector.base.errors import UserError
from detector.base.listing import find_names, list_files
from detector.data.annotations.annotation import Annotation
from detector.data.annotations.formats import FORMATS, Format, format_of
from detector.data.image_files import read_image
from detector.data.types import UnreadableImage

DESCRIPTION = """\
Convert an annotation file of faces to another format: wider (WIDER's text), retinaface
(RetinaFace's label.txt), scrfd (SCRFD's and InsightFace's labelv2.txt), json (a list of images with
bbox x1 y1 x2 y2 and landmarks) or coco (COCO with the single class face).

  python -m detector.data.convert label.txt label.json --to json
  python -m detector.data.convert wider_face_val_bbx_gt.txt val.json \\
      --to coco --images FOLDER

The new file is read back and compared: what its format cannot store is reported. Numbers are
rounded to a millionth of a pixel."""


def make_parser() -> ArgumentParser:
    parser = cli.parser("detector.data.convert", DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the file to read")
    parser.add_argument("target", metavar="TARGET", type=Path, help="the new file to write")
    parser.add_argument("--to", choices=tuple(FORMATS), required=True, help="the format of TARGET")
    parser.add_argument(
        "--from",
        metavar="FORMAT",
        choices=tuple(FORMATS),
        dest="source_format",
        help=f"the format of SOURCE: {', '.join(FORMATS)} (default: recognised by its first line)",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="folder of the images: their width and height are written, too (COCO "
        "and SCRFD require them); images that are missing there are reported",
    )
    return parser


def run(args: Namespace) -> dict:
    """Runs the command; returns what --json writes."""
    if files.exists(args.target):
        raise UserError(f"{args.target}: exists already; give a new file")
    if not files.is_folder(args.target.parent):
        raise UserError(f"{args.target.parent}: no such folder; create it first")
    source_format = args.source_format or format_of(args.source)
    annotation = FORMATS[source_format].read(args.source)
    loose = next((one.name for one in annotation.images if "/" not in one.name), None)
    if loose is not None and FORMATS[args.to].by_folder:
        raise UserError(
            f"{args.source}: {FORMATS[args.to].title} names images by folder, such as "
            f"party/{loose}, and {loose} has none; put the images into one, and name it here"
        )
    if not annotation.images:
        raise UserError(
            f"{args.source}: lists no images as {FORMATS[source_format].title}; check "
            "the file, or name its format with --from"
        )
    notes = list(annotation.notes)
    if args.images is not None:
        annotation = with_sizes(annotation, args.images, notes)
    try:
        losses = _write(annotation, args.target, FORMATS[args.to])
    except UserError as error:
        raise UserError(
            f"{args.source}: cannot be stored as {FORMATS[args.to].title}: {error}"
        ) from error
    notes += [
        f"{FORMATS[args.to].title} cannot store {what}: {count} lost"
        for what, count in losses.items()
    ]
    if annotation.dropped:
        notes.append(
            f"boxes of no size or outside their image, kept here but ignored in training: "
            f"{annotation.dropped}, the first is {annotation.first_dropped}"
        )
    for note in notes:
        print(f"note: {note}")
    faces = sum(len(image.boxes) for image in annotation.images)
    print(
        f"{args.target}: {len(annotation.images):,} images, {faces:,} faces as "
        f"{FORMATS[args.to].title}"
    )
    return {
        "source": str(args.source),
        "target": str(args.target),
        "from": source_format,
        "to": args.to,
        "images": len(annotation.images),
        "faces": faces,
        "lost": losses,
        "notes": notes,
    }


def _write(annotation: Annotation, target: Path, target_format: Format) -> dict[str, int]:
    """Writes a new file; returns what it lacks.

    Raises:
        UserError: the format cannot store the annotation; there is no file then.
    """
    text = target_format.write(annotation)
    try:
        files.write_text(target, text)
    except UnicodeEncodeError as error:
        line = text.split("\n")[text.count("\n", 0, error.start)]
        raise UserError(f"the line {line!r} is not valid Unicode; rename the image") from error
    try:
        return find_losses(annotation, target_format.read(target))
    except BaseException:
        target.unlink()
        raise


def with_sizes(annotation: Annotation, folder: Path, notes: list[str]) -> Annotation:
    """Adds the sizes of the images in `folder`, and to `notes` a line about unreadable images, and
    one about those of another size than the annotation says.

    Raises:
        UserError: no image can be read.
    """
    images, unreadable, other = [], [], []
    paths = find_names([image.name for image in annotation.images], list_files(folder).files)
    for image in annotation.images:
        try:
            height, width = read_image(folder / paths.get(image.name, image.name)).shape[:2]
        except UnreadableImage as error:
            unreadable.append(error)
            images.append(image)
        else:
            images.append(replace(image, size=(width, height)))
            if image.size not in ((0, 0), (width, height)):
                other.append(
                    f"{image.name} has {width}×{height} px, not {image.size[0]}×{image.size[1]}"
                )
    if len(unreadable) == len(images):
        raise UserError(
            f"{folder}: none of the {len(images)} images can be read there, the first "
            f"is {images[0].name}; give the folder that their names are relative to"
        )
    if unreadable:
        notes.append(
            f"{folder}: {len(unreadable)} of {len(images)} images cannot be read, the "
            f"first: {unreadable[0]}; their faces are kept, their sizes unknown"
        )
    if other:
        notes.append(
            f"{folder}: {len(other)} of {len(images)} images have another size than the annotation "
            f"says, the first: {other[0]}; theirs is written, their faces are unchanged: check them"
        )
    return Annotation(images)


def find_losses(before: Annotation, after: Annotation) -> dict[str, int]:
    """What `after` lacks: the number of faces or images, by the name of the information.

    Raises:
        UserError: it has other images.
    """
    names = ([image.name for image in annotation.images] for annotation in (before, after))
    for old_name, new_name in zip_longest(*names):
        if old_name != new_name:
            raise UserError(
                f"the name {old_name!r} would be read back as {new_name!r}; rename the image"
            )
    counts: dict[str, int] = {}

    def count(what: str, number: int) -> None:
        if number:
            counts[what] = counts.get(what, 0) + int(number)

    for old, new in zip(before.images, after.images, strict=True):
        if not np.allclose(old.boxes, new.boxes, rtol=0, atol=1.1e-6):
            raise AssertionError(f"{old.name}: its boxes have changed")
        count("sizes of images", old.size not in ((0, 0), new.size))
        same = np.isclose(old.landmarks, new.landmarks, rtol=0, atol=1.1e-6)
        count("landmarks", (~same & np.isfinite(old.landmarks)).any(axis=(1, 2)).sum())
        for name in sorted({name for face in old.attributes for name in face}):
            count(
                name,
                sum(
                    _is_informative(a, name) and a.get(name) != b.get(name)
                    for a, b in zip(old.attributes, new.attributes)
                ),
            )
    return counts


def _is_informative(face: dict, name: str) -> bool:
    """Whether an attribute differs from its default."""
    return face.get(name) not in (None, 0, [0] * 5)


if __name__ == "__main__":
    sys.exit(cli.main(make_parser(), run))
