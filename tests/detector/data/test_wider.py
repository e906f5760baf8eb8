"""WIDER FACE folders: both layouts, the faults users make, and the real images."""

import json
import os
import shutil
import struct
import unicodedata

import cv2
import numpy as np
import pytest

from detector.base.errors import UserError
from detector.config.recipe import DataChoice
from detector.data.cache import cache_images
from detector.data.image_files import read_image
from detector.data.open import open_data, resolve_data
from detector.data.types import UnreadableImage, why_unreadable

ROW = "10 12 20 24 0 0 0 0 0 0\n"


def _image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (80, 60)))


@pytest.fixture
def official(tmp_path):
    """12 training images of 3 events and 3 val images, a face each."""
    return _official(tmp_path)


def _official(folder):
    root = folder / "wider"
    split = root / "wider_face_split"
    split.mkdir(parents=True)
    for part, count in (("train", 4), ("val", 1)):
        names = [f"{e}--Event/{part}_{i}.jpg" for e in range(3) for i in range(count)]
        for i, name in enumerate(names):
            _image(root / f"WIDER_{part}" / "images" / name, i)
        (split / f"wider_face_{part}_bbx_gt.txt").write_text(
            "".join(f"{name}\n1\n{ROW}" for name in names)
        )
    return root


def _open(root, parts=("train", "val"), **choice):
    return open_data(DataChoice(path=str(root), **choice), parts)


def test_official_layout(official):
    data = _open(official, holdout=0.25)
    assert (len(data.train), len(data.holdout), len(data.all_train), len(data.val)) == (9, 3, 12, 3)
    names = {label.name for label in data.train.labels}
    held = {label.name for label in data.holdout.labels}
    assert not names & held and len({name.split("/")[0] for name in held}) == 3
    assert data.root == official and data.warnings == [] and not data.has_landmarks
    assert data.train.image(0).shape == (60, 80, 3)
    assert data.train.labels[0].size == (0, 0)
    again = _open(official, holdout=0.25)
    assert again.fingerprint == data.fingerprint
    assert {label.name for label in again.holdout.labels} == held
    assert _open(official, holdout=0.25, seed=1).fingerprint != data.fingerprint
    assert len(_open(official, fraction=0.5).all_train) == 6


def test_fingerprint_sees_labels_and_files(official):
    before = _open(official).fingerprint
    text = official / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    text.write_text(text.read_text().replace("10 12", "11 12", 1))
    after = _open(official).fingerprint
    _image(official / "WIDER_val" / "images" / "0--Event" / "val_0.jpg", seed=99)
    assert len({before, after, _open(official).fingerprint}) == 3


def test_retinaface_layout(official, tmp_path):
    root = tmp_path / "retina"
    for part in ("train", "val"):
        shutil.copytree(official / f"WIDER_{part}" / "images", root / part / "images")
    names = [f"{e}--Event/train_{i}.jpg" for e in range(3) for i in range(4)]
    points = " ".join(f"{x} {y} 0.0" for x, y in ((15, 20), (25, 20), (20, 25), (16, 30), (24, 30)))
    (root / "train" / "label.txt").write_text(
        "".join(f"# {name}\n10 12 20 24 {points} 0.9\n" for name in names)
    )
    (root / "val" / "wider_val.txt").write_text(
        "".join(f"/{e}--Event/val_0.jpg\n" for e in range(3))
    )
    data = _open(root)
    assert data.has_landmarks and len(data.all_train) == 12 and len(data.val) == 3
    np.testing.assert_array_equal(data.train.labels[0].boxes, [[10, 12, 30, 36]])
    assert len(data.warnings) == 1 and "without boxes" in data.warnings[0]
    (root / "val" / "label.txt").write_text(
        "".join(f"# {e}--Event/val_0.jpg\n1 2 3 4\n" for e in range(3))
    )
    data = _open(root)
    assert data.warnings == [] and len(data.val.labels[0].boxes) == 1


def test_missing_images_are_counted_and_the_first_named(official):
    for i in (1, 2):
        (official / "WIDER_train" / "images" / "1--Event" / f"train_{i}.jpg").unlink()
    data = _open(official)
    assert len(data.all_train) == 10
    assert "2 of 12 listed images are missing" in data.warnings[0]
    assert "the first is 1--Event/train_1.jpg" in data.warnings[0]


def test_faults_of_the_folder(official, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        _open(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"no train images.*WIDER_train/images"):
        _open(empty)
    text = official / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    lines = text.read_text()
    text.write_text(lines + "5--Event/x.jpg\ntwo\n")
    with pytest.raises(UserError, match=rf"{text}:38: 'two'"):
        _open(official)
    assert len(_open(official, parts=("val",)).val) == 3  # needs no training images
    text.write_text("")
    with pytest.raises(UserError, match="lists no images"):
        _open(official)
    text.write_text(lines)
    shutil.rmtree(official / "WIDER_val")
    data = _open(official)
    assert len(data.val) == 0 and "no val images" in data.warnings[0]
    for file in (official / "WIDER_train" / "images").rglob("*.jpg"):
        file.unlink()
    with pytest.raises(UserError, match=r"none of the 12 images.*the first is 0--Event/train_0"):
        _open(official)
    text.unlink()
    with pytest.raises(UserError, match="missing annotation"):
        _open(official)


def test_too_few_images_for_a_holdout(official):
    (official / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(
        f"0--Event/train_0.jpg\n1\n{ROW}"
    )
    with pytest.raises(UserError, match="1 training images are too few"):
        _open(official)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_corrupt_image_is_skipped_and_counted(official, tmp_path, damage):
    data = _open(official)
    name = data.train.labels[4].name
    path = official / "WIDER_train" / "images" / name
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"<html>", "empty": b""}[damage])
    with pytest.raises(UnreadableImage, match=path.name):
        data.train.image(4)
    cache = cache_images(data.train, tmp_path / "cache", None)
    assert cache.skipped == [name] and len(cache) == len(data.train) - 1
    assert name not in {label.name for label in cache.labels}


def test_exif_orientation_leaves_pixels_as_stored(tmp_path):
    _image(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)  # orientation: 90°
    exif = b"Exif\0\0" + tiff
    (tmp_path / "turned.jpg").write_bytes(
        data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    )
    assert cv2.imread(str(tmp_path / "turned.jpg")).shape == (80, 60, 3)  # the fixture works
    np.testing.assert_array_equal(
        read_image(tmp_path / "turned.jpg"), read_image(tmp_path / "a.jpg")
    )


def test_grey_image_has_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.full((20, 30), 90, np.uint8))
    assert read_image(tmp_path / "grey.jpg").shape == (20, 30, 3)


def test_which_data_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_data(None)[0] == "synthetic"
    assert resolve_data("elsewhere") == ("elsewhere", "data: elsewhere")
    (tmp_path / "data" / "widerface").mkdir(parents=True)
    path, line = resolve_data(None)
    assert path == "data/widerface" and "data/widerface" in line
    assert resolve_data("synthetic")[0] == "synthetic"


def test_real_images(wider_root):
    data = _open(wider_root)
    assert (len(data.all_train), len(data.val)) == (869, 488)
    for images, boxes, events in ((data.all_train, 7082, 16), (data.val, 4719, 61)):
        # one box of each part has no size
        assert sum(len(label.boxes) for label in images.labels) == boxes - 1
        assert len({label.event for label in images.labels}) == events
    assert sum(int(label.ignore.sum()) for label in data.val.labels) == 37
    assert abs(len(data.holdout) - 0.2 * 869) < 3
    both = {label.event for label in data.holdout.labels} & {
        label.event for label in data.train.labels
    }
    assert len(both) == 15  # one event has a single image
    image = data.val.image(0)
    assert image.shape[1] == 1024
    assert not data.has_landmarks


# -- links, devices, pipes, permissions -------------------------------------------------------


def test_events_may_be_links(official, tmp_path):
    before = _open(official)
    images = official / "WIDER_train" / "images"
    for event in ("0--Event", "1--Event"):
        (images / event).rename(tmp_path / event)
        (images / event).symlink_to(tmp_path / event)
    (images / "0--Event" / "up").symlink_to(images)  # a circle
    after = _open(official)
    assert after.warnings == [] and after.fingerprint == before.fingerprint
    assert after.train.image(0).shape == (60, 80, 3)


def test_links_to_nothing_are_missing_and_pipes_and_devices_unreadable(official, tmp_path):
    images = official / "WIDER_train" / "images" / "0--Event"
    for name in ("train_0", "train_1", "train_2"):
        (images / f"{name}.jpg").unlink()
    (images / "train_0.jpg").symlink_to("nowhere")
    os.mkfifo(images / "train_1.jpg")
    (images / "train_2.jpg").symlink_to("/dev/zero")
    (images / "not_listed.jpg").symlink_to("nowhere")
    data = _open(official)
    assert len(data.warnings) == 1 and "1 of 12 listed images are missing" in data.warnings[0]
    assert "0--Event/train_0.jpg (is a link to nowhere, which" in data.warnings[0]
    cache = cache_images(data.all_train, tmp_path / "cache", None)
    assert sorted(cache.skipped) == ["0--Event/train_1.jpg", "0--Event/train_2.jpg"]
    why = why_unreadable(data.all_train, "0--Event/train_1.jpg")
    assert why == f"{images}/train_1.jpg: is a named pipe, not a file"


def test_a_folder_in_the_place_of_an_image_is_named(official):
    image = official / "WIDER_train" / "images" / "0--Event" / "train_0.jpg"
    image.unlink()
    image.mkdir()
    assert "train_0.jpg (is a folder, not a file); continuing" in _open(official).warnings[0]


@pytest.mark.parametrize(
    "part, says",
    [
        ("", "wider/{split}: its folder .*wider is closed"),
        ("wider_face_split", "{split}: its folder .*wider_face_split is closed"),
        ("{split}", "{split}: no permission"),
        ("WIDER_train", "WIDER_train/images: its folder .*WIDER_train is closed"),
        ("WIDER_train/images", "WIDER_train/images: no permission"),
        ("WIDER_train/images/1--Event", "WIDER_train/images/1--Event: no permission"),
        ("WIDER_val", "WIDER_val/images: its folder .*WIDER_val is closed"),
    ],
)
def test_what_is_closed_is_not_called_missing(public_path, closed, part, says):
    root, split = _official(public_path), "wider_face_split/wider_face_train_bbx_gt.txt"
    _open(root)  # imports all that a user without permission could not
    with (
        closed(root / part.format(split=split)),
        pytest.raises(UserError, match=says.format(split=split) + ".*; allow it with chmod"),
    ):
        _open(root)


def test_a_closed_folder_without_images_is_no_matter(public_path, closed):
    root = _official(public_path)
    (root / "WIDER_train" / "images" / "lost+found").mkdir()
    _open(root)
    with closed(root / "WIDER_train" / "images" / "lost+found"):
        assert len(_open(root).all_train) == 12


def test_a_pipe_or_device_as_annotation_is_one_line(official):
    text = official / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    text.unlink()
    os.mkfifo(text)
    with pytest.raises(UserError, match=r"bbx_gt.txt: cannot be read \(is a named pipe"):
        _open(official)
    text.unlink()
    text.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"bbx_gt.txt: cannot be read \(is a device"):
        _open(official)


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda name: f"./{name}",
        lambda name: name.replace("/", "//"),
        lambda name: name.replace("/", "\\"),
        lambda name: name.replace(".jpg", ".JPG"),
        lambda name: name.replace("--Event", "--event"),
    ],
)
def test_a_name_may_be_written_otherwise(official, write):
    for text in (official / "wider_face_split").iterdir():
        lines = text.read_text().splitlines()
        text.write_text("\n".join(write(line) if "--" in line else line for line in lines))
    data = _open(official)
    assert (len(data.all_train), len(data.val), data.warnings) == (12, 3, [])
    assert all(label.name.count("/") == 1 for label in data.all_train.labels)
    assert data.val.image(0).shape == (60, 80, 3) and data.val.size(0) == (80, 60)


@pytest.mark.parametrize("on_disk, listed", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_encoded_otherwise(tmp_path, on_disk, listed):
    name = "0--Été/é.jpg"
    _image(tmp_path / "val" / "images" / unicodedata.normalize(on_disk, name))
    text = f"# {unicodedata.normalize(listed, name)}\n1 2 3 4\n"
    (tmp_path / "val" / "label.txt").write_text(text)
    data = _open(tmp_path, parts=("val",))
    assert data.warnings == [] and data.val.image(0).shape == (60, 80, 3)


def test_images_that_differ_in_their_suffix_alone_are_refused(tmp_path):
    """Metrics know images without their suffix; one's predictions would replace the other's."""
    names = ["e/001.jpg", "e/002.jpg", "e/001.png"]
    for name in names[:2]:
        _image(tmp_path / "val" / "images" / name)
    (tmp_path / "annotations").mkdir()
    content = [{"file_name": name, "annotations": [{"bbox": [1, 2, 9, 9]}]} for name in names]
    text = tmp_path / "annotations" / "val.json"
    text.write_text(json.dumps(content))
    assert len(_open(tmp_path, parts=("val",)).val) == 2  # a missing image has no predictions
    _image(tmp_path / "val" / "images" / names[2])
    with pytest.raises(UserError, match=rf"{text}: lists e/001.jpg and e/001.png, .*; rename one"):
        _open(tmp_path, parts=("val",))


# -- SCRFD ------------------------------------------------------------------------------------


def test_the_published_layout_of_scrfd(official, tmp_path):
    root = tmp_path / "scrfd"
    points = "15 20 0 25 20 1 20 25 0 16 30 0 24 30 0"
    for part in ("train", "val"):
        shutil.copytree(official / f"WIDER_{part}" / "images", root / part / "images")
        names = sorted(p.relative_to(root / part / "images") for p in root.rglob(f"{part}_*.jpg"))
        (root / part / "labelv2.txt").write_text(
            "".join(
                f"# {name} 80 60\n10 12 30 36 {points}\n1 2 9 9{' -1' * 15}\n" for name in names
            )
        )
    data = _open(root)
    assert (len(data.all_train), len(data.val), data.warnings) == (12, 3, [])
    label = data.val.labels[0]
    assert label.name == "0--Event/val_0.jpg" and label.size == (80, 60)
    np.testing.assert_array_equal(label.boxes, [[10, 12, 30, 36], [1, 2, 9, 9]])
    assert np.isfinite(label.landmarks[0]).all() and np.isnan(label.landmarks[1]).all()
