"""The room that caches need is known beforehand; without it images are decoded on demand."""

import pickle
from collections import namedtuple

import cv2
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data import prepare
from detector.data.cache import CachedImages, DecodedImages, cache_images
from detector.data.image_files import read_size
from detector.data.prepare import Part, cached_bytes, open_or_cache, space_for_caches
from detector.data.splits import Subset
from detector.data.types import ImageLabel, UnreadableImage
from detector.data.wider import FolderImages

Usage = namedtuple("Usage", "free")


@pytest.fixture
def images(tmp_path):
    """Files of several sizes: 1 is a JPEG that ends early, 4 no image, 5 a PNG cut off."""
    rng, folder = np.random.default_rng(0), tmp_path / "files"
    (folder / "0--E").mkdir(parents=True)
    names = [f"0--E/{i}.{'png' if i % 2 else 'jpg'}" for i in range(8)]
    names[1] = "0--E/1.jpg"
    for i, name in enumerate(names):
        coarse = rng.integers(0, 256, (4, 6, 3), np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(coarse, (60 + 10 * i, 50)))
    for i in (1, 5):
        (folder / names[i]).write_bytes((folder / names[i]).read_bytes()[:-40])
    (folder / names[4]).write_bytes(b"<html>")
    labels = [
        ImageLabel(
            name,
            (0, 0),
            np.float32([[5, 5, 400, 40]]),
            np.full((1, 5, 2), np.nan, np.float32),
            np.array([False]),
        )
        for name in names
    ]
    return FolderImages("files", folder, labels, [1] * 8)


@pytest.fixture
def free(monkeypatch):
    """Function: bytes → the disk has them left."""

    def set_free(count: float) -> None:
        monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: Usage(free=int(count)))

    return set_free


def test_sizes_are_read_from_headers(images, monkeypatch):
    with pytest.raises(UnreadableImage, match=r"4\.jpg: not a readable image"):
        images.size(4)
    monkeypatch.setattr("cv2.imdecode", lambda *args: pytest.fail("decoded"))
    assert [images.size(i) for i in (0, 1, 3, 5)] == [(60, 50), (70, 50), (90, 50), (110, 50)]


def test_other_files_are_decoded_for_their_size(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((20, 30, 3), np.uint8))
    assert read_size(tmp_path / "a.tiff") == (30, 20)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_size(tmp_path / "b.tiff")


@pytest.mark.parametrize("side", [None, 64])
def test_the_reported_space_is_the_space_used(images, tmp_path, side):
    good = Subset(images, [0, 2, 3, 6, 7], "good")
    assert cached_bytes(good, side) == cache_images(good, tmp_path / "cache", side).nbytes
    known = cached_bytes(good, side)
    room = space_for_caches([Part(images, side)], tmp_path / "other" / "cache")
    assert room.images == 8 and room.needed > known  # two are found broken only by their data
    assert space_for_caches([Part(good, side)], tmp_path / "cache").needed == 0  # it is there


def test_a_large_cache_is_announced(images, tmp_path, free, monkeypatch):
    events = []
    parts = [Part(images, None), Part(Subset(images, [0, 2], "two"), 64)]

    def opened():
        return open_or_cache(
            parts,
            tmp_path / "cache",
            shared=True,
            report=events.append,
            progress=lambda *step: events.append(step),
        )

    monkeypatch.setattr(prepare, "ANNOUNCED", 100_000)
    first, second = opened()
    line, *steps = events
    needed = sum(cached_bytes(*part) for part in parts)
    assert line == (f"caching 10 decoded images, {needed / 1e6:.1f} MB, in {tmp_path / 'cache'}")
    assert steps == [(done, 10) for done in range(1, 11)]
    assert isinstance(first, CachedImages) and (len(first), len(second)) == (5, 2)
    events.clear()
    free(0)
    opened()  # there already
    assert events == []


def test_a_small_one_is_not(images, tmp_path):
    open_or_cache([Part(images, None)], tmp_path, shared=True, report=pytest.fail)


def test_no_room_for_a_shared_cache(images, tmp_path, free):
    free(1e5)
    with pytest.raises(UserError) as error:
        open_or_cache([Part(images, None)], tmp_path / "cache", shared=True)
    assert str(error.value) == (
        f"{tmp_path / 'cache'}: a cache of 8 decoded images needs 0.1 MB and 5% to spare, 0.1 MB "
        "are free there; make room, or give another --runs-dir, a smaller --fraction or a smaller "
        "cache_size"
    )
    assert not (tmp_path / "cache").exists()


def test_five_per_cent_are_to_spare(images, tmp_path, free):
    needed = cached_bytes(images, None)
    for count, enough in ((1.04 * needed, False), (1.06 * needed, True)):
        free(count)
        assert space_for_caches([Part(images, None)], tmp_path).enough is enough


@pytest.mark.parametrize("side", [None, 64])
def test_decoded_on_demand_are_what_a_cache_holds(images, tmp_path, free, side):
    cache, lines, steps = cache_images(images, tmp_path / "a", side), [], []
    free(1000)
    (decoded,) = open_or_cache(
        [Part(images, side)],
        tmp_path / "b",
        shared=False,
        report=lines.append,
        progress=lambda *s: steps.append(s),
    )
    assert isinstance(decoded, DecodedImages) and isinstance(cache, CachedImages)
    (line,) = lines
    assert "0.0 MB are free there; so they are decoded again in every epoch" in line
    assert "--runs-dir" in line and "cache_size" in line and "\n" not in line
    assert steps == [(done, 8) for done in range(1, 9)]
    assert decoded.skipped == cache.skipped == ["0--E/1.jpg", "0--E/4.jpg", "0--E/5.png"]
    for key in ("name", "fingerprint", "dropped", "shapes"):
        assert getattr(decoded, key) == getattr(cache, key)
    again = pickle.loads(pickle.dumps(decoded))
    for i in range(len(cache)):
        a, b = decoded.labels[i], cache.labels[i]
        assert (a.name, a.size) == (b.name, b.size) and a.boxes[0, 2] == a.size[0]
        np.testing.assert_array_equal(decoded.image(i), cache.image(i))
        np.testing.assert_array_equal(again.image(i), cache.image(i))
    taken = sum(path.stat().st_size for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert taken < 5000  # no pixels


def test_what_was_found_is_kept(images, tmp_path, free, monkeypatch):
    free(1000)
    (first,) = open_or_cache([Part(images, None)], tmp_path / "b", shared=False, report=str)
    monkeypatch.setattr(images, "image", lambda index: pytest.fail("decoded again"))
    (second,) = open_or_cache([Part(images, None)], tmp_path / "b", shared=False, report=str)
    assert [label.name for label in second.labels] == [label.name for label in first.labels]


def test_a_file_that_breaks_later_is_one_line(images, tmp_path, free):
    free(1000)
    (decoded,) = open_or_cache([Part(images, None)], tmp_path / "b", shared=False, report=str)
    (tmp_path / "files" / decoded.labels[0].name).unlink()
    with pytest.raises(
        UserError, match=r"0--E/0\.jpg: No such file .*restore it, then resume with"
    ):
        decoded.image(0)
