"""Shared by all tests: quiet libraries, one seed, and a place where the real data may be."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# The networks here are so small that waiting for a second thread costs more than it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def grocery() -> Path:
    """The grocery competition; the test is skipped where it is absent."""
    folder = SHARED_DATA / "grocery"
    if not folder.is_dir():
        pytest.skip(f"the grocery images are not at {folder}")
    return folder
