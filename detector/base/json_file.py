"""JSON from files, which may have been damaged or written by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detector.base.files import MAX_BYTES, read_text


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read, or has more than `limit` bytes.
        ValueError: it is not JSON in UTF-8, lists a key twice or is nested too deeply.
    """
    return parse_json(read_text(path, limit))


def parse_json(text: str | bytes) -> Any:
    """The content of JSON from a file.

    Raises:
        ValueError: as `read_json`.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("lists or mappings are nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} is listed twice")
    return content
