"""Commands whose input has nothing usable: exit code 2 and one line, before anything is trained."""

import cv2
import helpers
import numpy as np
import pytest

from nas import evaluate, retrain, search
from nas.terminal import cli


@pytest.fixture
def wider_folder(tmp_path):
    """Function: a face "x y w h invalid" of each image, or None → a folder in WIDER FACE's
    layout."""

    def make(face: str | None, content: bytes | None = None):
        root = tmp_path / "data"
        picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
        content = content or cv2.imencode(".jpg", picture)[1].tobytes()
        for part in ("train", "val"):
            lines = []
            for number in range(8):
                name = f"event/{part}_{number}.jpg"
                path = root / f"WIDER_{part}" / "images" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                x, y, w, h, invalid = (face or "0 0 0 0 0").split()
                lines += [name, "1" if face else "0", f"{x} {y} {w} {h} 0 0 0 {invalid} 0 0"]
            split = root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
            split.parent.mkdir(exist_ok=True)
            split.write_text("\n".join(lines) + "\n")
        return root

    return make


def call(capsys, module, *flags) -> tuple[int, str, str]:
    argv = ["--tracking-uri", "none", *map(str, flags)]
    code = cli.main(module.make_parser(), module.run, argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


FACES = [
    (None, "none of the 6 training images has a face"),
    ("9 9 6 6 0", "none of which counts at any level"),
    ("9 9 60 60 1", "none of which counts at any level"),
]


@pytest.mark.parametrize(("face", "message"), FACES)
def test_nothing_to_learn_or_to_compare(wider_folder, tiny_space, tmp_path, capsys, face, message):
    runs = tmp_path / "runs"
    shared = ["--runs-dir", runs, "--data", wider_folder(face)]
    find = [search, "--space", tiny_space, "--trials", "2", *shared]
    for command in (find, [*find, "--dry-run"], [retrain, "--preset", "yunet_s", *shared]):
        code, _, err = call(capsys, *command)
        assert code == 2 and message in err and err.count("\n") == 1
    assert not runs.exists()


def test_no_val_image_can_be_read(wider_folder, untrained_model, tmp_path, capsys):
    weights = untrained_model(tmp_path / "best", helpers.TINY_DETECTOR) / "weights.pt"
    data = wider_folder("9 9 60 60 0", content=b"no image")
    code, out, err = call(capsys, evaluate, "--checkpoint", weights, "--data", data)
    assert code == 2 and "none of the 8 val images can be read" in err and "AP" not in out
