"""The cache holds what direct reading gives, whoever builds it."""

import multiprocessing
import os
import pickle

import cv2
import numpy as np
import pytest

from detector.data import CachedImages, cache_images
from detector.data.cache import limit
from detector.data.synthetic import DrawnImages
from detector.data.types import ImageLabel, UnreadableImage
from detector.errors import UserError


class _Blocks:
    """Plain images of several shapes; those named in `broken` cannot be read."""

    name = "blocks"

    def __init__(self, count, broken=(), box=(1, 2, 9, 9)):
        self.fingerprint = f"blocks{count}{broken}{box}"
        self._broken = broken
        self.labels = [ImageLabel(f"0--E/{i}.png", (0, 0), np.float32([box]),
                                  np.full((1, 5, 2), np.nan, np.float32), np.array([False]))
                       for i in range(count)]

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        if index in self._broken:
            raise UnreadableImage(str(index))
        return np.full((20 + index, 30, 3), index, np.uint8)


def _equal(a: ImageLabel, b: ImageLabel) -> None:
    assert a.name == b.name and a.size == b.size
    for key in ("boxes", "landmarks", "ignore"):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        assert getattr(a, key).dtype == getattr(b, key).dtype


def test_same_pixels_and_labels(tmp_path):
    images = DrawnImages("train", 9)
    cache = cache_images(images, tmp_path, None)
    assert len(cache) == 9 and cache.skipped == [] and cache.dropped == 0
    for i in range(9):
        np.testing.assert_array_equal(cache.image(i), images.image(i))
        _equal(cache.labels[i], images.labels[i])


def test_size_limit(tmp_path):
    images = DrawnImages("train", 4)
    cache = cache_images(images, tmp_path, 200)
    for i in range(4):
        image, original = cache.image(i), images.image(i)
        assert max(image.shape[:2]) == 200
        assert abs(image.shape[0] / image.shape[1] - original.shape[0] / original.shape[1]) < 0.005
        np.testing.assert_array_equal(image, cv2.resize(original, image.shape[1::-1],
                                                        interpolation=cv2.INTER_AREA))
        _equal(cache.labels[i], images.labels[i])  # in pixels of the original
    small = np.zeros((10, 20, 3), np.uint8)
    assert limit(small, 200) is small
    assert cache.fingerprint != cache_images(images, tmp_path, None).fingerprint


def test_reopened_not_decoded_again(tmp_path, monkeypatch):
    images = DrawnImages("val", 3)
    first = cache_images(images, tmp_path, None)
    monkeypatch.setattr(images, "image", lambda index: pytest.fail("decoded again"))
    second = cache_images(images, tmp_path, None)
    assert second.fingerprint == first.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_pickled_as_its_path(tmp_path):
    cache = cache_images(DrawnImages("val", 5), tmp_path, None)
    text = pickle.dumps(cache)
    assert len(text) < 1000
    again = pickle.loads(text)
    assert isinstance(again, CachedImages)
    np.testing.assert_array_equal(again.image(4), cache.image(4))


def test_writing_to_a_view_leaves_the_file(tmp_path):
    cache = cache_images(_Blocks(2), tmp_path, None)
    cache.image(1)[:] = 77
    assert (CachedImages(cache.folder).image(1) == 1).all()


def test_unreadable_images_are_left_out(tmp_path):
    cache = cache_images(_Blocks(5, broken=(0, 3)), tmp_path, None)
    assert cache.skipped == ["0--E/0.png", "0--E/3.png"]
    assert [label.name for label in cache.labels] == ["0--E/1.png", "0--E/2.png", "0--E/4.png"]
    assert [int(cache.image(i)[0, 0, 0]) for i in range(3)] == [1, 2, 4]
    assert cache.labels[0].size == (30, 21)
    with pytest.raises(UserError, match="none of its 2 images can be decoded"):
        cache_images(_Blocks(2, broken=(0, 1)), tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written


def test_boxes_are_clipped_once_the_size_is_known(tmp_path):
    cache = cache_images(_Blocks(3, box=(25, 5, 50, 15)), tmp_path, None)
    np.testing.assert_array_equal(cache.labels[0].boxes, [[25, 5, 30, 15]])
    cache = cache_images(_Blocks(3, box=(31, 5, 50, 15)), tmp_path, None)
    assert len(cache.labels[0].boxes) == 0 and cache.dropped == 3


def test_an_empty_set(tmp_path):
    assert len(cache_images(_Blocks(0), tmp_path, None)) == 0


def _build(folder, start, results):
    start.wait()
    cache = cache_images(DrawnImages("train", 6), folder, 100)
    results.put([int(cache.image(i).sum()) for i in range(6)])


def test_two_processes_build_it_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=_build, args=(tmp_path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sums[0] == sums[1]
    assert len(list(tmp_path.iterdir())) == 1


def test_lost_the_race(tmp_path, monkeypatch):
    """Another process finishes between our look and our rename."""
    images, real = _Blocks(3), os.rename

    def slow(source, target):
        monkeypatch.setattr(os, "rename", real)
        cache_images(images, tmp_path, None)
        real(source, target)

    monkeypatch.setattr(os, "rename", slow)
    assert len(cache_images(images, tmp_path, None)) == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        cache_images(_Blocks(1), tmp_path / "file", None)
