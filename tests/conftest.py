"""Shared by all tests: quiet libraries, one seed, and a place where the real data may be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.milvus_server import CannotInstall, install_server, start_server

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


@pytest.fixture(scope="session")
def milvus_python() -> Path:
    """The Python of an environment with Milvus Lite; the test is skipped where it cannot be installed."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (the extra milvus)")
    try:
        return install_server()
    except CannotInstall as error:
        pytest.skip(f"milvus-lite cannot be installed: {error}")


@pytest.fixture(scope="session")
def milvus(milvus_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server."""
    with start_server(milvus_python, tmp_path_factory.mktemp("milvus") / "data") as (address, _):
        yield address
