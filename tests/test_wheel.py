"""What pip installs works without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("detector", "trials", "nas", "analysis", "search_spaces")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.pyc")

pytestmark = pytest.mark.slow


def run(*command: Path | str, cwd: Path) -> str:
    """Its output; with no path to the checkout, and no registry to ask."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment | {"PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, since setuptools leaves a build folder in them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, sources / package, ignore=NOT_SOURCES)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, sources)
    flags = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", sources, *flags, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel, and the packages of this one below it; an editable
    install of the project here does not count, since its .pth file is not read there."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    flags = ("--no-deps", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *flags, wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_has_all_files_of_the_packages(wheel):
    expected = {
        path.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".json", ".typed")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licence = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert names == expected and licence
    assert {f"{package}/py.typed" for package in PACKAGES[:4]} <= names


def test_its_commands_run_in_an_empty_folder(environment, tmp_path):
    command = environment / "bin" / "retina-nas"
    where = "from detector.config import shipped; print(shipped.__file__, shipped.SHIPPED)"
    for path in run(environment / "bin" / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(environment)
    shown = run(command, "space", "retina", "--draws", "20", cwd=tmp_path)
    assert shown.startswith("retina: ")
    assert "MACs" in run(command, "cost", "yunet_n", "--no-latency", cwd=tmp_path)
    recorded = ("--samplers", "random", "--seeds", "1", "--schedules", "12", "--jobs", "1")
    run(command, "replay", *recorded, cwd=tmp_path)
    assert (tmp_path / "replay.md").is_file()
    assert run(command, "--version", cwd=tmp_path).startswith("retina-nas ")
