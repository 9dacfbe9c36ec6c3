"""The wheels of a bundle: productrec's own, and the list of what it needs."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import productrec
from productrec.assembly.own_wheel import write_own_wheel
from productrec.assembly.wheels import collect_wheels, list_requirements
from productrec.errors import ArtifactError, RecipeError

pytest.importorskip("pip")


def test_the_own_wheel_holds_the_package_as_it_runs(tmp_path: Path) -> None:
    wheel = write_own_wheel(tmp_path)
    assert wheel.name == f"productrec-{productrec.__version__}-py3-none-any.whl"
    package = Path(productrec.__file__).parent
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for name in ("__init__.py", "competitions/plain.yaml", "assembly/run_bundle.py", "demo/demo.yaml"):
        assert held[f"productrec/{name}"] == (package / name).read_bytes()
    assert not [name for name in held if "__pycache__" in name or name.endswith(".pyc")]
    about = f"productrec-{productrec.__version__}.dist-info"
    lines = held[f"{about}/RECORD"].decode().splitlines()
    assert {line.rsplit(",", 2)[0] for line in lines} == set(held)
    for line in lines[:-1]:
        name, digest, size = line.rsplit(",", 2)
        code = base64.urlsafe_b64encode(hashlib.sha256(held[name]).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={code}", len(held[name]))
    again = write_own_wheel(tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()


def test_pip_installs_the_own_wheel(tmp_path: Path) -> None:
    wheel = write_own_wheel(tmp_path)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(tmp_path / "site"), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = metadata.distributions(name="productrec", path=[str(tmp_path / "site")])
    assert found.version == productrec.__version__ and found.requires == metadata.requires("productrec")
    assert (tmp_path / "site/bin/productrec").is_file()


def test_another_version_or_none_that_is_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(productrec, "__version__", "9.9.9")
    with pytest.raises(ArtifactError, match=r"in the version of its files, 9.9.9; got"):
        write_own_wheel(tmp_path)

    def find_none(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", find_none)
    with pytest.raises(ArtifactError, match="must be installed"):
        write_own_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_light_leaves_out_torch_and_what_only_torch_needs() -> None:
    names = {line.split("==")[0]: line.split("==")[1] for line in list_requirements((), with_heavy=False)}
    assert not {name for name in names if name.startswith(("torch", "nvidia-", "cuda-", "triton"))}
    assert {"timm", "faiss-cpu", "numpy", "safetensors"} <= set(names) and "faiss-gpu" not in names
    assert names["timm"] == metadata.version("timm") and "productrec" not in names
    everything = {line.split("==")[0] for line in list_requirements((), with_heavy=True)}
    assert {"torch", "torchvision", *names} - {"faiss-cpu"} <= everything
    assert len(everything & {"faiss-cpu", "faiss-gpu"}) == 1
    assert "onnxruntime" not in names
    assert any(line.startswith("onnxruntime==") for line in list_requirements(("export",), with_heavy=False))


def test_what_pip_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def refuse(command: list[str], **named: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: No matching distribution found for numpy\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(ArtifactError, match="No matching distribution found for numpy"):
        collect_wheels(tmp_path, "light", python="3.12")
    assert "3.12" in seen[0] and "--no-deps" in seen[0]
    assert collect_wheels(tmp_path / "none", "none") == [] and not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match="--wheels: must be one of"):
        collect_wheels(tmp_path, "some")
