"""A Milvus Lite server on loopback, the stand-in for a cluster, in an environment of its own.

Milvus Lite asks for faiss-cpu, which must not stand beside faiss-gpu in the environment that the tests run in.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

PACKAGES = ("milvus-lite>=3.2.2,<4", "pymilvus>=3.0.2,<4")
_INSTALL_SECONDS = 300
_START_SECONDS = 60


class CannotInstall(Exception):
    """Why there is no server."""


def install_server() -> Path:
    """The Python of an environment with Milvus Lite, which is kept below the system's cache.

    Raises:
        CannotInstall: with the last line that the installer said.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "productrec-tests" / f"milvus-lite-py{sys.version_info.major}{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "installed"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not done.exists() or done.read_text() != "\n".join(PACKAGES):
                shutil.rmtree(folder, ignore_errors=True)
                for command in _list_commands(folder, python):
                    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
                done.write_text("\n".join(PACKAGES))
    except subprocess.CalledProcessError as error:
        raise CannotInstall((error.stderr.strip().splitlines() or ["no reason given"])[-1]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(str(error)) from None
    return python


def _list_commands(folder: Path, python: Path) -> list[list[str]]:
    own = str(Path(sys.executable).parent)
    uv = shutil.which("uv", path=os.pathsep.join([own, os.environ.get("PATH", "")]))
    if uv is not None:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        return [make, [uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES]]
    make = [sys.executable, "-m", "venv", str(folder)]
    return [make, [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]]


@contextmanager
def start_server(python: Path, folder: Path, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """Its address and its process, which ends with the block."""
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "milvus_lite", "server", "--data-dir", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=clean
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(port):
                assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
