"""The versions in a study are those of this code and of the installed packages."""

import subprocess
import sys

import numpy as np
import pytest

from nas.study import versions


@pytest.fixture
def git(tmp_path):
    """Function: runs git in tmp_path/repo, a repository with one commit; returns its output."""

    def run(*args: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        result = subprocess.run(
            ["git", *identity, *args], cwd=folder, capture_output=True, text=True, check=True
        )
        return result.stdout.strip()

    folder = tmp_path / "repo"
    folder.mkdir()
    run("init", "--quiet")
    (folder / "a.txt").write_text("a")
    run("add", "a.txt")
    run("commit", "--quiet", "-m", "first")
    return run


def test_versions_of_python_and_packages():
    facts = versions.versions()
    assert facts["python"] == sys.version.split()[0]
    assert facts["numpy"] == np.__version__
    assert set(facts) <= {"python", "commit", *versions.PACKAGES}


def test_commit_of_the_repository_and_whether_files_differ(tmp_path, git):
    commit = git("rev-parse", "HEAD")
    assert versions._commit(tmp_path / "repo") == commit
    (tmp_path / "repo" / "untracked.txt").write_text("b")
    assert versions._commit(tmp_path / "repo") == commit
    (tmp_path / "repo" / "a.txt").write_text("changed")
    assert versions._commit(tmp_path / "repo") == commit + "+"


def test_no_commit_if_installed_inside_another_repository(tmp_path, git):
    site_packages = tmp_path / "repo" / ".venv" / "site-packages"
    site_packages.mkdir(parents=True)
    assert versions._commit(site_packages) is None


def test_no_commit_without_a_repository_or_without_git(tmp_path, monkeypatch):
    assert versions._commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions._commit(versions.ROOT) is None
    assert "commit" not in versions.versions()
