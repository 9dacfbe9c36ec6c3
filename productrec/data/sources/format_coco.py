"""Reader for COCO JSON: every box is a row, cropped from its picture with a margin."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from productrec.data.sources.formats import SourceRows, parse_whole_number
from productrec.data.table import SPLITS, format_box
from productrec.errors import DataError


def read_coco(source: Path, *, margin: float = 0.1) -> SourceRows:
    """Read ``{"images", "annotations" with "bbox", "categories"}``, a file a split.

    Files are ``train.json``, ``val.json`` and ``test.json``, or ``annotations/instances_*.json`` with the split in the
    name. A row's id is that of its annotation, behind its image's: ``12#345``. A picture without a box stays a row of
    its own in test, where all of it is looked at.

    Args:
        source: folder.
        margin: by which share of its size a box is widened on every side; what lies outside the picture is cut off.

    Raises:
        DataError: a file is not JSON or not of this form.
    """
    rows = SourceRows()
    found = list_coco_files(source)
    if "train" not in found:
        raise DataError(f"{source}: a COCO source must hold train.json or annotations/instances_train*.json.")
    for split, path in found.items():
        _read(path, split, margin, rows)
    return rows


def list_coco_files(source: Path) -> dict[str, Path]:
    """The annotation file of each split that has one."""
    found: dict[str, Path] = {}
    for split in SPLITS:
        named = sorted((source / "annotations").glob(f"instances_{split}*.json"))
        for path in (source / f"{split}.json", *named):
            if path.is_file():
                found.setdefault(split, path)
    return found


def _read(path: Path, split: str, margin: float, rows: SourceRows) -> None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        pictures = {entry["id"]: str(entry["file_name"]) for entry in document["images"]}
        for entry in document.get("categories") or ():
            class_id = _read_label(entry["id"], path)
            rows.class_names[class_id] = str(entry["name"])
            if entry.get("supercategory"):
                rows.class_paths[class_id] = str(entry["supercategory"])
        boxed = set()
        for entry in document.get("annotations") or ():
            picture = entry["image_id"]
            box = [float(value) for value in entry["bbox"]]
            if picture not in pictures:
                raise DataError(f"{path}: annotation {entry['id']} is of image {picture}, which is not listed.")
            if len(box) != 4 or not all(math.isfinite(value) for value in box) or min(box[2:]) <= 0:
                raise DataError(f"{path}: annotation {entry['id']} must have a box x, y, width, height; got {box}.")
            boxed.add(picture)
            label = None if split == "test" else _read_label(entry["category_id"], path)
            rows.add(f"{picture}#{entry['id']}", split, label, path=pictures[picture], box=_widen(box, margin))
    except (ValueError, OSError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not COCO's JSON with images, annotations and boxes ({error!r}).") from None
    if split == "test":
        for picture, name in pictures.items():
            if picture not in boxed:
                rows.add(str(picture), split, None, path=name)


def _widen(box: list[float], margin: float) -> str:
    x, y, width, height = box
    return format_box(x - margin * width, y - margin * height, width * (1 + 2 * margin), height * (1 + 2 * margin))


def _read_label(value: Any, path: Path) -> int:
    label = parse_whole_number(str(value))
    if label is None:
        raise DataError(f"{path}: a category's id must be a whole number; got {str(value)[:80]!r}.")
    return label
