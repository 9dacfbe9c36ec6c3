"""Benchmark of near-duplicates: the exact search over drawn hashes, and planted copies among real photographs.

The first table hides copies (a few bits flipped) and a bucket of equal hashes among drawn hashes; all must be found.
The second puts copies of known kinds among the photographs of ``--data`` and tells which come back, and which pairs are
reported that nobody planted. Memory is that of numpy's arrays at the highest, measured in a second run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sections.figures import describe_machine

from productrec.data.curation.duplicates import (
    MOST_BITS,
    cluster_duplicates,
    compute_fingerprints,
    find_duplicates,
)
from productrec.data.curation.near_hashes import find_duplicate_pairs
from productrec.data.decode import decode_image, read_image_bytes
from productrec.data.images import FileImages
from productrec.data.inspection import inspect_images

_EQUAL_SHARE = 0.2  # of the drawn hashes are one and the same
_PLANTED_SHARE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="drawn hashes")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8, MOST_BITS], help="distances searched")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/grocery"), help="folder with images/")
    parser.add_argument("--planted", type=int, default=10, help="copies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"command: python benchmarks/duplicates.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n", flush=True)
    print("| hashes | equal | bits | s | peak, MB | pairs | planted found |")
    print("|---|---|---|---|---|---|---|")
    for equal in (0, int(options.count * _EQUAL_SHARE)):
        for most_bits in options.bits:
            print(_search(options.count, equal, most_bits, options.seed), flush=True)
    if (options.data / "images").is_dir():
        _plant(options.data / "images", options.planted, options.seed, options.workers)
    else:
        print(f"\nno images at {options.data}: the table of planted copies is left out")


def _search(count: int, equal: int, most_bits: int, seed: int) -> str:
    generator = np.random.default_rng(seed)
    hashes = generator.integers(2**64, size=(count, 1), dtype=np.uint64)
    hashes[:equal] = hashes[0]
    planted = int(count * _PLANTED_SHARE)
    copies, sources = np.arange(count - planted, count), generator.permutation(count - planted)[:planted]
    for copy, source in zip(copies, sources, strict=True):
        flipped = generator.permutation(64)[: generator.integers(most_bits + 1)]
        hashes[copy] = hashes[source] ^ np.bitwise_or.reduce(np.uint64(1) << flipped.astype(np.uint64))
    found: list[np.ndarray] = []

    def work() -> None:
        rows, _ = find_duplicate_pairs(hashes, most_bits)
        found[:] = [rows, cluster_duplicates(count, rows)]

    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    rows, groups = found
    recall = (groups[copies] == groups[sources]).mean()
    return f"| {count:,} | {equal:,} | {most_bits} | {seconds:.2f} | {peak:.0f} | {len(rows):,} | {recall:.4f} |"


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def _resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    return np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _crop(pixels: np.ndarray, generator: np.random.Generator, most: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, bottom, left, right = generator.uniform(0.5 * most, most, 4)
    return pixels[int(top * height) : height - int(bottom * height), int(left * width) : width - int(right * width)]


_KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], bytes]] = {
    "resized, 0.4 to 0.9": lambda pixels, generator: _encode(_resize(pixels, generator.uniform(0.4, 0.9)), 90),
    "stored again, quality 50": lambda pixels, generator: _encode(pixels, 50),
    "cropped, 2 to 4 % a side": lambda pixels, generator: _encode(_crop(pixels, generator, 0.04), 90),
    "brighter, cropped 1 to 2 %, quality 50": lambda pixels, generator: _encode(
        np.clip(_crop(pixels, generator, 0.02) * 1.06 + 4.0, 0, 255).astype(np.uint8), 50
    ),
}


def _plant(folder: Path, each: int, seed: int, workers: int) -> None:
    generator = np.random.default_rng(seed)
    paths = sorted(str(path) for path in folder.iterdir())
    kinds = [kind for kind in ("exact", *_KINDS) for _ in range(each)]
    sources = generator.permutation(len(paths))[: len(kinds)]
    with tempfile.TemporaryDirectory() as temporary:
        copies = []
        for number, (kind, source) in enumerate(zip(kinds, sources, strict=True)):
            data = read_image_bytes(paths[source])
            copy = Path(temporary) / f"{number}.jpg"
            copy.write_bytes(data if kind == "exact" else _KINDS[kind](decode_image(data, copy), generator))
            copies.append(str(copy))
        every = paths + copies
        states = inspect_images(every, workers=workers, verify=True)
        images = pd.DataFrame({"image_id": [Path(path).name for path in every], "split": "train"})
        images["box"] = None
        images["digest"] = [state.digest for state in states]
        images["label"] = pd.array([None] * len(every), dtype="Int64")
        started = time.perf_counter()
        fingerprints = compute_fingerprints(FileImages(every), workers=workers)
        hashed = time.perf_counter()
        report = find_duplicates(images, fingerprints, workers=workers)
        ended = time.perf_counter()
    candidates = len(find_duplicate_pairs(fingerprints.hashes, MOST_BITS)[0])
    print(f"\n{len(paths):,} photographs, {len(kinds)} copies; {candidates:,} pairs of close hashes.")
    print(f"Decoding and hashing {hashed - started:.1f} s, search and comparison {ended - hashed:.1f} s.\n")
    print("| copy | planted | found |")
    print("|---|---|---|")
    found = report.groups[len(paths) :] == report.groups[sources]
    for kind in dict.fromkeys(kinds):
        own = np.array(kinds) == kind
        print(f"| {kind} | {own.sum()} | {found[own].sum()} |")
    print(f"| all | {len(kinds)} | {found.sum()} |\n")
    owner = np.concatenate([np.arange(len(paths)), sources])  # a copy counts as its source
    pairs = owner[report.pairs]
    others = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
    print(f"{len(pairs)} pairs reported; not planted: {len(others)}, {(others < 100).sum()} among the first 100")
    for pair in others:
        left, right = pairs[pair]
        print(f"- {report.agreement[pair]:.4f} {images['image_id'][left]} {images['image_id'][right]}")


if __name__ == "__main__":
    main()
