"""The cache holds what direct reading gives, whoever builds it."""

import errno
import multiprocessing
import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.cache import CachedImages, cache_images, decode_on_demand, limit_size
from detector.data.synthetic.scenes import SyntheticImages
from detector.data.types import ImageLabel, UnreadableImage


class _Blocks:
    """Plain images of several shapes; those named in `broken` cannot be read."""

    name = "blocks"

    def __init__(self, count, broken=(), box=(1, 2, 9, 9)):
        self.fingerprint = f"blocks{count}{broken}{box}"
        self._broken = broken
        self.labels = [
            ImageLabel(
                f"0--E/{i}.png",
                (0, 0),
                np.float32([box]),
                np.full((1, 5, 2), np.nan, np.float32),
                np.array([False]),
            )
            for i in range(count)
        ]

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        if index in self._broken:
            raise UnreadableImage(str(index))
        return np.full((20 + index, 30, 3), index, np.uint8)

    def size(self, index):
        return self.image(index).shape[1::-1]


def _equal(a: ImageLabel, b: ImageLabel) -> None:
    assert a.name == b.name and a.size == b.size
    for key in ("boxes", "landmarks", "ignore"):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        assert getattr(a, key).dtype == getattr(b, key).dtype


def test_same_pixels_and_labels(tmp_path):
    images = SyntheticImages("train", 9)
    cache = cache_images(images, tmp_path, None)
    assert len(cache) == 9 and cache.skipped == [] and cache.dropped == 0
    for i in range(9):
        np.testing.assert_array_equal(cache.image(i), images.image(i))
        _equal(cache.labels[i], images.labels[i])


def test_size_limit(tmp_path):
    images = SyntheticImages("train", 4)
    cache = cache_images(images, tmp_path, 200)
    for i in range(4):
        image, original = cache.image(i), images.image(i)
        assert max(image.shape[:2]) == 200
        assert abs(image.shape[0] / image.shape[1] - original.shape[0] / original.shape[1]) < 0.005
        np.testing.assert_array_equal(
            image, cv2.resize(original, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        )
        _equal(cache.labels[i], images.labels[i])  # in pixels of the original
    small = np.zeros((10, 20, 3), np.uint8)
    assert limit_size(small, 200) is small
    assert cache.fingerprint != cache_images(images, tmp_path, None).fingerprint


def test_reopened_not_decoded_again(tmp_path, monkeypatch):
    images = SyntheticImages("val", 3)
    first = cache_images(images, tmp_path, None)
    monkeypatch.setattr(images, "image", lambda index: pytest.fail("decoded again"))
    second = cache_images(images, tmp_path, None)
    assert second.fingerprint == first.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_give_the_file_that_one_gives(tmp_path, threads):
    """More images than are in flight, of several sizes; unreadable ones among them."""
    images = _Blocks(40, broken=(0, 7, 8, 39))
    one, several = (cache_images(images, tmp_path / str(n), 25, threads=n) for n in (1, threads))
    for path in one.folder.iterdir():
        assert path.read_bytes() == (several.folder / path.name).read_bytes(), path.name


def test_few_images_are_in_memory_at_once(tmp_path, monkeypatch):
    images, decoded, started = _Blocks(40), [], []
    original = images.image

    def image(index):
        started.append(index)
        return original(index)

    monkeypatch.setattr(images, "image", image)
    cache_images(
        images,
        tmp_path,
        None,
        threads=2,
        progress=lambda done, total: decoded.append((done, total, len(started))),
    )
    assert [done for done, _, _ in decoded] == list(range(1, 41))
    assert all(total == 40 and ahead <= done + 4 for done, total, ahead in decoded)


def test_an_error_of_a_thread_ends_it(tmp_path, monkeypatch):
    images = _Blocks(40)
    monkeypatch.setattr(images, "image", lambda index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache_images(images, tmp_path, None, threads=3)
    assert list(tmp_path.iterdir()) == []


def test_where_the_pixels_are(tmp_path):
    cache = cache_images(_Blocks(3), tmp_path, None)
    assert cache.shapes == [(20, 30), (21, 30), (22, 30)]
    assert cache.starts.tolist() == [0, 1800, 3690, 5670] and cache.starts.dtype == np.int64
    assert cache.nbytes == cache.pixels.size == 5670 and cache.pixels.dtype == np.uint8
    np.testing.assert_array_equal(cache.pixels[1800:3690].reshape(21, 30, 3), cache.image(1))


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); make"):
        cache_images(_Blocks(3), tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_pickled_as_its_path(tmp_path):
    cache = cache_images(SyntheticImages("val", 5), tmp_path, None)
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


def test_corrected_landmarks_and_sizes_are_those_of_the_cache(tmp_path):
    """A set's fingerprint, which studies record, leaves them out."""
    images = _Blocks(3)
    for landmarks, size in ((5.0, (60, 42)), (7.0, (60, 42)), (7.0, (30, 21))):
        images.labels[1] = replace(
            images.labels[1], size=size, landmarks=np.full((1, 5, 2), landmarks, np.float32)
        )
        for cache in (
            cache_images(images, tmp_path, None),
            decode_on_demand(images, tmp_path, None),
        ):
            assert cache.labels[1].landmarks[0, 0, 0] == landmarks
            assert cache.labels[1].size == size


def test_an_empty_set(tmp_path):
    assert len(cache_images(_Blocks(0), tmp_path, None)) == 0


def _build(folder, start, results):
    start.wait()
    cache = cache_images(SyntheticImages("train", 6), folder, 100)
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
    images, real = _Blocks(3), os.replace

    def slow(source, target):
        monkeypatch.setattr(os, "replace", real)
        cache_images(images, tmp_path, None)
        real(source, target)

    monkeypatch.setattr(os, "replace", slow)
    assert len(cache_images(images, tmp_path, None)) == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        cache_images(_Blocks(1), tmp_path / "file", None)
