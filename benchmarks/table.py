"""Benchmark of the image table at iMaterialist Product 2019's size: ingest, opening for training, loader processes.

The competition's JSON and a file for every id are drawn in a temporary folder (the files are hard links to a few small
JPEGs). Each step then runs in a new process: seconds are of the whole process unless said otherwise, memory is its
highest. Images are not decoded at ingest (``data.verify=false``): that is measured elsewhere. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sections.figures import Row, describe_machine, print_markdown, print_row

_ROWS = {"train": 1_011_532, "val": 10_095, "test": 90_834}
_CLASSES = 2019
_FILES_PER_INODE = 60_000  # ext4 takes 65,000 links to a file
_SECTIONS = ("ingest", "open", "workers")
_ASKED_WORKERS = 4
_BATCH, _SIDE_PX = 64, 224
_GIB = 1 << 30


def main() -> None:
    """Draw the source, measure the sections that were asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_100_000, help="about how many (1100000)")
    parser.add_argument("--batches", type=int, default=300, help="that the loader processes make (300)")
    parser.add_argument("--repeats", type=int, default=3, help="times that the table is opened (3)")
    parser.add_argument("--only", choices=_SECTIONS, action="append", help="sections (all); any needs the ingest")
    parser.add_argument("--scratch", type=Path, help="where the temporary folder is made")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.step:
        name, folder, *numbers = options.step
        print(json.dumps(_STEPS[name](Path(folder), *map(int, numbers)) | {"peak": _read_own_peak()}))
        return
    chosen = options.only or _SECTIONS
    print(f"command: python benchmarks/table.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        folder = Path(temporary)
        count = _draw_source(folder / "source", options.rows)
        print(f"drawn: {count:,} rows; load average {os.getloadavg()[0]:.1f}\n", flush=True)
        rows = _measure_ingest(folder)
        if "open" in chosen:
            rows += _measure_opening(folder, options.repeats)
        if "workers" in chosen:
            rows += _measure_workers(folder, options.batches)
        print(f"load average at the end {os.getloadavg()[0]:.1f}; removing what was drawn", flush=True)
    print_markdown(rows)


def _report(section: str, what: str, seen: str, asked: str = "", holds: bool | None = None) -> Row:
    row = Row(section, what, seen, asked, holds)
    print_row(row)
    return row


# ---------------------------------------------------------------- drawing


def _draw_source(source: Path, wanted: int) -> int:
    """The JSON of a split each, product_tree.json and a file an id; returns how many ids there are."""
    (source / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    linked = 0
    for split, real in _ROWS.items():
        count = max(_CLASSES, round(real * wanted / sum(_ROWS.values())))
        random = generator.bytes(16 * count).hex()
        ids = [random[start : start + 32] for start in range(0, len(random), 32)]
        labels = np.concatenate([np.arange(_CLASSES), generator.integers(0, _CLASSES, count - _CLASSES)]).tolist()
        entries = []
        for image_id, label in zip(ids, labels, strict=True):
            entry = {"id": image_id, "url": f"https://img.example.com/product/{image_id[:2]}/{image_id}_800x800.jpg"}
            entries.append(entry if split == "test" else entry | {"class": label})
        (source / f"{split}.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
        for image_id in ids:
            if linked % _FILES_PER_INODE == 0:
                original = source / "images" / f"{image_id}.jpg"
                original.write_bytes(_draw_jpeg(generator))
            else:
                os.link(original, source / "images" / f"{image_id}.jpg")
            linked += 1
    groups = np.array_split(np.arange(_CLASSES), 60)
    tree: dict[str, dict[str, list[int]]] = {f"group {n // 10}": {} for n in range(0, len(groups), 10)}
    for number, group in enumerate(groups):
        tree[f"group {number // 10}"][f"category {number}"] = group.tolist()
    (source / "product_tree.json").write_text(json.dumps(tree), encoding="utf-8")
    return linked


def _draw_jpeg(generator: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


# ---------------------------------------------------------------- what the child processes do


def _ingest(folder: Path) -> dict[str, float]:
    from productrec.recipe.data import DataSettings
    from productrec.stages.ingest import run_ingest

    data = DataSettings(verify=False)
    ingested = run_ingest(folder / "source", folder / "data" / "table", data=data)
    assert ingested.by_status == {"ok": sum(ingested.by_split.values())}, ingested
    return {"rows": sum(ingested.by_split.values())}


def _open(folder: Path, workers: int = 0, batches: int = 0) -> dict[str, float]:
    """Open the table as a training does, after its libraries; with ``batches``, let loader processes make them."""
    from productrec.data.dataset import TrainingImages, build_training_loader
    from productrec.data.images import open_images
    from productrec.data.samplers import EpochSampler
    from productrec.data.table import load_table
    from productrec.data.transforms import build_augmentation

    augmentation = build_augmentation("none", _SIDE_PX)
    started, used = time.perf_counter(), time.process_time()
    table = load_table(folder / "data" / "table")
    rows = table.select(["train"])
    rows = rows[rows["label"].notna()]
    class_ids = sorted(int(label) for label in rows["label"].unique())
    positions = {class_id: position for position, class_id in enumerate(class_ids)}
    labels = np.array([positions[int(label)] for label in rows["label"]], dtype=np.int64)
    weights = rows["weight"].fillna(1.0).to_numpy(dtype=np.float64)
    sampler = EpochSampler(labels, batch_size=_BATCH, images_per_class=None, seed=0, weights=weights)
    dataset = TrainingImages(open_images(table, rows), labels, augmentation, 0)
    figures = {"opened": time.perf_counter() - started, "opening_cpu": time.process_time() - used, "rows": len(dataset)}
    if batches:
        loader = build_training_loader(dataset, sampler, workers=workers, pin_memory=False)
        started = time.perf_counter()
        for number, batch in enumerate(loader):
            assert not batch.broken, batch.broken
            if number == 0:
                print("ready", flush=True)  # memory counts from here on
            if number + 1 == batches:
                break
    return figures | {"loading": time.perf_counter() - started}


_STEPS: dict[str, Callable[..., dict[str, float]]] = {"ingest": _ingest, "open": _open}


def _read_own_peak() -> int:
    """Bytes; from this program's own start on, which the peak that ``wait4`` gives is not."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


# ---------------------------------------------------------------- measuring them


def _run_step(name: str, folder: Path, *numbers: int) -> tuple[dict[str, float], float]:
    """Figures and seconds of a step in a process of its own.

    Among the figures are ``cpu``, seconds of all cores, and ``pss``, the tree's highest after the step says ready.
    """
    command = [sys.executable, __file__, "--step", name, str(folder), *map(str, numbers)]
    before = _read_cpu_seconds()
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line, highest = process.stdout.readline(), 0
        if line == "ready\n":
            while process.poll() is None:
                highest = max(highest, _read_tree_pss(process.pid))
                time.sleep(0.1)
            line = process.stdout.readline()
    if process.returncode:
        raise SystemExit(f"the step {name} failed with {process.returncode}")
    seconds = time.perf_counter() - started
    return json.loads(line) | {"pss": highest, "cpu": _read_cpu_seconds() - before}, seconds


def _read_cpu_seconds() -> float:
    """Of the children that ended: unlike seconds on the clock, it hardly depends on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read_tree_pss(process: int) -> int:
    """Bytes of a process and all below it, what several of them share counted once; 0 for those that just ended."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        below = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return 0
    own = rollup.partition("\nPss:")[2].split()[:1]
    return sum(int(kib) << 10 for kib in own) + sum(_read_tree_pss(int(child)) for some in below for child in some)


def _measure_ingest(folder: Path) -> list[Row]:
    rows = []
    for what in ("a new table", "again, unchanged"):
        figures, seconds = _run_step("ingest", folder)
        peak = figures["peak"] / _GIB
        rows.append(
            _report("ingest", f"{what}, s", f"{seconds:.1f} ({figures['cpu']:.1f} of CPU)", "under 60", seconds < 60)
        )
        rows.append(_report("ingest", f"{what}, peak GiB", f"{peak:.2f}", "under 3", peak < 3))
    size = sum(path.stat().st_size for path in (folder / "data" / "table").iterdir())
    return [*rows, _report("ingest", "the table on disk, MB", f"{size / 1e6:.0f}")]


def _measure_opening(folder: Path, repeats: int) -> list[Row]:
    seen = [_run_step("open", folder) for _ in range(repeats)]
    opened = sorted(figures["opened"] for figures, _ in seen)
    middle = statistics.median(opened)
    whole = statistics.median(seconds for _, seconds in seen)
    cpu = statistics.median(figures["cpu"] for figures, _ in seen)
    peak = max(figures["peak"] for figures, _ in seen) / _GIB
    own = statistics.median(figures["opening_cpu"] for figures, _ in seen)
    shown = f"{middle:.2f} ({opened[0]:.2f} to {opened[-1]:.2f}, {repeats} times; {own:.2f} of CPU)"
    return [
        _report("open", f"{seen[0][0]['rows']:,} training rows, s", shown, "under 3", middle < 3),
        _report("open", "the whole process with its imports, s", f"{whole:.1f} ({cpu:.1f} of CPU)"),
        _report("open", "peak GiB", f"{peak:.2f}"),
    ]


def _measure_workers(folder: Path, batches: int) -> list[Row]:
    rows, seen = [], {}
    for workers in (0, 1, _ASKED_WORKERS):
        figures, _ = _run_step("open", folder, workers, batches)
        seen[workers] = figures["pss"]
        rate = batches * _BATCH / figures["loading"]
        shown = f"{figures['pss'] / _GIB:.2f} GiB ({rate:,.0f} images a second)"
        rows.append(_report("workers", f"{workers} loader processes, PSS of the tree", shown))
    ratio = seen[_ASKED_WORKERS] / seen[1]
    what = f"{_ASKED_WORKERS} loader processes, times one"
    rows.append(_report("workers", what, f"{ratio:.2f}", "under 1.5", ratio < 1.5))
    # Tells more than the ratio, which the main process outweighs: a list of a million paths of its own is 100 MB.
    each = (seen[_ASKED_WORKERS] - seen[1]) / (_ASKED_WORKERS - 1)
    return [*rows, _report("workers", "each further one, MB, its batches included", f"{each / 1e6:.0f}")]


if __name__ == "__main__":
    main()
