"""Atomic writes: all or nothing, and nothing left over."""

import errno
import os
import stat

import pytest

from detector.base.errors import UserError
from detector.base.files import atomic_path, write_bytes, write_text


def test_text_and_bytes_come_back_equal(tmp_path):
    write_text(tmp_path / "text", "grüße\n")
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "grüße\n"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_an_older_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "result.json"
    for text in ("old", "new"):
        write_text(path, text)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_the_old_file_stays_until_the_block_has_succeeded(tmp_path):
    path = tmp_path / "model.xml"
    path.write_text("old")
    with atomic_path(path, suffix=".xml", fsync=True) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".xml"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_block_that_fails_changes_nothing(tmp_path, error):
    path = tmp_path / "last.pt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_hard_link_to_the_file_itself(tmp_path):
    path = tmp_path / "init.pt"
    path.write_text("weights")
    with atomic_path(path) as temporary:
        os.link(path, temporary)
    assert path.read_text() == "weights"
    assert list(tmp_path.iterdir()) == [path]


def test_folders(tmp_path):
    folder = tmp_path / "cache"
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "index").write_text("first")
    with pytest.raises(OSError), atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "index").write_text("second")
    assert (folder / "index").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_cannot_be_written_is_one_line_for_the_user(tmp_path):
    path = tmp_path / "missing" / "file"
    with pytest.raises(UserError, match=r"file: cannot be written \(No such file or directory\)"):
        write_text(path, "")
