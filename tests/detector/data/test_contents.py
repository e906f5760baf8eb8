"""Images that have changed are noticed, also at the same size; copies of the same ones are not."""

import os
import shutil

import cv2
import helpers
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from detector.data import contents
from detector.data.contents import changed_files, check_contents, save_contents
from detector.data.open import open_data, synthetic_data

COUNT = 12


@pytest.fixture
def root(tmp_path):
    return helpers.photographs(tmp_path, COUNT, (30, 40))


def sets(root):
    data = open_data(DataChoice(path=str(root), holdout=0.25), ("train",))
    return [data.train, data.holdout]


@pytest.fixture
def stored(root, tmp_path):
    path = tmp_path / "image_files.npz"
    save_contents(path, sets(root))
    return path


def change(path):
    """Another image of the same size in bytes."""
    size = path.stat().st_size
    cv2.imwrite(str(path), np.full((30, 40, 3), 99, np.uint8))
    assert path.stat().st_size == size


def test_unchanged_files_are_not_read(root, stored, monkeypatch):
    monkeypatch.setattr(contents, "_checksum", lambda path: pytest.fail("read"))
    assert changed_files(stored, sets(root)) == []


@pytest.mark.parametrize("number", [0, 7])
def test_an_image_of_the_same_size_is_noticed(root, stored, number):
    path = root / "train" / "images" / "0--E" / f"{number}.bmp"
    before = sets(root)[0].fingerprint
    change(path)
    assert sets(root)[0].fingerprint == before  # which it is not by the fingerprint
    assert changed_files(stored, sets(root)) == [path]
    with pytest.raises(
        UserError, match=rf"{number}\.bmp: has changed since study s began, as 1 of"
    ) as error:
        check_contents(stored, sets(root), "s", "start a new study")
    assert str(error.value).endswith("restore them, or start a new study")
    assert changed_files(stored, sets(root)) == [path]  # also the next time


def test_also_with_the_time_of_the_old_one(root, stored):
    path = root / "train" / "images" / "0--E" / "3.bmp"
    stat = path.stat()
    change(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert changed_files(stored, sets(root)) == [path]


def test_a_copy_is_the_same_and_is_read_once(root, stored, tmp_path, monkeypatch):
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(root)
    assert changed_files(stored, sets(copy)) == []
    monkeypatch.setattr(contents, "_checksum", lambda path: pytest.fail("read again"))
    assert changed_files(stored, sets(copy)) == []


def test_a_missing_image_is_noticed(root, stored):
    opened = sets(root)
    path = root / "train" / "images" / "0--E" / "5.bmp"
    path.unlink()
    assert changed_files(stored, opened) == [path]


def test_nothing_stored_and_drawn_scenes(root, tmp_path):
    assert changed_files(tmp_path / "none.npz", sets(root)) == []  # a study of an older version
    data = synthetic_data(DataChoice(path="synthetic"), train=8, val=1)
    save_contents(tmp_path / "drawn.npz", [data.train])
    assert changed_files(tmp_path / "drawn.npz", [data.train]) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", "half", "version"])
def test_a_damaged_file_is_written_anew(root, stored, content, caplog):
    whole = stored.read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "version":  # of the zip format that is needed to read it
        at = whole.index(b"PK\x01\x02") + 6
        content = whole[:at] + b"\x78" + whole[at + 1 :]
    stored.write_bytes(content)
    assert changed_files(stored, sets(root)) == []
    assert "is damaged" in caplog.text and not stored.exists()
