"""Accuracy of a catalogue that grew by products that training never saw, from a few photos each.

RUN is a finished run. Folders hold one folder a product with its photos: NEW the products to grow by, OLD photos of the
run's own classes that it was not trained on (a folder's name is the class's key or name), STRANGERS products that stay
unknown. For each number of photos a copy of the run grows by so many of each new product, and is asked for all others.

Accuracies are of the first answer, with their 95 % intervals (Wilson). True accepts: photos of old and new products
that are answered rightly with a probability above that which 1 % of the strangers reach; left out below 100 strangers.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from productrec.metrics.wilson import compute_wilson_interval

_FALSE_ACCEPTS = 0.01
_LEAST_STRANGERS = 100


def main() -> None:
    """Grow, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("--strangers", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 3, 5], help="of each new product")
    parser.add_argument("--seed", type=int, default=0, help="decides which photos")
    options = parser.parse_args()
    print(f"command: python benchmarks/growing.py {' '.join(sys.argv[1:])}\n")
    print("| photos of each new product | accuracy on new | accuracy on old | true accepts at 1 % false |")
    print("|---|---|---|---|", flush=True)
    for photos in (0, *options.photos):
        with tempfile.TemporaryDirectory() as folder:
            print(_measure(options, photos, Path(folder)), flush=True)


def _measure(options: argparse.Namespace, photos: int, place: Path) -> str:
    shutil.copytree(options.run, place / "run")
    most = max(options.photos)
    for product in sorted(path for path in options.new.iterdir() if path.is_dir()):
        files = sorted(path for path in product.rglob("*") if path.is_file())
        random.Random(f"{options.seed} {product.name}").shuffle(files)
        for number, file in enumerate(files):
            # What is asked is the same whatever the number of photos.
            split = "shown" if number < photos else "asked/new" if number >= most else None
            if split is not None:
                target = place / split / product.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target / f"{number} {file.name}")
    shutil.copytree(options.old, place / "asked/old")
    if options.strangers:
        shutil.copytree(options.strangers, place / "asked/strangers")
    if photos:
        _call(["index", "grow", str(place / "run"), str(place / "shown")])
    _call(["predict", str(place / "run"), "--images", str(place / "asked"), "--out", str(place / "answers.csv")])
    with (place / "answers.csv").open(newline="", encoding="utf-8") as file:
        answers = [row for row in csv.DictReader(file) if not row["reason"]]
    right: dict[str, list[bool]] = {"new": [], "old": [], "strangers": []}
    sure: dict[str, list[float]] = {"new": [], "old": [], "strangers": []}
    for row in answers:
        group, product, _ = row["id"].split("/", 2)
        right[group].append(product in (row["class"], row["class_id"]))
        sure[group].append(float(row["probability"]))
    accepts = "not measurable"
    if len(sure["strangers"]) >= _LEAST_STRANGERS:
        threshold = np.quantile(sure["strangers"], 1 - _FALSE_ACCEPTS)
        known = np.array(right["new"] + right["old"]) & (np.array(sure["new"] + sure["old"]) > threshold)
        accepts = f"{known.mean():.3f}"
    return f"| {photos} | {_describe(right['new'])} | {_describe(right['old'])} | {accepts} |"


def _describe(right: list[bool]) -> str:
    if not right:
        return "no photos"
    low, high = compute_wilson_interval(float(np.mean(right)), len(right))
    return f"{np.mean(right):.3f} ({low:.3f} to {high:.3f}, {len(right):,} photos)"


def _call(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "productrec", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
