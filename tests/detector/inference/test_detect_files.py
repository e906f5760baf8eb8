"""Faces in files: damaged, odd and huge pictures, videos, batches, and where results go."""

import json
import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detector.base.errors import UserError
from detector.boxes.anchors import anchors
from detector.boxes.coding import encode
from detector.config.recipe import Evaluation
from detector.inference import media
from detector.inference.detect_files import FileDetector
from detector.inference.media import find_sources, read_picture
from detector.inference.video_files import is_cut


class LowerRight(nn.Module):
    """Finds one face wherever it looks, the lower right quarter, and landmarks at its corner."""

    def __init__(self, config):
        super().__init__()
        self.config, self.seen = config, []

    def forward(self, images):
        batch, _, height, width = images.shape
        self.seen.append((batch, height, width))
        grid = anchors(self.config, (height, width))
        wanted = torch.tensor([width / 2, height / 2, width, height]).expand_as(grid)
        logits = torch.tensor([0.0, -20.0]).repeat(batch, len(grid), 1)
        logits[:, 0, 1] = 4
        centers, sizes = (grid[:, :2] + grid[:, 2:]) / 2, grid[:, 2:] - grid[:, :2]
        points = (torch.tensor([width / 2, height / 2]) - centers) / (sizes * 0.1)
        return {
            "class_logits": logits,
            "box_deltas": encode(wanted, grid).repeat(batch, 1, 1),
            "landmark_deltas": points.repeat(batch, 1, 5),
        }


@pytest.fixture
def net(preset):
    return LowerRight(preset("retinaface_mobile025"))


def found_in(net, paths, output, visualize=False, **how):
    detector = FileDetector(net, net.config, Evaluation(score_threshold=0.5), **how)
    return list(detector.detect(find_sources(paths), output, visualize))


def picture(path, height=60, width=80, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def test_results_are_px_of_the_picture(net, tmp_path):
    picture(tmp_path / "in" / "a" / "x.png", 200, 400)
    picture(tmp_path / "in" / "x.png", 30, 50)
    results = found_in(net, [tmp_path / "in"], tmp_path / "out", True, max_size=100)
    assert net.seen == [(1, 50, 100), (1, 30, 50)]  # nothing is scaled up
    assert [f.faces for f in results] == [1, 1] and not any(f.error or f.notes for f in results)
    content = json.loads((tmp_path / "out" / "a" / "x.png.json").read_text())
    (face,) = content["annotations"]
    assert (content["file_name"], content["width"], content["height"]) == ("a/x.png", 400, 200)
    assert face["bbox"] == pytest.approx([200, 100, 400, 200], abs=0.02)
    assert face["landmarks"] == [pytest.approx([200, 100], abs=0.02)] * 5
    assert face["score"] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-4)
    drawn = cv2.imread(str(tmp_path / "out" / "a" / "x.png.drawn.jpg"))
    assert drawn.shape == (200, 400, 3)
    assert drawn[100, 300, 1] > 150 and (abs(drawn[30, 30].astype(int) - 90) < 6).all()
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "x.png.drawn.jpg",
        "x.png.drawn.jpg",
        "x.png.json",
        "x.png.json",
    ]


def damaged(folder):
    """Files that cannot be read: a JPEG cut short, one of no bytes, text, a folder's worth."""
    whole = picture(folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("<html>")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def test_unreadable_files_are_reported_and_the_rest_is_done(net, tmp_path):
    results = found_in(net, [damaged(tmp_path / "in")], tmp_path / "out", batch_size=4)
    faults = {f.source.name: f.error for f in results if f.error}
    assert set(faults) == {"cut.jpg", "empty.jpg", "text.png", "empty.mp4"}
    assert all(str(tmp_path) in fault and "\n" not in fault for fault in faults.values())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["whole.jpg.json"]


def turned(path, orientation=6):
    """A JPEG of 60 rows and 80 columns that its EXIF turns by 90°."""
    data = picture(path).read_bytes()
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    return path


def test_odd_pictures(net, tmp_path):
    folder = tmp_path / "in"
    picture(folder / "pixel.png", 1, 1)
    cv2.imwrite(str(folder / "grey.jpg"), np.full((40, 50), 90, np.uint8))
    cv2.imwrite(str(folder / "alpha.png"), np.full((40, 50, 4), 90, np.uint8))
    cv2.imwrite(str(folder / "deep.png"), np.full((40, 50), 9000, np.uint16))
    Image.new("CMYK", (50, 40), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    turned(folder / "turned.jpg")
    results = found_in(net, [folder], tmp_path / "out", True, batch_size=3)
    assert [f.faces for f in results] == [1] * 6 and not any(f.error for f in results)

    def size(name):
        content = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        return content["width"], content["height"]

    assert size("pixel.png") == (1, 1) and size("turned.jpg") == (60, 80)  # upright
    red = read_picture(find_sources([folder / "cmyk.jpg"])[0]).resized
    assert red[20, 25, 2] > 200 > 60 > red[20, 25, 0]


def test_20000_px_are_scaled_down_and_reported(net, tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_PIXELS", 200 * 200)
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((20, 20_000, 3), np.uint8))
    (found,) = found_in(net, [tmp_path / "wide.png"], tmp_path / "out")
    assert found.faces == 1 and "20,000×20 px, scaled down to" in found.notes[0]
    ((_, height, width),) = net.seen
    assert height * width <= 200 * 200 and width > 5000
    (face,) = json.loads((tmp_path / "out" / "wide.png.json").read_text())["annotations"]
    assert face["bbox"] == pytest.approx([10_000, 10, 20_000, 20], abs=0.1)


def test_a_picture_too_long_for_a_jpeg_is_drawn_smaller(net, tmp_path):
    cv2.imwrite(str(tmp_path / "long.png"), np.zeros((8, 70_000, 3), np.uint8))
    (found,) = found_in(net, [tmp_path / "long.png"], tmp_path / "out", True, max_size=500)
    assert (found.faces, found.error) == (1, "")
    assert cv2.imread(str(tmp_path / "out" / "long.png.drawn.jpg")).shape[1] == 65_500


def test_neighbours_of_one_shape_share_a_batch_and_order_stays(net, tmp_path):
    shapes = [(40, 50)] * 3 + [(50, 40)] + [(40, 50)] * 2
    for i, (height, width) in enumerate(shapes):
        picture(tmp_path / "in" / f"{i}.png", height, width)
    for workers in (1, 5):
        net.seen.clear()
        results = found_in(net, [tmp_path / "in"], tmp_path / "out", batch_size=2, workers=workers)
        assert net.seen == [(2, 40, 50), (1, 40, 50), (1, 50, 40), (2, 40, 50)]
        assert [f.source.name for f in results] == [f"{i}.png" for i in range(6)]


def clip(path, width=96, height=64, codec="MJPG"):
    """A video of five frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10.0, (width, height))
    for value in range(0, 250, 50):
        writer.write(np.full((height, width, 3), value, np.uint8))
    writer.release()
    return path


@pytest.fixture
def video(tmp_path):
    return clip(tmp_path / "clip.avi")


def test_video(net, tmp_path, video):
    (found,) = found_in(net, [video], tmp_path / "out", True, batch_size=2, max_size=48)
    assert (found.frames, found.faces, found.error) == (5, 5, "")
    assert net.seen == [(2, 32, 48)] * 2 + [(1, 32, 48)]
    content = json.loads((tmp_path / "out" / "clip.avi.json").read_text())
    assert (content["fps"], content["width"], content["height"]) == (10, 96, 64)
    assert [row["index"] for row in content["frames"]] == [0, 1, 2, 3, 4]
    (face,) = content["frames"][4]["annotations"]
    assert face["bbox"] == pytest.approx([48, 32, 96, 64], abs=0.02)
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "clip.avi.drawn.mp4"))
    assert sum(1 for _ in iter(lambda: drawn.read()[0], False)) == 5


def test_a_video_may_have_any_name(net, tmp_path, video, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = Path(os.fsdecode(b"out\xff"))
    names = (os.fsdecode(b"not utf-8 \xff.avi"), "10:30.avi", "50%d.avi", "ü.avi")
    for name in names:
        shutil.copy(video, name)
    results = found_in(net, [Path(name) for name in names], output, True)
    assert [(f.frames, f.error, f.drawing_error) for f in results] == [(5, "", "")] * 4
    assert sorted(p.name for p in output.iterdir()) == sorted(
        f"{name}{suffix}" for name in names for suffix in (".json", ".drawn.mp4")
    )
    shutil.copy(output / f"{names[0]}.drawn.mp4", "drawn.mp4")
    drawn = cv2.VideoCapture("drawn.mp4")
    assert sum(1 for _ in iter(lambda: drawn.read()[0], False)) == 5


def test_a_video_that_cannot_be_drawn_does_not_stop_the_others(net, tmp_path, video):
    flat = clip(tmp_path / "a.avi", height=1)  # H.263 and its successors have at least two lines
    first, second = found_in(net, [flat, video], tmp_path / "out", True)
    assert (first.frames, first.error) == (5, "") == (second.frames, second.drawing_error)
    assert first.drawing_error == (
        f"{flat}: OpenCV writes no video of 96×1 px at 10 frames per second"
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.avi.json",
        "clip.avi.drawn.mp4",
        "clip.avi.json",
    ]


def changed(path, at, content):
    data = bytearray(path.read_bytes())
    start = data.index(at) + len(at)
    data[start : start + len(content)] = content
    path.write_bytes(data)
    return path


def test_fewer_frames_than_stated_are_an_error_only_if_a_file_is_cut(net, tmp_path, video):
    intact = [
        # Matroska's duration is that of the longest track: here of sound, say.
        changed(clip(tmp_path / "a.mkv"), b"\x44\x89\x88", struct.pack(">d", 700)),
        # The edit list of an MP4 ends before its last frames.
        changed(
            clip(tmp_path / "b.mp4", codec="mp4v"),
            b"elst",
            struct.pack(">IIIiI", 0, 1, 300, 0, 65536),
        ),
    ]
    for found, frames, count in zip(found_in(net, intact, tmp_path / "out"), (5, 3), (7, 5)):
        path = found.source.path
        assert (found.frames, found.error) == (frames, "")
        assert found.notes == [f"{path}: has {frames} frames, though its file says {count}"]
    cut = [tmp_path / "c.avi", tmp_path / "c.mkv"]
    for path, whole in zip(cut, (video, clip(tmp_path / "whole.mkv"))):
        data = whole.read_bytes()
        path.write_bytes(data[: data.rindex(b"\xff\xd8")])  # where the last JPEG begins
    for path, found in zip(cut, found_in(net, cut, tmp_path / "out")):
        assert (found.frames, found.notes) == (4, [])
        assert found.error == f"{path}: ends after 4 of 5 frames; those are done"


def box(name, *parts):
    """Of an MP4 file; its length in 64 bits if it is mdat."""
    content = b"".join(parts)
    if name == b"mdat":
        return struct.pack(">I4sQ", 1, name, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


@pytest.mark.parametrize(
    "content",
    [
        box(b"ftyp", b"isom") + box(b"moov", bytes(90)) + box(b"mdat", bytes(99)),
        b"RIFF\4\0\0\0AVI RIFF\x0a\0\0\0AVIX" + bytes(6),
        b"\x1a\x45\xdf\xa3\x83abc\x18\x53\x80\x67\x40\x05abcde",
    ],
)
def test_a_file_is_cut_if_its_last_part_is(tmp_path, content):
    path = tmp_path / "video"
    for end in range(len(content) - 5, len(content)):
        path.write_bytes(content[:end])
        assert is_cut(path)
    for rest in (b"", bytes(30)):
        path.write_bytes(content + rest)
        assert not is_cut(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\1\xba" + bytes(20),  # MPEG: no length
        struct.pack(">I4s", 0, b"mdat") + bytes(9),  # up to the end, however long
        b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7,  # Matroska that was streamed
        b"\x1a\x45\xdf\xa3",
    ],
)
def test_a_file_of_unknown_length_is_not_cut(tmp_path, content):
    (tmp_path / "video").write_bytes(content)
    assert not is_cut(tmp_path / "video")


def test_sources(tmp_path):
    picture(tmp_path / "a" / "x.jpg")
    picture(tmp_path / "b" / "x.jpg")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    assert [s.name for s in find_sources([tmp_path])] == ["a/x.jpg", "b/x.jpg"]
    assert [s.name for s in find_sources([tmp_path / "a" / "x.jpg"] * 2)] == ["x.jpg"]
    for paths, says in (
        ([tmp_path / "no.jpg"], "no such file"),
        ([tmp_path / "empty"], "no images or videos"),
        ([tmp_path / "a", tmp_path / "b"], "the same name"),
    ):
        with pytest.raises(UserError, match=says):
            find_sources(paths)
