"""Draws a competition in iMaterialist Product 2019's layout, truth included, for the demo, tests and benchmarks.

The products are invented (`catalogue`, `kinds`), printed (`label`, `marks`), packed
(`package`) and photographed (`pose`, `scene`, `photograph`). What comes out is read like any
other source folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import explain_storage_errors
from productrec.demo.drawn.catalogue import Sku, design_catalogue
from productrec.demo.drawn.marks import Pixels
from productrec.demo.drawn.package import make_package
from productrec.demo.drawn.photograph import cut_out, take_photograph
from productrec.demo.drawn.titles import write_title
from productrec.errors import DataError
from productrec.runtime import count_cores

_WHERE = "drawn competition"
_SPLITS = ("train", "val", "test")
_UNEVENNESS = 0.4  # a SKU has at most this share more or fewer training images than the mean
_SIBLING_MISTAKES = 0.7  # whoever labels wrongly mostly takes a product for its sibling
_NEIGHBOURS = 20  # packages of other makers that stand around in the photographs
# One stream of random numbers for each purpose, so that asking for more of one thing leaves the others as they were.
_CATALOGUE, _PLAN, _CLUTTER, _PHOTOGRAPHS, _TITLES = range(5)


@dataclass(frozen=True)
class DrawnCompetition:
    """Where a drawn competition lies and how much is in it.

    ``hidden_labels`` (id, class) is the truth of the test split, for the final scoring alone; ``hidden_wrong_labels``
    (id, given, true) lists the training labels that were spoilt on purpose.
    """

    folder: Path
    hidden_labels: Path
    hidden_wrong_labels: Path
    classes: int
    train_images: int
    val_images: int
    test_images: int
    wrong_labels: int


@dataclass(frozen=True)
class _Shot:
    """One photograph to take: its place in the random streams, its file name, its SKU and the label it is given."""

    index: int
    image_id: str
    split: str
    sku: int
    label: int


def draw_competition(
    out: Path,
    *,
    skus: int = 40,
    train_images: int = 12,
    val_images: int = 3,
    test_images: int = 4,
    max_side_px: int = 160,
    difficulty: float = 0.5,
    wrong_label_fraction: float = 0.02,
    titles: bool = False,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> DrawnCompetition:
    """Draw product photographs of invented SKUs and write them to ``out`` as a competition's files.

    ``out`` gets ``train.json``, ``val.json``, ``test.json``, ``product_tree.json``, ``sample_submission.csv``,
    ``images/`` and, apart from these, ``hidden/`` with the truth. Everything follows from ``seed`` alone; the number of
    workers changes nothing. ``out`` appears when all is drawn: a run cut short leaves nothing there.

    Args:
        out: a folder that does not exist yet, or is empty.
        skus: how many classes, at least 3 (a submission names three).
        train_images: training images of a SKU on average, at least 2; single SKUs have up to 40 % more or fewer, at
            least 2, and the sum is exactly ``skus * train_images``.
        val_images: validation images of each SKU, at least 1.
        test_images: test images of each SKU, at least 1.
        max_side_px: longer side of every image, 32 to 2048.
        difficulty: 0 to 1; how alike siblings are, and how far pose, clutter, light, blur and noise go.
        wrong_label_fraction: share of training images with a wrong label, 0 to 0.5; a SKU keeps one right one at least.
        titles: whether most images have a title, as shops would write it, see `titles`; images are the same.
        seed: 0 or more.
        workers: threads; the cores available when not given.
        on_progress: called now and then with the number of images finished since the last call.

    Raises:
        DataError: an argument is out of range, or ``out`` cannot take the files.
        StorageError: the disk refused.
    """
    _check_numbers(
        skus=(skus, 3, 100_000),
        train_images=(train_images, 2, 100_000),
        val_images=(val_images, 1, 100_000),
        test_images=(test_images, 1, 100_000),
        max_side_px=(max_side_px, 32, 2048),
        difficulty=(difficulty, 0, 1),
        wrong_label_fraction=(wrong_label_fraction, 0, 0.5),
        seed=(seed, 0, 2**63 - 1),
        workers=(count_cores() if workers is None else workers, 1, 1024),
    )
    with explain_storage_errors(out):
        out = _check_folder(out)
    catalogue = design_catalogue(skus, difficulty=difficulty, rng=_make_rng(seed, _CATALOGUE))
    counts = {"val": [val_images] * skus, "test": [test_images] * skus}
    rng = _make_rng(seed, _PLAN)
    counts["train"] = _spread_counts(skus, train_images, rng)
    shots = _plan_shots(catalogue, counts, wrong_label_fraction, seed, rng)

    with explain_storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            (temporary / "images").mkdir(parents=True)
            (temporary / "hidden").mkdir()
            titled = _write_titles(catalogue, shots, difficulty, seed) if titles else {}
            _write_files(temporary, catalogue, shots, titled)
            _take_photographs(
                temporary / "images",
                catalogue,
                shots,
                max_side_px=max_side_px,
                difficulty=difficulty,
                seed=seed,
                workers=workers or count_cores(),
                on_progress=on_progress,
            )
            if out.exists():
                out.rmdir()  # empty, as checked; not every system renames onto a folder
            os.rename(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return DrawnCompetition(
        folder=out,
        hidden_labels=out / "hidden" / "test_labels.csv",
        hidden_wrong_labels=out / "hidden" / "wrong_labels.csv",
        classes=skus,
        train_images=sum(counts["train"]),
        val_images=sum(counts["val"]),
        test_images=sum(counts["test"]),
        wrong_labels=sum(shot.label != shot.sku for shot in shots),
    )


def _make_rng(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng((seed, *stream))


def _check_numbers(**arguments: tuple[float, float, float]) -> None:
    for name, (value, low, high) in arguments.items():
        if not low <= value <= high:  # refuses NaN too
            raise DataError(f"{_WHERE}: {name} must be {low} to {high}; got {value}. Choose a value in that range.")


def _check_folder(out: Path) -> Path:
    """``out`` without symbolic links, if the finished folder can be renamed to it."""
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise DataError(f"{_WHERE}: {out} must be a new or empty folder; got a file. Choose another name.")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"{_WHERE}: {out} must be a new or empty folder; got one with files in it. Choose another name."
        )
    if out.is_mount():
        raise DataError(f"{_WHERE}: {out} must be a folder within a disk; got a mount point. Name a folder below it.")
    return out


def _spread_counts(skus: int, mean: int, rng: np.random.Generator) -> list[int]:
    """Training images of each SKU: what one half of the SKUs has above the mean, the other half has below."""
    most = min(mean - 2, round(_UNEVENNESS * mean))
    order, half = rng.permutation(skus), skus // 2
    shift = rng.integers(0, most + 1, half)
    counts = np.full(skus, mean)
    counts[order[:half]] += shift
    counts[order[half : 2 * half]] -= shift
    return [int(count) for count in counts]


def _plan_shots(
    catalogue: Sequence[Sku], counts: dict[str, list[int]], wrong_fraction: float, seed: int, rng: np.random.Generator
) -> list[_Shot]:
    """All photographs, SKU by SKU; some of the training ones get a wrong label."""
    shots: list[_Shot] = []
    for sku in range(len(catalogue)):
        for split in _SPLITS:
            for _ in range(counts[split][sku]):
                index = len(shots)
                image_id = hashlib.sha256(f"{seed} {index}".encode()).hexdigest()[:32] + ".jpg"
                shots.append(_Shot(index, image_id, split, sku, sku))
    train = [shot for shot in shots if shot.split == "train"]
    spoilable = [later for earlier, later in pairwise(train) if earlier.sku == later.sku]
    for row in rng.permutation(len(spoilable))[: round(wrong_fraction * len(train))]:
        shot = spoilable[int(row)]
        others = [sku for sku in range(len(catalogue)) if sku != shot.sku]
        siblings = [sku for sku in others if catalogue[sku].family == catalogue[shot.sku].family]
        pool = siblings if siblings and rng.random() < _SIBLING_MISTAKES else others
        shots[shot.index] = replace(shot, label=pool[int(rng.integers(len(pool)))])
    return shots


def _write_titles(catalogue: Sequence[Sku], shots: Sequence[_Shot], difficulty: float, seed: int) -> dict[str, str]:
    """Titles by image id, of the products as they are, whatever label they are given."""
    written = {}
    for shot in shots:
        rng = _make_rng(seed, _TITLES, shot.index)
        if (title := write_title(catalogue[shot.sku], difficulty=difficulty, rng=rng)) is not None:
            written[shot.image_id] = title
    return written


def _write_files(folder: Path, catalogue: Sequence[Sku], shots: Sequence[_Shot], titles: Mapping[str, str]) -> None:
    by_id = sorted(shots, key=lambda shot: shot.image_id)  # so that the order tells nothing of the class
    for split in _SPLITS:
        images: list[dict[str, Any]] = []
        for shot in by_id:
            if shot.split == split:
                images.append({"id": shot.image_id, "url": f"http://127.0.0.1:8765/{shot.image_id}"})
                if split != "test":
                    images[-1]["class"] = shot.label
                if shot.image_id in titles:
                    images[-1]["title"] = titles[shot.image_id]
        _write_text(folder / f"{split}.json", json.dumps({"images": images}, indent=0) + "\n")
    tree: dict[str, dict[str, list[str]]] = {}
    for class_id, sku in enumerate(catalogue):
        tree.setdefault(sku.family.branch, {}).setdefault(sku.family.name, []).append(str(class_id))
    _write_text(folder / "product_tree.json", json.dumps(tree, indent=1) + "\n")
    test = [shot for shot in by_id if shot.split == "test"]
    _write_csv(folder / "sample_submission.csv", "id,predicted", (f"{shot.image_id},0 1 2" for shot in test))
    _write_csv(folder / "hidden" / "test_labels.csv", "id,class", (f"{shot.image_id},{shot.sku}" for shot in test))
    wrong = (f"{shot.image_id},{shot.label},{shot.sku}" for shot in by_id if shot.label != shot.sku)
    _write_csv(folder / "hidden" / "wrong_labels.csv", "id,given,true", wrong)


def _write_csv(path: Path, header: str, rows: Iterable[str]) -> None:
    _write_text(path, "\n".join((header, *rows)) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _take_photographs(
    folder: Path,
    catalogue: Sequence[Sku],
    shots: Sequence[_Shot],
    *,
    max_side_px: int,
    difficulty: float,
    seed: int,
    workers: int,
    on_progress: Callable[[int], None] | None,
) -> None:
    """One task a SKU: its package is made, photographed and forgotten, so that memory does not grow with the SKUs."""
    cutouts = _draw_neighbours(max_side_px, seed)
    by_sku: dict[int, list[_Shot]] = {}
    for shot in shots:
        by_sku.setdefault(shot.sku, []).append(shot)

    def photograph(sku: int) -> int:
        package = make_package(catalogue[sku], max_side_px)
        for shot in by_sku[sku]:
            rng = _make_rng(seed, _PHOTOGRAPHS, shot.index)
            data = take_photograph(package, cutouts, max_side_px=max_side_px, difficulty=difficulty, rng=rng)
            (folder / shot.image_id).write_bytes(data)
        return len(by_sku[sku])

    pool = ThreadPoolExecutor(workers, thread_name_prefix="photographer")  # OpenCV lets go of Python's lock
    try:
        for done in as_completed([pool.submit(photograph, sku) for sku in by_sku]):
            count = done.result()
            if on_progress is not None:
                on_progress(count)
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_neighbours(max_side_px: int, seed: int) -> list[Pixels]:
    """Cut-outs of packages that are no class of the competition."""
    rng = _make_rng(seed, _CLUTTER)
    strangers = design_catalogue(4 * _NEIGHBOURS, difficulty=0.5, rng=rng)[::4]  # about one of each family
    return [cut_out(make_package(sku, max_side_px), max_side_px, rng) for sku in strangers]
