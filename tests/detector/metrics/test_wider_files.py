"""Prediction files: a round trip, the quick way against the careful one, and bad lines named."""

import os
import unicodedata

import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.types import image_key
from detector.metrics import wider_files
from detector.metrics.wider_files import (
    parse_predictions,
    read_predictions,
    write_predictions,
)


def test_what_is_written_comes_back_equal(tmp_path):
    rng = np.random.default_rng(0)
    whole = np.concatenate([rng.integers(-5, 900, (7, 4)), rng.random((7, 1))], axis=1)
    broken = rng.normal(0, 100, (3, 5))
    tiny = np.array([[1, 2, 3, 4, np.float64(np.float32(2.5e-7))]])
    written = {"a/x.jpg": whole, "a/y": broken, "b/z.png": np.zeros((0, 5)), "b/w.jpg": tiny}
    write_predictions(tmp_path, written)
    read, missing = read_predictions(tmp_path, written)
    assert missing == []
    assert list(read) == list(written)
    for name, rows in written.items():
        assert read[name].shape == rows.shape
        assert (read[name] == rows).all()
    first = (tmp_path / "a" / "x.txt").read_text().splitlines()
    assert first[:2] == ["x", "7"]
    assert first[2].split()[:4] == [str(int(v)) for v in whole[0, :4]]


@pytest.mark.parametrize(
    "text",
    [
        b"x\n2\n1 2 3 4 0.5 \n5 6 7 8 2.5e-07 \n",
        b"a/x.jpg\r\n2\r\n1 2 3 4 0.5\r\n5 6 7 8 2.5e-07\r\n",
        b"x\n2 \n1 2 3 4 0.5\n5 6 7 8 2.5e-07",
        b"x\n2\n  1 2 3 4 .5\t\n\n5  6 7\t8 2.5e-07\n\n \n",
    ],
)
def test_the_same_boxes_however_they_are_spaced(text):
    expected = [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 2.5e-07]]
    assert parse_predictions([(text, "f")])[0].tolist() == expected
    between = [(b"a\n1\n9 9 9 9 1\n", "e"), (text, "f"), (b"b\n0\n", "g")]
    assert [rows.tolist() for rows in parse_predictions(between)] == [
        [[9, 9, 9, 9, 1]],
        expected,
        [],
    ]


@pytest.mark.parametrize("text", [b"x\n0\n", b"x\n0", b"x\n0\n\n", b"x\r\n0\r\n \r\n"])
def test_no_boxes(text):
    assert parse_predictions([(text, "f")])[0].shape == (0, 5)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"", "f:1: line 1 must be"),
        (b"x\n", "f:2: line 1 must be"),
        (b"x\nmany\n1 2 3 4 0.5\n", "f:2: line 1 must be"),
        (b"x\n2\n1 2 3 4 0.5\n1 2 3 4\n", "f:4: '1 2 3 4' is not"),
        (b"x\n2\n1 2 3 4 0.5\n1 2 3 4 0.5 6\n", "f:4: "),
        (b"x\n2\n1 2 3 4\n0.5 1 2 3 4 0.5\n", "f:3: "),  # ten numbers, in the wrong lines
        (b"x\n2\n1 2 3 4 0.5\n\n1 2 three 4 0.5\n", "f:5: '1 2 three 4 0.5' is not"),
        (b"x\n1\n1 2 3 4 nan\n", "f:3: "),
        (b"x\n1\n1 2 inf 4 0.5\n", "f:3: "),
        (b"x\n1\n1,2,3,4,0.5\n", "f:3: "),
        (b"x\n3\n1 2 3 4 0.5\n", "f:2: says 3 boxes, but 1 follow"),
        (b"x\n1\n1 2 3 4 \xff\n", "f:3: "),
        (b"x\n1\n1 2 3  0.5\n", "f:3: "),
        (b"x\n1\n1 2 3 4 0.5\n5 6 7 8 0.5\n", "f:2: says 1 boxes, but 2 follow"),
    ],
)
def test_bad_lines_are_named(text, place):
    with pytest.raises(UserError) as caught:
        parse_predictions([(b"a\n1\n9 9 9 9 1\n", "e"), (text, "f")])
    assert str(caught.value).startswith(place)
    assert "\n" not in str(caught.value)


def test_quick_and_careful_reading_agree():
    rng = np.random.default_rng(1)
    for _ in range(50):
        lines = []
        for _ in range(rng.integers(1, 5)):
            numbers = [repr(float(v)) for v in rng.normal(0, 10.0 ** rng.integers(-9, 9), 5)]
            if rng.random() < 0.2:
                numbers = numbers[:4] if rng.random() < 0.5 else [*numbers, "7"]
            lines.append(" ".join(numbers) + " " * rng.integers(0, 2))
        body = ("\n".join(lines) + "\n").encode()
        quick = wider_files._parse_even_lines(body)
        try:
            careful = wider_files._parse_lines(body.count(b"\n"), body, "f")
        except UserError:
            assert quick is None
        else:
            assert (quick == careful).all()


def test_missing_files_are_reported_and_invalid_ones_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x\n1\n1 2 3 4 0.5\n")
    read, missing = read_predictions(tmp_path, ["a/w.jpg", "a/x.jpg", "b/v"])
    assert missing == ["a/w.jpg", "b/v"]
    assert [len(rows) for rows in read.values()] == [0, 1, 0]
    (tmp_path / "a" / "x.txt").write_text("x\n1\n1 2 3 4 half\n")
    with pytest.raises(UserError, match=r"a/x\.txt:3: "):
        read_predictions(tmp_path, ["a/x.jpg"])
    with pytest.raises(UserError, match="no such folder"):
        read_predictions(tmp_path / "none", ["a/x.jpg"])


def test_names_lose_the_suffix_of_images_only():
    assert image_key("0--Parade/0_Parade_1.jpg") == "0--Parade/0_Parade_1"
    assert image_key("a/b.PNG") == "a/b"
    assert image_key("a/jpg") == "a/jpg"
    assert image_key("a/v1.5") == "a/v1.5"


def test_files_are_found_under_names_written_otherwise(tmp_path):
    decomposed = unicodedata.normalize("NFD", "é/É.jpg")
    write_predictions(tmp_path, {"a/X.jpg": ONE, decomposed: ONE, "b/y.jpg": ONE, "b/Y.jpg": ONE})
    names = ["a/x.jpg", unicodedata.normalize("NFC", decomposed), "b/y.jpg", "c/none.jpg"]
    read, missing = read_predictions(tmp_path, names)
    assert missing == ["c/none.jpg"]
    assert [len(read[name]) for name in names] == [1, 1, 1, 0]


def test_pipes_and_closed_folders_are_one_line(public_path, closed):
    write_predictions(public_path / "p", {"a/x.jpg": ONE})
    os.mkfifo(public_path / "p" / "a" / "y.txt")
    with pytest.raises(UserError, match=r"a/y.txt: cannot be read \(is a named pipe"):
        read_predictions(public_path / "p", ["a/y.jpg"])
    with closed(public_path / "p" / "a"), pytest.raises(UserError, match="p/a is closed to this"):
        read_predictions(public_path / "p", ["a/x.jpg"])


ONE = np.array([[1.0, 2, 3, 4, 0.5]])
