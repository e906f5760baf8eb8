"""Atomic writes: all or nothing, and nothing left over."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from detector.base import files
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


# -- links, devices and pipes as outputs ------------------------------------------------------


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    target, link = tmp_path / "far" / "result.json", tmp_path / "result.json"
    target.parent.mkdir()
    link.symlink_to(target)
    for text in ("new", "newer"):  # the first time the link leads to nothing yet
        write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert sorted(tmp_path.rglob("*")) == [target.parent, target, link]


def test_a_device_is_written_to_and_never_replaced(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        write_text(device, "x")
    except (PermissionError, UserError):
        pytest.skip("needs root and a file system with devices")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert list(tmp_path.iterdir()) == [device]


def test_a_pipe_gets_the_content(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "result")
    assert os.read(reader, 99) == b"result"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_appended_to_even_if_it_is_a_file(tmp_path, name):
    code = (
        "import sys; from detector.base.files import write_text; from pathlib import Path; "
        f"print('before'); write_text(Path({name!r}), 'result\\n'); print('after')"
    )
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nresult\nafter\n"


def test_a_full_device_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left"):
        write_text(Path("/dev/full"), "x")
    assert not Path("/dev/full").is_file()


# -- what is read -----------------------------------------------------------------------------


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    for name, says in {
        "pipe": "is a named pipe, not a file",
        "folder": "is a folder, not a file",
        "zero": "is a device, not a file",
        "socket": "is a socket, not a file",
        "dangling": "is a link to nowhere, which does not exist",
        "self": "Too many levels of symbolic links",
        "missing": "No such file or directory",
    }.items():
        with pytest.raises(OSError) as error:
            files.read_bytes(tmp_path / name)
        assert files.reason(error.value) == says
        assert not files.is_file(tmp_path / name)
        assert files.exists(tmp_path / name) == (name in ("pipe", "folder", "zero", "socket"))
        assert files.is_folder(tmp_path / name) == (name == "folder")


def test_text_with_a_byte_order_mark_and_any_line_ends(tmp_path):
    (tmp_path / "text").write_bytes("\ufeffé\r\nb\rc\n".encode())
    assert files.read_text(tmp_path / "text") == "é\nb\nc\n"


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(10**12)  # sparse
    with pytest.raises(OSError) as error:
        files.read_bytes(path)
    assert files.reason(error.value) == "has 1000.0 GB; at most 1.1 GB are read"


def test_a_closed_folder_is_named_and_not_taken_for_a_missing_file(public_path, closed):
    folder = public_path / "data" / "inner"
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")
    with closed(public_path / "data"):
        for check in (files.exists, files.is_file, files.is_folder):
            with pytest.raises(
                UserError, match=rf"{folder}: its folder {public_path}/data is closed"
            ):
                check(folder)
        with pytest.raises(OSError) as error:
            files.read_bytes(folder / "file")
        line = str(files.cannot_read(folder / "file", error.value, "give another file"))
    assert line.endswith(f"allow it with chmod on {public_path}/data, or run as the owner")
