"""Doctor: looks at the machine and says what works, what does not, and what to do about it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from productrec.runtime import choose_dtype, computes_bfloat16, count_cores, measure_free_memory

_LEAST_FREE_GIB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``state`` is ok, note or fault; ``mend`` says what to do unless all is well."""

    what: str
    state: str
    seen: str
    mend: str = ""


def run_doctor(folder: Path) -> list[Finding]:
    """Examine Python, torch, accelerator, FAISS, cores and the disk of ``folder``; nothing raises."""
    findings = []
    for examine in (
        _examine_python,
        _examine_torch,
        _examine_accelerator,
        _examine_faiss,
        _examine_timm,
        _examine_cores,
        _examine_memory,
    ):
        findings += _guard(examine)
    return findings + _guard(lambda: _examine_disk(folder))


def _guard(examine: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(examine())
    except Exception as error:  # a broken installation raises anything, and that is what this stage is for
        name = getattr(examine, "__name__", "check").removeprefix("_examine_")
        mend = "Install again: `uv sync --reinstall`, or `pip install --force-reinstall productrec`."
        return [Finding(name, "fault", f"{type(error).__name__}: {str(error)[:200]}", mend)]


def _examine_python() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "Python", "ok" if good else "fault", platform.python_version(), "" if good else "Use Python 3.11, 3.12 or 3.13."
    )


def _examine_torch() -> Iterator[Finding]:
    import torch

    total = float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
    good = total == 64.0**3
    yield Finding(
        "torch",
        "ok" if good else "fault",
        torch.__version__,
        "" if good else "torch computes wrongly: install it again.",
    )


def _examine_accelerator() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            properties = torch.cuda.get_device_properties(number)
            device = torch.device("cuda", number)
            values = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
            good = float(values.sum()) == 64.0**3
            memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            seen = f"{properties.name}, {memory}, {_name(choose_dtype('auto', device))}"
            yield Finding(
                f"GPU {number}",
                "ok" if good else "fault",
                seen,
                "" if good else "The GPU computes wrongly; look at its driver.",
            )
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple MPS")
    elif shutil.which("nvidia-smi"):
        mend = "The driver is too old for this torch, or torch has no CUDA. Update the driver."
        yield Finding("GPU", "fault", f"torch {torch.__version__} finds none", mend)
    else:
        also = ", and has instructions for bfloat16" if computes_bfloat16() else ""
        seen = f"none; the CPU computes in float32{also}"
        mend = "Fine for the demo and small catalogues; take a machine with a GPU for more."
        yield Finding("GPU", "note", seen, mend)


def _examine_faiss() -> Iterator[Finding]:
    import numpy as np

    from productrec.retrieval.engine import build_engine, count_gpus, move_to_gpu

    installed = [name for name in ("faiss-cpu", "faiss-gpu") if _is_installed(name)]
    if len(installed) > 1:
        mend = "They own one folder and break each other: uninstall both, then install productrec again."
        yield Finding("FAISS", "fault", " and ".join(installed), mend)
    generator = np.random.default_rng(0)
    gallery = generator.standard_normal((500, 32)).astype(np.float32)
    wanted = (gallery[:20] @ gallery.T).argmax(axis=1)
    engine = build_engine(gallery)
    _, rows = engine.search(gallery[:20], 1)
    good = bool((rows[:, 0] == wanted).all())
    version = " ".join(f"{name} {metadata.version(name)}" for name in installed)
    mend = "" if good else "Install FAISS again: `uv sync --reinstall-package faiss-gpu`."
    yield Finding("FAISS on the CPU", "ok" if good else "fault", f"{version}: exact search of 500 rows", mend)
    if not count_gpus():
        yield Finding("FAISS on the GPU", "note", "no GPU found", "Search runs on the CPU; exact all the same.")
        return
    moved = move_to_gpu(engine)
    _, rows = moved.search(gallery[:20], 1)
    on_gpu = type(moved) is not type(engine)
    good = bool((rows[:, 0] == wanted).all()) and on_gpu
    mend = "" if good else "The GPU refused FAISS; search runs on the CPU. Update the driver."
    yield Finding("FAISS on the GPU", "ok" if good else "fault", "exact search of 500 rows", mend)


def _examine_timm() -> Iterator[Finding]:
    from productrec.models.backbone import build_backbone

    build_backbone("resnet10t", pretrained=False, side_px=64)
    yield Finding("timm", "ok", f"{metadata.version('timm')}: builds a network")
    yield Finding("albumentations", "ok", metadata.version("albumentations"))


def _examine_cores() -> Iterator[Finding]:
    cores = count_cores()
    mend = "" if cores >= 2 else "Loading and training share one core; expect twice the time."
    yield Finding("cores", "ok" if cores >= 2 else "note", str(cores), mend)


def _examine_memory() -> Iterator[Finding]:
    free = measure_free_memory()
    if free is not None:
        mend = (
            ""
            if free >= _LEAST_FREE_GIB * 2**30
            else "Little memory is free: end other programs, or lower train.batch_size."
        )
        yield Finding("free memory", "note" if mend else "ok", f"{free / 2**30:.1f} GiB", mend)


def _examine_disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free / 2**30
    mend = (
        ""
        if free >= _LEAST_FREE_GIB
        else f"Less than {_LEAST_FREE_GIB:.0f} GiB are free: checkpoints and embeddings may not fit. Remove some files."
    )
    yield Finding("free disk", "ok" if not mend else "fault", f"{free:.0f} GiB at {folder.absolute()}", mend)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
