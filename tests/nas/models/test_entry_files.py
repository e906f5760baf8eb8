"""Files of an entry: SHA256SUMS, read by the real sha256sum, and archives."""

import subprocess
import zipfile

import pytest

from detector.base.errors import UserError
from nas.models import entry_files


def test_names_are_escaped_as_sha256sum_does(tmp_path):
    (tmp_path / "a\nb\\c.txt").write_text("x")
    (tmp_path / "d e.txt").write_text("y")
    assert entry_files.write_sums(tmp_path) == 2
    subprocess.run(["sha256sum", "--quiet", "-c", entry_files.SUMS], cwd=tmp_path, check=True)
    assert entry_files.changed_files(tmp_path) == []
    with (tmp_path / entry_files.SUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../outside\nnonsense\n")
    assert entry_files.changed_files(tmp_path) == [
        "SHA256SUMS:3: ../outside is outside of the entry",
        "SHA256SUMS:4: is not a line of sha256sum",
    ]


def test_an_archive_comes_back_as_it_was_packed(tmp_path):
    entry = tmp_path / "entry"
    (entry / "predictions").mkdir(parents=True)
    (entry / "predictions" / "a.txt").write_text("x")
    entry_files.write_sums(entry)
    entry_files.write_zip(entry, tmp_path / "e.zip", "entry")
    with entry_files.unpacked(tmp_path / "e.zip") as folder:
        assert folder != entry and entry_files.changed_files(folder) == []
        assert entry_files.files_of(folder) == ["predictions/a.txt"]
    assert not folder.exists()
    with entry_files.unpacked(entry) as folder:
        assert folder == entry


@pytest.mark.parametrize(
    ("names", "told"),
    [(["a/x"], "is no archive of an entry"), ([], "is no archive"), (None, "cannot be unpacked")],
)
def test_other_archives_are_refused(tmp_path, names, told):
    path = tmp_path / "other.zip"
    if names is None:
        path.write_bytes(b"no archive")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
    with pytest.raises(UserError, match=f"{path}: {told}"), entry_files.unpacked(path):
        pass


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(entry_files, "MAX_UNPACKED", 1000)
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("entry/SHA256SUMS", "0" * 1001)
    with pytest.raises(UserError, match="unpacks to"), entry_files.unpacked(path):
        pass
