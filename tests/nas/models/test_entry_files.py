"""SHA256SUMS of an entry, read by the real sha256sum."""

import subprocess

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
