"""What an index grows by: photos in a folder a product, or an image table, with the classes that they are of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from productrec.artifacts import MANIFEST_NAME
from productrec.console import show_progress, warn
from productrec.data.class_keys import get_class_keys
from productrec.data.inspection import inspect_images
from productrec.data.table import SPLITS, load_table
from productrec.errors import DataError, describe_offenders
from productrec.runtime import count_cores
from productrec.training.run.checkpoint import Checkpoint


@dataclass(frozen=True)
class Reference:
    """A photo of a product: its image id, the product as the source names it, what it is called, and the file."""

    image_id: str
    product: str
    title: str
    path: str


def list_references(source: Path) -> list[Reference]:
    """The readable photos of a folder with one sub-folder a product, or of an image table, whatever their split.

    Raises:
        DataError: there is none, or the table keeps its images in a packed store.
    """
    found = _list_table(source) if (source / MANIFEST_NAME).is_file() else _list_folder(source)
    with show_progress("reading photos", len(found)) as bar:
        states = inspect_images([one.path for one in found], workers=count_cores(), on_progress=bar.advance)
    bad = [f"{one.image_id}: {state.reason}" for one, state in zip(found, states, strict=True) if state.status != "ok"]
    good = [one for one, state in zip(found, states, strict=True) if state.status == "ok"]
    if not good:
        raise DataError(f"{source}: must hold at least one photo that can be read; got {describe_offenders(bad, 3)}.")
    if bad:
        warn(f"{source}: left out, since they cannot be read: {describe_offenders(bad, 3)}")
    lost = sorted({one.product for one in found} - {one.product for one in good})
    if lost:
        warn(f"{source}: products without one readable photo are left out: {describe_offenders(lost)}")
    return good


def match_products(products: Sequence[str], checkpoint: Checkpoint) -> dict[str, str]:
    """The key of each product's class: that of the run's class of this key, or of that of this name, or its own."""
    known = set(checkpoint.class_keys)
    counts = pd.Series(checkpoint.class_names, dtype="str").value_counts()
    named = dict(zip(checkpoint.class_names, checkpoint.class_keys, strict=True))
    return {
        product: named[product] if product not in known and counts.get(product, 0) == 1 else product
        for product in dict.fromkeys(products)
    }


def _list_folder(source: Path) -> list[Reference]:
    if not source.is_dir():
        raise DataError(f"{source}: must be a folder with one folder a product, or an image table; there is none.")
    found, loose = list[Reference](), list[str]()
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            place = Path(folder, name).relative_to(source)
            if len(place.parts) == 1:
                loose.append(name)
                continue
            product = place.parts[0]
            found.append(Reference(place.as_posix(), product, product, str(Path(folder, name).absolute())))
    if not found:
        raise DataError(
            f"{source}: must hold one folder a product, with its photos; got {describe_offenders(loose)} files and no "
            "folder of photos. Put each product's photos into a folder of its name."
        )
    if loose:
        warn(f"{source}: left out, since they lie in no product's folder: {describe_offenders(loose)}")
    return found


def _list_table(source: Path) -> list[Reference]:
    table = load_table(source)
    if table.packed is not None:
        raise DataError(
            f"{source}: keeps its images in {table.packed}. Name a folder of photos, or ingest without pack."
        )
    rows = table.select(SPLITS)
    rows = rows[rows["label"].notna()]
    if rows["box"].notna().any():
        raise DataError(f"{source}: its images are boxes in larger ones. Name a folder of photos, one product in each.")
    if not len(rows):
        raise DataError(f"{source}: must hold images with a label that can be read; got none.")
    labels = [int(label) for label in rows["label"]]
    keys = dict(zip(labels, get_class_keys(table, labels), strict=True))
    titles = dict(zip(labels, table.get_class_names(labels), strict=True))
    ids, paths = rows["image_id"].tolist(), table.get_paths(rows)
    return [
        Reference(image_id, keys[label], titles[label], path)
        for image_id, label, path in zip(ids, labels, paths, strict=True)
    ]
