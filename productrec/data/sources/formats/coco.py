"""COCO JSON: every box is a row, cropped from its picture with a margin."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from productrec.data.boxes import format_box
from productrec.data.sources.files import list_folders
from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows, read_class_id
from productrec.data.sources.unpacked import match_split
from productrec.data.table import SPLITS
from productrec.errors import DataError

ROBOFLOW_NAME = "_annotations.coco.json"
_CHUNK_BYTES = 1 << 20


def read_coco(source: Path, options: ReadOptions) -> SourceRows:
    """Read ``{"images", "annotations" with "bbox", "categories"}``, a file a split.

    Files are ``train.json``, ``val.json`` and ``test.json``, ``annotations/instances_*.json`` with the split in the
    name, or Roboflow's ``_annotations.coco.json`` in the folders train, valid and test. A row's id is that of its
    annotation, behind its image's: ``12#345``; where files number their images each from the start, the split goes
    before the ids of train and val. A picture without a box stays a row of its own in test, where all of it is looked
    at.

    Args:
        source: folder.
        options: ``box_margin``; what of a widened box lies outside the picture is cut off.

    Raises:
        DataError: a file is not JSON or not of this form, or one category has two names.
    """
    rows = SourceRows()
    files = list_coco_files(source)
    if "train" not in files:
        raise DataError(
            f"{source}: a COCO source must hold train.json, annotations/instances_train*.json or "
            f"train/{ROBOFLOW_NAME}; got none of them."
        )
    for split, path in files.items():
        _read(path, split, source, options.box_margin, rows)
        rows.notes.append(f"{path.relative_to(source).as_posix()}: boxes of {split}")
    repeated = {image_id for image_id, count in Counter(rows.image_id).items() if count > 1}
    if repeated:  # each file counts from the start
        rows.image_id = [
            image_id if split == "test" else f"{split}/{image_id}"
            for image_id, split in zip(rows.image_id, rows.split, strict=True)
        ]
        rows.notes.append("ids are numbered in each file anew: train/ and val/ stand before those of train and val")
    return rows


def list_coco_files(source: Path) -> dict[str, Path]:
    """The annotation file of each split that has one."""
    files: dict[str, Path] = {}
    annotations = source / "annotations"
    named = sorted(annotations.glob("instances_*.json")) if annotations.is_dir() else []
    for path in named:
        split = match_split(path.stem.removeprefix("instances_"))
        if split is not None:
            files.setdefault(split, path)
    for folder in list_folders(source):
        split = match_split(folder.name, whole=True)
        if split is not None and (folder / ROBOFLOW_NAME).is_file():
            files[split] = folder / ROBOFLOW_NAME
    for split in SPLITS:
        if (source / f"{split}.json").is_file():
            files[split] = source / f"{split}.json"
    return {split: files[split] for split in SPLITS if split in files}


def _read(path: Path, split: str, source: Path, margin: float, rows: SourceRows) -> None:
    # Roboflow's file names are those of the folder that the file lies in.
    folder = f"{path.parent.relative_to(source).as_posix()}/" if path.name == ROBOFLOW_NAME else ""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        pictures = {entry["id"]: folder + str(entry["file_name"]) for entry in document["images"]}
        for entry in document.get("categories") or ():
            class_id, name = read_class_id(entry["id"], f"{path}: a category's id"), str(entry["name"])
            if rows.class_names.setdefault(class_id, name) != name:
                raise DataError(
                    f"{path}: category {class_id} must be {rows.class_names[class_id]!r}, as in the files before it; "
                    f"got {name!r}. Number the categories of all files alike."
                )
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
            category = entry.get("category_id") if split == "test" else entry["category_id"]
            label = None if category is None else read_class_id(category, f"{path}: a category's id")
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


def _is_coco(source: Path) -> bool:
    train = source / "train.json"
    return _mentions(train, b'"bbox"') if train.is_file() else bool(list_coco_files(source))


def _mentions(path: Path, text: bytes) -> bool:
    """Whether a file holds these bytes; it is read in chunks, because such files may be large."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if text in tail + chunk:
                return True
            tail = chunk[-len(text) :]
    return False


FORMAT = Format(
    rank=30,
    shows="train.json or annotations/instances_train*.json with boxes (COCO)",
    detect=_is_coco,
    read=read_coco,
    lists=("annotations/*", f"*/{ROBOFLOW_NAME}"),
)
