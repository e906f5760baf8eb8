"""What all tests share: data to run on, and few threads (the machine may have two cores)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when torch and numpy load, so that neither is imported

PROJECT = Path(__file__).resolve().parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def wider_root() -> Path:
    """Folder of real WIDER FACE images in the official layout."""
    root = SHARED_DATA / "widerface"
    if not root.is_dir():
        pytest.skip("no WIDER FACE images in ../shared/data/widerface")
    return root


@pytest.fixture(scope="session")
def tiny_data():
    """A `Data` of 20 + 5 + 8 drawn images (train, hold-out, val)."""
    from detector.data import synthetic_data
    from detector.recipe import DataChoice

    return synthetic_data(DataChoice(path="synthetic"), train=25, val=8)
