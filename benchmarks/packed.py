"""Benchmark of the packed store: packing, loading from it, and its format beside others, in turns in one run.

Packing (verify, shrink, encode, write) stands beside bare OpenCV with as many threads. Loading stands beside the sum of
its parts, measured in as many processes without a loader, and beside the original files through Pillow and the same
augmentation. ``pip install lmdb`` adds LMDB to the formats.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from sections.figures import (
    Row,
    compute_ratios,
    compute_spread,
    describe_machine,
    print_markdown,
    print_row,
    take_turns,
)
from torch.utils.data import DataLoader, Dataset

from productrec.data.dataset import TrainingBatch, TrainingImages, TrainingLoader, build_training_loader
from productrec.data.packed import PackedImages, pack_images
from productrec.data.samplers import EpochSampler
from productrec.data.transforms import build_augmentation
from productrec.runtime import keep_freed_memory

_ROOT = Path(__file__).resolve().parents[1]
_MAX_SIDE_PX, _SIDE_PX, _QUALITY = 320, 224, 92
_SECTIONS = ("pack", "load", "formats")


def main() -> None:
    """Measure the sections that were asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "grocery")
    parser.add_argument("--images", type=int, default=2048, help="images at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--augmentation", default="product", help="preset or file")
    parser.add_argument("--only", choices=_SECTIONS, action="append", help="sections (all)")
    options = parser.parse_args()
    folder = options.data / "images" if (options.data / "images").is_dir() else options.data
    paths = sorted(str(path) for path in folder.iterdir() if path.is_file())[: options.images]
    if not paths:
        parser.error(f"{folder}: holds no files")
    print(f"command: python benchmarks/packed.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}; {len(paths)} images, {options.workers} workers\n", flush=True)
    chosen = options.only or _SECTIONS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if "pack" in chosen:
            rows += _measure_packing(paths, scratch, options.workers, options.repeats)
        if "load" in chosen:
            rows += _measure_loading(paths, scratch, options.workers, options.repeats, options.augmentation)
        if "formats" in chosen:
            rows += _measure_formats(paths, scratch, options.workers, options.repeats)
    print_markdown(rows)


def _report(section: str, what: str, seen: str, asked: float | None = None, ratio: float | None = None) -> Row:
    holds = None if asked is None or ratio is None else ratio >= asked
    row = Row(section, what, seen, "" if asked is None else f"at least {asked}", holds)
    print_row(row)
    return row


# ---------------------------------------------------------------- packing


def _pack(paths: Sequence[str], out: Path, workers: int, turn: int = 0) -> None:
    ids = [Path(path).name for path in paths]
    inputs = {"turn": str(turn)}
    pack_images(paths, out, ids=ids, max_side_px=_MAX_SIDE_PX, quality=_QUALITY, workers=workers, inputs=inputs)


def _encode_bare(path: str) -> int:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    height, width = pixels.shape[:2]
    scale = _MAX_SIDE_PX / max(height, width)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return len(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def _measure_packing(paths: Sequence[str], scratch: Path, workers: int, repeats: int) -> list[Row]:
    turns = iter(range(1, 1000))

    def ours() -> float:
        started = time.perf_counter()
        _pack(paths, scratch / "packing", workers, next(turns))
        return len(paths) / (time.perf_counter() - started)

    def bare() -> float:
        cv2.setNumThreads(1)
        started = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(_encode_bare, paths))
        return len(paths) / (time.perf_counter() - started)

    bare()  # the files are in the page cache from here on
    seen = take_turns({"ours": ours, "bare": bare}, repeats)
    ratio = compute_ratios(seen["ours"], seen["bare"])
    return [
        _report("pack", "images a second", compute_spread(seen["ours"]).show(0)),
        _report("pack", "bare OpenCV, images a second", compute_spread(seen["bare"]).show(0)),
        _report("pack", "times bare OpenCV", ratio.show(), 0.8, ratio.middle),
    ]


# ---------------------------------------------------------------- loading


class _Squares(Dataset[np.ndarray]):
    """Augmented squares, decoded by ``decode``."""

    def __init__(self, count: int, decode: Callable[[int], np.ndarray], augmentation: str) -> None:
        self._count = count
        self.decode = decode
        self.augment = build_augmentation(augmentation, _SIDE_PX)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> np.ndarray:
        return self.augment(self.decode(row), row)


def _decode_with_pillow(paths: Sequence[str], row: int) -> np.ndarray:
    with Image.open(paths[row]) as image:
        return np.asarray(image.convert("RGB"))


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _stack(items: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(items))


def _build_loader(images: _Squares, workers: int) -> DataLoader[np.ndarray]:
    return DataLoader(
        images,
        batch_size=64,
        shuffle=True,
        num_workers=workers,
        collate_fn=_stack,
        worker_init_fn=_start_worker,
        persistent_workers=True,
        prefetch_factor=4,
    )


def _load(loader: DataLoader[np.ndarray] | TrainingLoader, count: int) -> float:
    started = time.perf_counter()
    seen = sum(len(batch.images) if isinstance(batch, TrainingBatch) else len(batch) for batch in loader)
    assert seen == count
    return count / (time.perf_counter() - started)


def _work_through(images: _Squares, rows: Sequence[int]) -> float:
    """Images a second of decoding everything, then augmenting it, in pieces as long as a batch."""
    _start_worker(0)
    seconds = 0.0
    for start in range(0, len(rows), 64):
        piece = rows[start : start + 64]
        started = time.perf_counter()
        decoded = [images.decode(row) for row in piece]
        for row, pixels in zip(piece, decoded, strict=True):
            images.augment(pixels, row)
        seconds += time.perf_counter() - started
    return len(rows) / seconds


def _build_own_loader(packed: PackedImages, augmentation: str, workers: int) -> TrainingLoader:
    """Ours, as training has it."""
    labels = np.zeros(len(packed), np.int64)
    images = TrainingImages(packed, labels, build_augmentation(augmentation, _SIDE_PX), 0)
    sampler = EpochSampler(labels, batch_size=64, images_per_class=None, seed=0)
    return build_training_loader(images, sampler, workers=workers, pin_memory=False)


def _measure_loading(paths: Sequence[str], scratch: Path, workers: int, repeats: int, augmentation: str) -> list[Row]:
    keep_freed_memory(torch.device("cpu"))  # as training does; the other loaders and processes gain by it too
    paths = paths[: len(paths) // 64 * 64]  # whole batches
    _pack(paths, scratch / "pack", workers)
    count = len(paths)
    store = PackedImages(scratch / "pack")
    packed = _Squares(count, store.decode, augmentation)
    files = _Squares(count, partial(_decode_with_pillow, paths), augmentation)
    from_pack, from_files = _build_own_loader(store, augmentation, workers), _build_loader(files, workers)
    order = np.random.default_rng(0).permutation(count).tolist()
    shares = [order[start::workers] for start in range(workers)]
    with multiprocessing.Pool(workers) as pool:

        def parts() -> float:
            return sum(pool.map(partial(_work_through, packed), shares, chunksize=1))

        turns = {"pack": lambda: _load(from_pack, count), "parts": parts, "files": lambda: _load(from_files, count)}
        take_turns(turns, 1)
        seen = take_turns(turns, repeats)
    to_parts, to_files = compute_ratios(seen["pack"], seen["parts"]), compute_ratios(seen["pack"], seen["files"])
    return [
        _report("load", f"from the store, {augmentation}, images a second", compute_spread(seen["pack"]).show(0)),
        _report("load", "times decode and augment alone", to_parts.show(), 0.95, to_parts.middle),
        _report("load", "times the files through Pillow", to_files.show(), 1.2, to_files.middle),
    ]


# ---------------------------------------------------------------- formats


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def read(self, row: int) -> bytes:
        return self._zip.read(str(row))


class _Lmdb:
    def __init__(self, path: Path) -> None:
        lmdb: Any = importlib.import_module("lmdb")
        self._view = lmdb.open(str(path), readonly=True, lock=False, readahead=False).begin(buffers=True)

    def read(self, row: int) -> Any:
        return self._view.get(b"%08d" % row)


def _write_others(store: PackedImages, scratch: Path) -> dict[str, Callable[[], Any]]:
    with zipfile.ZipFile(scratch / "images.zip", "w", zipfile.ZIP_STORED) as file:
        for row in range(len(store)):
            file.writestr(str(row), store.read(row))
    others: dict[str, Callable[[], Any]] = {"zip, stored": partial(_Zip, scratch / "images.zip")}
    if importlib.util.find_spec("lmdb") is not None:
        lmdb: Any = importlib.import_module("lmdb")
        with (
            lmdb.open(str(scratch / "lmdb"), map_size=64 << 30) as database,
            database.begin(write=True) as transaction,
        ):
            for row in range(len(store)):
                transaction.put(b"%08d" % row, store.read(row))
        others["LMDB"] = partial(_Lmdb, scratch / "lmdb")
    return others


def _read_rows(open_store: Callable[[], Any], rows: Sequence[int]) -> float:
    """Microseconds a row, with a copy, so that every byte is read."""
    store = open_store()
    started = time.perf_counter()
    for row in rows:
        bytes(store.read(row))
    return (time.perf_counter() - started) / len(rows) * 1e6


def _measure_formats(paths: Sequence[str], scratch: Path, workers: int, repeats: int) -> list[Row]:
    _pack(paths, scratch / "pack", workers)
    stores: dict[str, Callable[[], Any]] = {"Arrow": partial(PackedImages, scratch / "pack")}
    stores |= _write_others(PackedImages(scratch / "pack"), scratch)
    rows = np.random.default_rng(0).integers(0, len(paths), 10_000).tolist()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")

    def together(open_store: Callable[[], Any]) -> float:
        with context.Pool(workers) as pool:  # new processes: LMDB opens a folder once in each
            return max(pool.map(partial(_read_rows, open_store), [rows] * workers, chunksize=1))

    def alone(open_store: Callable[[], Any]) -> float:
        with context.Pool(1) as pool:
            return pool.apply(_read_rows, (open_store, rows))

    turns = {(name, how): partial(how, opened) for name, opened in stores.items() for how in (alone, together)}
    seen = take_turns({f"{name}, {how.__name__}": turn for (name, how), turn in turns.items()}, min(repeats, 3))
    return [
        _report("formats", f"{name}, us a row and process", compute_spread(values).show(1))
        for name, values in seen.items()
    ]


if __name__ == "__main__":
    main()
