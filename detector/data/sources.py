"""Where the images of a set are read from, as plain data that a cache can store.

`source` of an image set is {"folder": …, "paths": {name: path if it differs}} for files, or
{"scenes": split, "seed": …} for drawn scenes. Sets of other kinds need none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detector.data.image_files import read_image
from detector.data.synthetic.scenes import draw, index_of
from detector.data.types import UnreadableImage


def read_again(source: dict, name: str) -> np.ndarray:
    """uint8 [H, W, 3], BGR: the image of a label's name, as its set returned it.

    Raises:
        UnreadableImage: it cannot be read any more.
    """
    path = file_of(source, name)
    if path is not None:
        return read_image(path)
    try:
        return draw(source["scenes"], index_of(name), source["seed"])
    except (LookupError, ValueError, TypeError) as error:
        raise UnreadableImage(f"{name}: is from an unknown source") from error


def file_of(source: dict | None, name: str) -> Path | None:
    """The image file of a label's name; None if it is not from a file."""
    if source is None or "folder" not in source:
        return None
    return Path(source["folder"]) / source.get("paths", {}).get(name, name)
