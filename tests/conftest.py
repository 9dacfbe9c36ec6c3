"""Shared by all tests: quiet libraries, one seed, and a place where the real data may be."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.milvus_server import CannotInstall, install_server, start_server

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# The networks here are so small that waiting for a second thread costs more than it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SHARED = Path(__file__).resolve().parents[2] / "shared"
SHARED_DATA = _SHARED / "data"
BAD_IMAGES = _SHARED / "tools" / "make_bad_images.py"


@pytest.fixture
def grocery() -> Path:
    """The grocery competition; the test is skipped where it is absent."""
    folder = SHARED_DATA / "grocery"
    if not folder.is_dir():
        pytest.skip(f"the grocery images are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def bad_images() -> ModuleType:
    """The script that makes damaged and hostile pictures; the test is skipped where it is absent."""
    if not BAD_IMAGES.is_file():
        pytest.skip(f"{BAD_IMAGES.name} is not there")
    spec = importlib.util.spec_from_file_location("make_bad_images", BAD_IMAGES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an older Pillow does not know all the formats it is asked about
            spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


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
