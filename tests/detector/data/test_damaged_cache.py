"""A damaged cache is noticed and made anew; nothing is trained on what is not the images."""

import errno
import json
import multiprocessing
import zipfile

import helpers
import numpy as np
import pytest

from detector.config.recipe import DataChoice
from detector.data.cache import CachedImages, cache_images, decode_on_demand
from detector.data.cache_files import DamagedCache
from detector.data.open import open_data
from detector.data.prepare import Part, open_or_cache
from detector.data.sources import read_again
from detector.data.splits import Subset
from detector.data.synthetic.scenes import SyntheticImages
from detector.data.types import ImageLabel

IMAGES = 20


@pytest.fixture(scope="module")
def images():
    scenes = helpers.scenes_drawn_once()("train", IMAGES + 2)
    return Subset(scenes, range(1, IMAGES + 1), "some scenes")


@pytest.fixture
def cache(images, tmp_path):
    return cache_images(images, tmp_path, 64)


def pixels_of(cache) -> list[np.ndarray]:
    return [np.array(cache.image(i)) for i in range(len(cache))]


def assert_same(cache, expected) -> None:
    for found, wanted in zip(pixels_of(cache), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, zeros, remove, empty])
@pytest.mark.parametrize("name", ["index.json", "labels.npz", "pixels.bin"])
def test_the_images_are_the_same_after_it(images, cache, tmp_path, name, damage, caplog):
    expected = pixels_of(cache)
    damage(cache.folder / name)
    again = cache_images(images, tmp_path, 64)
    assert_same(again, expected)
    assert [label.name for label in again.labels] == [label.name for label in images.labels]
    assert len([r for r in caplog.records if "decoded again" in r.getMessage()]) == 1
    caplog.clear()
    assert_same(cache_images(images, tmp_path, 64), expected)  # it is intact now
    assert not caplog.records
    assert {path.name for path in tmp_path.iterdir()} <= {cache.folder.name, ".lock"}


def test_a_worker_decodes_a_damaged_image_again(cache, caplog):
    """A worker has the folder alone; the other images are untouched, the file is repaired."""
    expected = pixels_of(cache)
    for index in (3, 11):
        flip(cache.folder / "pixels.bin", int(cache.starts[index]) + 7)
    worker = CachedImages(cache.folder)
    assert_same(worker, expected)
    (record,) = caplog.records
    assert "were damaged and are decoded again" in record.getMessage()
    assert cache.labels[3].name in record.getMessage()
    caplog.clear()
    assert_same(CachedImages(cache.folder), expected)
    assert not caplog.records


@pytest.mark.parametrize("damage", [cut, zeros, remove, empty])
def test_a_worker_decodes_all_again(cache, damage):
    expected = pixels_of(cache)
    damage(cache.folder / "pixels.bin")
    worker = CachedImages(cache.folder)
    worker.check_all()
    start, end = worker.starts[4], worker.starts[5]
    np.testing.assert_array_equal(worker.pixels[start:end], expected[4].reshape(-1))
    assert_same(worker, expected)


def test_pixels_are_repaired_though_the_file_cannot_be_written(cache, monkeypatch):
    """The GPU's feed reads `pixels` after `check_all`; another user's cache may be read-only."""
    expected = pixels_of(cache)
    flip(cache.folder / "pixels.bin", int(cache.starts[3]) + 7)
    damaged = (cache.folder / "pixels.bin").read_bytes()
    worker = CachedImages(cache.folder)

    def read_only(path, mode="r", *rest):
        if "+" in mode:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, mode, *rest)

    monkeypatch.setattr("detector.data.cache.open", read_only, raising=False)
    decoded = []
    monkeypatch.setattr(
        "detector.data.cache.read_again",
        lambda source, name: decoded.append(name) or read_again(source, name),
    )
    worker.check_all()
    np.testing.assert_array_equal(worker.pixels, np.concatenate([e.ravel() for e in expected]))
    assert_same(worker, expected)
    assert decoded == [cache.labels[3].name]
    assert (cache.folder / "pixels.bin").read_bytes() == damaged


def test_an_image_is_checked_once(cache, monkeypatch):
    opened, expected = CachedImages(cache.folder), pixels_of(cache)
    opened.check_all()
    monkeypatch.setattr("zlib.crc32", lambda *args: pytest.fail("checked again"))
    assert_same(opened, expected)


def _read(folder, start, results):
    start.wait()
    results.put([int(image.sum()) for image in pixels_of(CachedImages(folder))])


def _open(folder, start, results):
    start.wait()
    images = Subset(SyntheticImages("train", IMAGES + 2), range(1, IMAGES + 1), "some scenes")
    results.put([int(image.sum()) for image in pixels_of(cache_images(images, folder.parent, 64))])


@pytest.mark.slow
@pytest.mark.parametrize("target", [_read, _open])
def test_two_processes_notice_at_once(cache, target):
    expected = [int(image.sum()) for image in pixels_of(cache)]
    zeros(cache.folder / "pixels.bin")
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    arguments = cache.folder, start, results
    processes = [context.Process(target=target, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    assert [results.get(timeout=60) for _ in processes] == [expected, expected]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize("name", ["index.json", "labels.npz"])
def test_a_worker_without_labels_says_so(cache, name):
    flip(cache.folder / name)
    with pytest.raises(DamagedCache, match=r"a damaged cache of decoded images .* --resume"):
        CachedImages(cache.folder)


def test_images_that_are_gone(tmp_path):
    root = helpers.photographs(tmp_path, 4, (30, 40), ".png")
    images = open_data(DataChoice(path=str(root)), ("train",)).all_train
    cache = cache_images(images, tmp_path / "cache", None)
    zeros(cache.folder / "pixels.bin")
    assert (CachedImages(cache.folder).image(1) == 2).all()
    (root / "train" / "images" / "0--E" / "2.png").unlink()
    worker = CachedImages(cache.folder)
    with pytest.raises(DamagedCache, match=r"0--E/2\.png is wrong, and it cannot be decoded"):
        worker.image(2)
    assert (worker.image(1) == 2).all() and (worker.image(3) == 4).all()


class _Unknown:
    """An image set that does not say where its images are from."""

    name, fingerprint = "unknown", "f" * 12
    labels = tuple(
        ImageLabel(
            f"{i}.png",
            (8, 6),
            np.zeros((0, 4), np.float32),
            np.zeros((0, 5, 2), np.float32),
            np.zeros(0, bool),
        )
        for i in range(40)
    )

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        return np.full((6, 8, 3), index, np.uint8)

    def size(self, index):
        return 8, 6


def test_a_set_without_a_source(tmp_path):
    cache = cache_images(_Unknown(), tmp_path, None)
    flip(cache.folder / "pixels.bin", 6 * 8 * 3 + 1)  # image 1, which opening does not check
    with pytest.raises(
        DamagedCache, match=r"checksum of image 1\.png is wrong\).*remove the folder"
    ):
        CachedImages(cache.folder).image(1)
    cut(cache.folder / "pixels.bin")
    with pytest.raises(DamagedCache, match=r"pixels\.bin has 2,880 of 5,760 bytes"):
        CachedImages(cache.folder)
    assert (cache_images(_Unknown(), tmp_path, None).image(1) == 1).all()


def without_checksums(folder):
    """Makes a cache one of the version before."""
    info = json.loads((folder / "index.json").read_text())
    for key in ("checksum", "labels_checksum", "max_side"):
        del info[key]
    (folder / "index.json").write_text(json.dumps(info))
    with np.load(folder / "labels.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "checksums"}
    np.savez(folder / "labels.npz", **kept)
    (folder / "source.json").unlink()


def test_caches_of_older_versions(images, cache, tmp_path, caplog):
    expected = pixels_of(cache)
    without_checksums(cache.folder)
    assert_same(CachedImages(cache.folder), expected)
    assert_same(cache_images(images, tmp_path, 64), expected)
    assert "no checksums, as those of older versions" in caplog.text


def test_the_index_of_images_decoded_on_demand(images, tmp_path):
    first = decode_on_demand(images, tmp_path, 64)
    flip(first.folder / "index.json")
    again = decode_on_demand(images, tmp_path, 64)
    assert again.folder == first.folder
    assert_same(again, pixels_of(first))


def test_a_damaged_cache_counts_as_missing(images, cache, tmp_path):
    """Its images are counted, and the space that it takes is free again."""
    cut(cache.folder / "pixels.bin")
    done = []
    (again,) = open_or_cache(
        [Part(images, 64)], tmp_path, shared=True, progress=lambda n, total: done.append((n, total))
    )
    assert done[-1] == (IMAGES, IMAGES)
    assert_same(again, [again.image(i) for i in range(IMAGES)])


def test_the_labels_are_a_zip_file_with_checksums(cache):
    assert zipfile.ZipFile(cache.folder / "labels.npz").testzip() is None
