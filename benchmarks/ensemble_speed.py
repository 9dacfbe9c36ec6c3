"""Time and memory of ensembling at the size of iMaterialist Product 2019: blend, greedy selection, CSV.

Ten models of 90,834 images and 2,019 classes are drawn onto the disk (7.3 GB) and blended by each rule, in a process of
its own whose peak is told; the CSV of the blend is written and checked; twenty models are selected from greedily on
10,000 images.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import numpy as np
from sections.figures import describe_machine

_K = 3


def main() -> None:
    """Draw, then time each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=90_834)
    parser.add_argument("--classes", type=int, default=2_019)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--selected", type=int, nargs=2, default=(20, 10_000), metavar=("MODELS", "IMAGES"))
    parser.add_argument("--rules", nargs="+", default=["mean", "geometric", "rank"])
    parser.add_argument("--work", type=Path, help="folder for what is drawn; default a temporary one")
    options = parser.parse_args()
    print(f"command: python benchmarks/ensemble_speed.py {' '.join(sys.argv[1:])}")
    print(f"machine: {describe_machine()}\n")
    work = Path(tempfile.mkdtemp(dir=options.work))
    context = get_context("spawn")
    try:
        shape = (options.images, options.classes)
        files = [work / f"{number}.npy" for number in range(options.models)]
        for number, file in enumerate(files):
            _call(context, _draw, file, shape, number)
        for rule in options.rules:
            print(_call(context, _blend, files, work / "blend.npy", rule), flush=True)
        print(_call(context, _write, work / "blend.npy", work / "out.csv"), flush=True)
    finally:
        shutil.rmtree(work)
    print(_call(context, _select, *options.selected, options.classes), flush=True)


def _call(context: SpawnContext, function: Callable[..., Any], *arguments: object) -> Any:
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def _draw(file: Path, shape: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    truth = np.random.default_rng(99).integers(0, shape[1], shape[0])
    for start in range(0, shape[0], 4096):
        rows = out[start : start + 4096]
        logits = generator.normal(0, 1, rows.shape).astype(np.float32)
        logits[np.arange(len(rows)), truth[start : start + 4096]] += 5
        np.exp(logits, out=logits)
        rows[:] = logits / logits.sum(axis=1, keepdims=True)
    out.flush()


def _peak() -> str:
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20):.2f} GiB with mapped pages"


def _own_peak() -> float:
    """Memory of this process itself at its highest, in GiB: mapped files are the kernel's to take back."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / (1 << 20)
    return float("nan")


def _blend(files: list[Path], out: Path, rule: str) -> str:
    from productrec.ensembling.blend import Blend, blend_probabilities

    members = [np.load(file, mmap_mode="r") for file in files]
    target = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=members[0].shape)
    weights = tuple(np.random.default_rng(0).dirichlet(np.ones(len(members))).tolist())
    begun, used = time.perf_counter(), time.process_time()
    blend_probabilities(members, Blend(weights, rule), target)  # type: ignore[arg-type]
    target.flush()
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    told = f"{rule}: {len(files)} x {target.shape} in {seconds:.1f} s ({used:.1f} CPU s)"
    return f"{told}; own memory {_own_peak():.2f} GiB, {_peak()}"


def _write(blend: Path, out: Path) -> str:
    from productrec.competitions.contract import load_contract
    from productrec.competitions.writer import write_submission

    values = np.load(blend, mmap_mode="r")
    ids = [f"{number:032x}.jpg" for number in range(len(values))]
    begun = time.perf_counter()
    write_submission(
        out,
        contract=load_contract("imaterialist2019"),
        ids=ids,
        probabilities=values,
        class_labels=[str(number) for number in range(values.shape[1])],
        sample=None,
    )
    return f"CSV written and checked: {len(ids):,} rows in {time.perf_counter() - begun:.1f} s"


def _select(models: int, images: int, classes: int) -> str:
    from productrec.ensembling.selection import select_greedily
    from productrec.recognition.objective import Objective

    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, images)
    noise = generator.normal(0, 1, (images, classes)).astype(np.float32)
    parts = []
    for number in range(models):
        logits = 0.7 * noise + 0.7 * generator.normal(0, 1, (images, classes)).astype(np.float32)
        logits[np.arange(images), labels] += 3 + 2 * number / models
        np.exp(logits, out=logits)
        parts.append(logits / logits.sum(axis=1, keepdims=True))
    begun = time.perf_counter()
    weights = select_greedily(parts, labels, Objective("top_k_error", _K))
    seconds = time.perf_counter() - begun
    return (
        f"greedy selection: {models} models on {images:,} images of {classes:,} classes in {seconds:.1f} s, "
        f"{sum(weight > 0 for weight in weights)} kept; {_peak()}"
    )


if __name__ == "__main__":
    main()
