"""Shipped files by name, from any folder."""

import pytest

from detector.base.errors import UserError
from detector.config.shipped import SHIPPED, find_file, shipped_files


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("space", "retina", "retina.yaml"),
        ("preset", "scrfd_0.5g", "presets/scrfd_0.5g.yaml"),
        ("recipe", "short", "recipes/short.yaml"),
        ("table", "table", "table.json"),
    ],
)
def test_a_name_a_file_name_and_the_path_in_the_checkout(kind, name, path):
    for given in (name, path.split("/")[-1], f"search_spaces/{path}"):
        assert find_file(given, kind) == SHIPPED / path


@pytest.mark.parametrize("kind", ["space", "preset", "recipe", "table"])
def test_every_shipped_file_is_found_by_its_stem(kind):
    assert shipped_files(kind)
    for file in shipped_files(kind):
        assert find_file(file.stem, kind) == file


def test_a_file_that_exists_comes_first(elsewhere):
    own = elsewhere / "retina.yaml"
    own.write_text("name: own\n")
    assert find_file("retina.yaml", "space").read_text() == own.read_text()
    assert find_file("retina", "space") == SHIPPED / "retina.yaml"
    (elsewhere / "quick").mkdir()
    assert find_file("quick", "space") == SHIPPED / "quick.yaml"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "space",
            "retnia",
            r"space 'retnia' is unknown; did you mean retina\? There are mobile, quick, retina, ",
        ),
        (
            "space",
            "yunet_n",
            r"space 'yunet_n' is unknown; did you mean yunet\? There are mobile, quick, retina, ",
        ),
        ("recipe", "long.yaml", "long.yaml: no such file; give another one, or a recipe by name: "),
        ("preset", "my/yunet_n", "my/yunet_n: no such file; give another one, or a preset by name"),
        ("preset", "x" * 5000, "is unknown; there are damofd_0.5g, "),
    ],
)
def test_an_unknown_one_lists_the_known_ones(kind, name, message):
    with pytest.raises(UserError, match=message):
        find_file(name, kind)
