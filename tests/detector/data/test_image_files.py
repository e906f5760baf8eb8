"""Images that would take too much memory, or that are no files."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from detector.data import image_files
from detector.data.image_files import read_image, read_size
from detector.data.types import UnreadableImage


def png(width: int, height: int) -> bytes:
    """A PNG of black pixels whose data ends early."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp(width: int, height: int) -> bytes:
    fields = (40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", *fields)


def pnm(width: int, height: int) -> bytes:
    return f"P6 {width} {height} 255\n".encode()


def gif(width: int, height: int) -> bytes:
    block = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02L\x01\0;"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + block


@pytest.mark.parametrize("write", [png, bmp, pnm, gif])
def test_the_header_of_a_huge_image_is_enough_to_refuse_it(tmp_path, monkeypatch, write):
    def decode(*args):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    path = tmp_path / "huge.jpg"  # the suffix says nothing
    path.write_bytes(write(30_000, 30_000))
    for read in (read_image, read_size):
        with pytest.raises(
            UnreadableImage, match=r"huge.jpg: has 30,000×30,000 px, more than the 250,000,000"
        ):
            read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".gif", ".avif", ".jp2"])
def test_the_limit_counts_for_every_format(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.full((64, 80, 3), 90, np.uint8))
    assert read_image(path).shape == (64, 80, 3) and read_size(path) == (80, 64)
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", 64 * 80)
    assert read_image(path).shape == (64, 80, 3)
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", 64 * 80 - 1)
    with pytest.raises(UnreadableImage, match="80×64 px, more than"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_size])
def test_what_is_no_file_is_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    for name, says in {"pipe": "named pipe", "zero": "device", "gone": "link to nowhere"}.items():
        with pytest.raises(UnreadableImage, match=f"{name}: is a {says}"):
            read(tmp_path / name)


def test_a_file_larger_than_any_image(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(UnreadableImage, match=r"has 1000.0 GB; at most 1.1 GB are read"):
        read_image(tmp_path / "a.jpg")
