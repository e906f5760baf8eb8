"""Files below a folder, through links, and names that mean the same file."""

import os
import unicodedata

import pytest

from detector.base import listing
from detector.base.errors import UserError
from detector.base.listing import clean_name, find_names, list_files


def test_links_are_followed_and_circles_are_not(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a").mkdir(parents=True)
    outside.mkdir()
    for path in (inside / "x", inside / "a" / "y", outside / "z"):
        path.write_text("")
    (inside / "far").symlink_to(outside)
    (inside / "again").symlink_to(outside)  # the same folder twice is no circle
    (inside / "a" / "up").symlink_to(inside)
    (outside / "back").symlink_to(inside / "a")
    (inside / "dangling").symlink_to("nowhere")
    (inside / "self").symlink_to("self")
    os.mkfifo(inside / "pipe")
    found = list_files(inside)
    assert found.closed == {}
    assert sorted(found.files) == [
        "a/y",
        "again/back/y",
        "again/z",
        "dangling",
        "far/back/y",
        "far/z",
        "pipe",
        "self",
        "x",
    ]
    assert found.files["far/z"].path == str(inside / "far" / "z")


def test_what_cannot_be_listed_is_reported(public_path, closed):
    (public_path / "in" / "b").mkdir(parents=True)
    (public_path / "in" / "a").write_text("")
    with closed(public_path / "in" / "b"):
        found = list_files(public_path / "in")
    assert list(found.files) == ["a"] and list(found.closed) == ["b"]
    assert isinstance(found.closed["b"], PermissionError)
    assert isinstance(list_files(public_path / "missing").closed[""], FileNotFoundError)
    assert isinstance(list_files(public_path / "in" / "a").closed[""], NotADirectoryError)


def test_links_that_multiply_end_at_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_FILES", 500)
    for level in range(12):
        (tmp_path / str(level)).mkdir()
        (tmp_path / str(level) / "file").write_text("")
    for level in range(11):
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    with pytest.raises(UserError, match="more than 500 files, perhaps by links"):
        list_files(tmp_path / "0")


@pytest.mark.parametrize(
    "name",
    ["a/x.jpg", "./a/x.jpg", "a//x.jpg", "a/./x.jpg", "a\\x.jpg", ".\\a\\\\x.jpg", "/a/x.jpg"],
)
def test_one_name_for_one_file(name):
    assert clean_name(name) == "a/x.jpg"


def test_parent_folders_stay_in_a_name():
    assert clean_name("..\\x.jpg") == "../x.jpg" and clean_name(".a/x.jpg") == ".a/x.jpg"


def test_names_that_mean_a_file():
    composed, decomposed = (unicodedata.normalize(form, "Été/é.jpg") for form in ("NFC", "NFD"))
    assert find_names(["a", "b"], ["b", "a", "c"]) == {"a": "a", "b": "b"}
    assert find_names([composed], [decomposed]) == {composed: decomposed}
    assert find_names([decomposed], [composed]) == {decomposed: composed}
    assert find_names(["a/X.JPG"], ["A/x.jpg"]) == {"a/X.JPG": "A/x.jpg"}
    assert find_names(["A.jpg"], ["a.jpg", "a.JPG"]) == {}  # either could be meant
    assert find_names(["A.jpg", "a.jpg"], ["a.jpg"]) == {"a.jpg": "a.jpg"}  # it is taken
    assert find_names(["A.jpg", "a.JPG"], ["a.jpg"]) == {}  # only one of them can be right
    assert find_names(["a.jpg"], ["a.jpg", "A.jpg"]) == {"a.jpg": "a.jpg"}
    assert find_names(["a/x"], ["a\\x"]) == {"a/x": "a\\x"}
