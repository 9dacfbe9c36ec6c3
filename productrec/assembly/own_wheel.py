"""The wheel of productrec itself, written from the copy that runs, without a source tree or a build backend."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import productrec
from productrec.errors import ArtifactError

_NAME = "productrec"
_WHEEL = "Wheel-Version: 1.0\nGenerator: productrec bundle\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_LEFT_OUT = ("__pycache__",)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same code gives the same file


def write_own_wheel(folder: Path) -> Path:
    """Write productrec's wheel into a folder: its package as it lies here, with the metadata it was installed with.

    The form is that of the binary distribution format (PEP 427).

    Raises:
        ArtifactError: productrec is not installed, or was installed in another version than its files are of.
    """
    try:
        installed = metadata.distribution(_NAME)
    except metadata.PackageNotFoundError:
        raise ArtifactError(
            "bundle: productrec must be installed, so that its wheel has the right requirements; it only lies on the "
            "path. Install it (uv pip install -e .), or pass --wheels none."
        ) from None
    version = productrec.__version__
    if installed.version != version:
        raise ArtifactError(
            f"bundle: productrec must be installed in the version of its files, {version}; got {installed.version}. "
            "Install it again (uv pip install -e .)."
        )
    package = Path(productrec.__file__).parent
    files = {
        f"{_NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and not _is_left_out(path.relative_to(package))
    }
    about = f"{_NAME}-{version}.dist-info"
    files[f"{about}/METADATA"] = _read(installed, "METADATA")
    files[f"{about}/entry_points.txt"] = _read(installed, "entry_points.txt")
    for name in installed.metadata.get_all("License-File") or []:
        if text := installed.read_text(f"licenses/{name}"):
            files[f"{about}/licenses/{name}"] = text.encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{about}/RECORD"] = ("\n".join([*record, f"{about}/RECORD,,"]) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{_NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return wheel


def _is_left_out(path: Path) -> bool:
    return any(part in _LEFT_OUT or part.startswith(".") for part in path.parts) or path.suffix in (".pyc", ".pyo")


def _read(installed: metadata.Distribution, name: str) -> bytes:
    text = installed.read_text(name)
    if text is None:
        raise ArtifactError(f"bundle: productrec is installed without its {name}. Install it again.")
    return text.encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
