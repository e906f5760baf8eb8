"""The two annotation formats, against files written by hand."""

import numpy as np
import pytest

from detector.base.errors import UserError
from detector.data.annotations.text_formats import read_names, read_retinaface, read_wider

WIDER = """\
0--Parade/a.jpg
3
10 20 30 40 0 0 0 0 2 0
5 6 0 8 1 0 0 0 0 0
-4 -5 10 12 2 0 0 1 0 0
1--Party/none.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Party/bare.jpg
0
2--Last/z.jpg
1
1 2 3 4 0 0 0 0 0 0
"""


def _write(folder, text):
    path = folder / "labels.txt"
    path.write_text(text)
    return path


def test_wider_boxes_flags_and_empty_images(tmp_path):
    trailing = WIDER.replace("2 0\n", "2 0 \n")  # the official file has such blanks
    found = read_wider(_write(tmp_path, trailing))
    assert [label.name for label in found.labels] == [
        "0--Parade/a.jpg",
        "1--Party/none.jpg",
        "1--Party/bare.jpg",
        "2--Last/z.jpg",
    ]
    first = found.labels[0]
    assert first.event == "0--Parade" and first.size == (0, 0)
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [0, 0, 6, 7]])  # clipped at 0
    np.testing.assert_array_equal(first.ignore, [False, True])  # invalid
    assert first.boxes.dtype == np.float32 and np.isnan(first.landmarks).all()
    assert [len(label.boxes) for label in found.labels] == [2, 0, 0, 1]
    assert found.labels[1].landmarks.shape == (0, 5, 2)
    assert found.dropped == 1  # of zero width


@pytest.mark.parametrize(
    "text, line, says",
    [
        ("a/b.jpg\nmany\n", 2, "number of faces"),
        ("a/b.jpg\n", 2, "end of the file"),
        ("a/b.jpg\n2\n1 2 3 4 0 0 0 0 0 0\nc/d.jpg\n0\n", 4, "face 2 of 2"),
        ("a/b.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n1 2 3 4 0 0 0 0 0 0\n", 4, "more faces than the 1"),
        ("a/b.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", 3, "face 1 of 1"),
        ("a/b.jpg\n1\n1 2 nan 4 0 0 0 0 0 0\n", 3, "face 1 of 1"),
        ("a/b.jpg\n1\n1 2 3\n", 3, "x y w h"),
        ("b.jpg\n0\n", 1, "event/file.jpg"),
        ("a/../b.jpg\n0\n", 1, "event/file.jpg"),
        ("a/b.jpg\n0\na/b.jpg\n0\n", 3, "listed twice"),
    ],
)
def test_wider_bad_lines_are_named(tmp_path, text, line, says):
    path = _write(tmp_path, text)
    with pytest.raises(UserError, match=says) as error:
        read_wider(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(error.value)


RETINAFACE = """\
# 0--Parade/a.jpg
449 330 122 149 488.9 373.6 0.0 542.1 376.4 0.0 515.0 412.8 0.0 485.2 425.9 1.0 538.4 431.5 0.0 0.82
10 20 5 6 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 0.1
# 0--Parade/none.jpg
# 1--Party/boxes.jpg
1 2 3 4
"""


def test_retinaface_landmarks(tmp_path):
    a, none, boxes = read_retinaface(_write(tmp_path, RETINAFACE)).labels
    np.testing.assert_array_equal(a.boxes, [[449, 330, 571, 479], [10, 20, 15, 26]])
    np.testing.assert_allclose(
        a.landmarks[0],
        [(488.9, 373.6), (542.1, 376.4), (515.0, 412.8), (485.2, 425.9), (538.4, 431.5)],
        rtol=1e-6,
    )
    assert np.isnan(a.landmarks[1]).all() and not a.ignore.any()
    assert len(none.boxes) == 0
    np.testing.assert_array_equal(boxes.boxes, [[1, 2, 4, 6]])


@pytest.mark.parametrize(
    "text, line",
    [
        ("1 2 3 4\n", 1),
        ("# a/b.jpg\n1 2 3\n", 2),
        ("# a/b.jpg\nface\n", 2),
        ("# a/b.jpg\n# a/b.jpg\n", 2),
        ("#\n", 1),
    ],
)
def test_retinaface_bad_lines_are_named(tmp_path, text, line):
    path = _write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_retinaface(path)
    assert str(error.value).startswith(f"{path}:{line}: ")


def test_bare_list(tmp_path):
    found = read_names(_write(tmp_path, "/0--Parade/a.jpg\n/0--Parade/b.jpg\n"))
    assert [label.name for label in found.labels] == ["0--Parade/a.jpg", "0--Parade/b.jpg"]


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xff\xd8\xff\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_wider(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_wider(tmp_path / "missing.txt")
