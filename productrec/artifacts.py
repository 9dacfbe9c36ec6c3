"""Artefacts on disk: written whole or not at all, described by a manifest, refused when they do not match.

Every stage's output is a folder with a ``manifest.json``. It is written under a temporary name beside its place,
flushed, and renamed, so a reader never sees half of one; a crash leaves the earlier artefact as it was.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from productrec.errors import ArtifactError, ProductrecError, StorageError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
_VERSIONED_PACKAGES = ("productrec", "torch", "timm", "albumentations", "numpy", "pandas", "pyarrow")
_CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says of an artefact folder.

    ``inputs`` maps a name to the fingerprint of what the artefact was made from; ``settings`` are the resolved
    settings that decide its content; ``files`` maps a relative path to its SHA-256 and size in bytes; ``notes`` hold
    what a reader may want to know and what does not decide the content.
    """

    kind: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    files: dict[str, dict[str, Any]]
    notes: dict[str, Any]
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """SHA-256 over kind, inputs, settings and file digests: equal fingerprints mean equal content."""
        content = {
            "kind": self.kind,
            "inputs": self.inputs,
            "settings": self.settings,
            "files": {name: entry["sha256"] for name, entry in self.files.items()},
        }
        return compute_digest(content)


def compute_digest(value: object) -> str:
    """SHA-256 of ``value`` as canonical JSON (or of bytes as they are)."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()


def compute_file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def explain_storage_errors(where: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below ``where`` into a `StorageError` that says how to mend it.

    Libraries that write by themselves (safetensors, FAISS) raise their own errors over a full disk, with the system's
    words in them.
    """
    try:
        yield
    except ProductrecError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or (number is None and any(os.strerror(code) in str(error) for code in _FULL)):
            raise StorageError(
                f"{where}: no space left while writing; what stood there before is untouched. "
                "Free some disk, or choose another place, and run the same command again."
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(
                f"{where}: not permitted to write here ({error.strerror}). Choose another place."
            ) from error
        is_gone = error.errno == errno.ENOENT and Path(error.filename or "") in (where, *where.parents)
        if is_gone or error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
            raise StorageError(f"{where}: cannot be written here ({error.strerror}). Choose another place.") from error
        raise


@contextlib.contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success flush it and rename it to ``path``, else remove it."""
    with explain_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path)
        temporary = path.with_name(_name_beside(path, "tmp"))
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with write_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


@contextlib.contextmanager
def write_artifact(
    folder: Path,
    *,
    kind: str,
    inputs: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
    keep_earlier: Path | None = None,
) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes ``folder``, with a manifest, replacing an older artefact.

    Args:
        folder: the artefact's final place. Whatever stands there must be an artefact of the same kind (or nothing).
        kind: what it is, for instance ``"image table"``.
        inputs: fingerprints of what it was made from.
        settings: resolved settings that decide its content.
        notes: anything else worth keeping; read when the block ends, so it may be filled inside the block.
        keep_earlier: where the artefact that stood there goes, instead of being removed; beside ``folder``.

    Raises:
        ArtifactError: something that is not an artefact of this kind stands at ``folder``.
        StorageError: the disk refused; ``folder`` is as it was.
    """
    check_replaceable(folder, kind=kind)
    with explain_storage_errors(folder):
        temporary = _make_temporary(folder)
        try:
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if path.is_file():
                    _flush(path)
            files = list_digests(temporary)
            manifest = {
                "format_version": FORMAT_VERSION,
                "kind": kind,
                "inputs": dict(inputs or {}),
                "settings": _plain(dict(settings or {})),
                "files": files,
                "notes": _plain(dict(notes or {})),
                "versions": compute_versions(),
            }
            write_json(temporary / MANIFEST_NAME, manifest)
            _flush(temporary)
            _replace_folder(temporary, folder, keep_earlier)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _make_temporary(folder: Path) -> Path:
    """An empty folder beside ``folder``; what a killed process left there is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    temporary = folder.with_name(_name_beside(folder, "tmp"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it is flushed and becomes ``folder``, else it is removed.

    Raises:
        ArtifactError: something stands at ``folder``.
        StorageError: the disk refused; nothing is at ``folder``.
    """
    if folder.exists():
        raise ArtifactError(f"{folder}: must not be there yet. Name another folder, or move this one away.")
    with explain_storage_errors(folder):
        temporary = _make_temporary(folder)
        try:
            yield temporary
            for path in sorted(temporary.rglob("*")):
                _flush(path)
            _flush(temporary)
            os.rename(temporary, folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def list_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size in bytes of every file below a folder, by its path there, as manifests hold them."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": compute_file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change_artifact(
    folder: Path,
    *,
    files: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> None:
    """Give a copy of an artefact other text in some files, other settings, or fewer files, and a manifest that says so.

    For copies that are no reader's yet: it is not written whole or not at all.

    Raises:
        ArtifactError: there is no artefact.
    """
    load_manifest(folder)
    raw = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
        raw["files"][name] = {"sha256": compute_file_digest(folder / name), "bytes": (folder / name).stat().st_size}
    for name in without:
        (folder / name).unlink(missing_ok=True)
        raw["files"].pop(name, None)
    if settings is not None:
        raw["settings"] = _plain(dict(settings))
    write_json(folder / MANIFEST_NAME, raw)


def load_manifest(folder: Path, *, kind: str | None = None) -> Manifest:
    """Read an artefact's manifest.

    Raises:
        ArtifactError: there is none, it cannot be read, its format is newer, or it is of another kind.
    """
    path = folder / MANIFEST_NAME
    wanted = kind or "artefact"
    if not folder.exists() and folder.parent.is_dir():
        with contextlib.suppress(OSError):
            _tidy(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if int(raw.get("format_version", FORMAT_VERSION)) > FORMAT_VERSION:  # before its other keys are looked at
            raise ArtifactError(
                f"{folder}: format version must be at most {FORMAT_VERSION}; got {raw['format_version']}. "
                "Update productrec."
            )
        manifest = Manifest(**raw)
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no {wanted} here (no {MANIFEST_NAME}). Run the stage that makes it.") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Remove the folder and make it again.") from None
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{folder}: must hold the {kind}; got the {manifest.kind}. Name the folder of the {kind}.")
    return manifest


def check_files(folder: Path, manifest: Manifest, *, digests: bool = True, unread: Collection[str] = ()) -> None:
    """Compare the files of an artefact with its manifest: sizes, and SHA-256 unless ``digests`` is false.

    ``unread``: files whose SHA-256 is left alone, since their parts are checked as they are read.

    Raises:
        ArtifactError: a file is missing or differs.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path}: missing from this {manifest.kind}. Make it again.")
        if path.stat().st_size != entry["bytes"] or (
            digests and name not in unread and compute_file_digest(path) != entry["sha256"]
        ):
            raise ArtifactError(f"{path}: differs from its manifest; the {manifest.kind} is damaged. Make it again.")


def is_fresh(folder: Path, *, kind: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds a complete artefact of ``kind`` made from exactly these inputs and settings."""
    try:
        manifest = load_manifest(folder, kind=kind)
        check_files(folder, manifest, digests=False)
    except ArtifactError:
        return False
    return manifest.inputs == dict(inputs) and manifest.settings == _plain(dict(settings))


def check_replaceable(folder: Path, *, kind: str) -> None:
    """Refuse to write over anything but an artefact of the same kind.

    Raises:
        ArtifactError: a file, a folder without a manifest, or an artefact of another kind stands there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: must be a folder, for the {kind}; got a file. Choose another name.")
    if not (folder / MANIFEST_NAME).exists():
        raise ArtifactError(f"{folder}: holds files that are no {kind}. Choose another folder, or empty this one.")
    load_manifest(folder, kind=kind)


def compute_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results; read without importing them."""
    versions = {"python": platform.python_version()}
    for package in _VERSIONED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _plain(value: Any) -> Any:
    """``value`` as it comes back from JSON, so that a comparison with a stored manifest is fair."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def _replace_folder(temporary: Path, folder: Path, keep_earlier: Path | None) -> None:
    """Put ``temporary`` in the place of ``folder``; the older one is moved aside first and removed, or kept, last."""
    if not folder.exists():
        os.rename(temporary, folder)
    else:
        older = folder.with_name(_name_beside(folder, "old"))
        shutil.rmtree(older, ignore_errors=True)
        os.rename(folder, older)
        try:
            os.rename(temporary, folder)
        except BaseException:  # Ctrl-C too: the older one must not stay aside
            if not folder.exists():
                os.rename(older, folder)
            raise
        if keep_earlier is not None:
            shutil.rmtree(keep_earlier, ignore_errors=True)
            os.rename(older, keep_earlier)
        shutil.rmtree(older, ignore_errors=True)
    _flush(folder.parent)


def _name_beside(path: Path, why: str) -> str:
    return f".{path.name}.{why}-{socket.gethostname()}-{os.getpid()}"


def _tidy(path: Path) -> None:
    """Clear up after processes of this machine that were killed while they wrote ``path``.

    What they had moved aside comes back where nothing took its place; half-written files and folders go.
    """
    for why in ("old", "tmp"):
        start = f".{path.name}.{why}-{socket.gethostname()}-"
        for left in [entry for entry in path.parent.iterdir() if entry.name.startswith(start)]:
            number = left.name.removeprefix(start)
            # Aside under our own number is what an earlier process left: in a container every first one is number 1.
            earlier = why == "old" and number == str(os.getpid())
            if not number.isdigit() or (_is_alive(int(number)) and not earlier):
                continue
            if why == "old" and not path.exists():
                os.rename(left, path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
