"""The JSON of iMaterialist and the other FGVC competitions: a file a split, and product_tree.json."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows, parse_whole_number, read_class_id
from productrec.data.table import SPLITS
from productrec.errors import DataError


def read_fgvc_json(source: Path, options: ReadOptions) -> SourceRows:
    """Read ``{"images": [{"id", "url", "class"}]}`` per split, or the form with separate ``annotations``.

    Ids are kept as strings, to the letter. ``product_tree.json`` gives each class its path in the category tree;
    ``classes.csv`` (columns class, name, description), where present, gives names and descriptions.

    Raises:
        DataError: a file is not JSON or not of this form.
    """
    rows = SourceRows()
    for split in SPLITS:
        path = source / f"{split}.json"
        if not path.is_file():
            if split == "train":
                raise DataError(f"{path}: must exist in an FGVC source; no such file.")
            continue
        document = _load(path)
        labels, names = _read_annotations(document, path)
        rows.class_names.update(names)
        for entry in document["images"]:
            if not isinstance(entry, dict) or entry.get("id") is None:
                raise DataError(f"{path}: every image must be an object with an 'id'; got {str(entry)[:80]}.")
            image_id = str(entry["id"])
            label = entry.get("class", entry.get("category_id", labels.get(image_id)))
            if split == "test":
                label = None
            title = entry.get("title")
            rows.add(
                image_id,
                split,
                None if label is None else read_class_id(label, f"{path}: the class of image {image_id!r}"),
                url=None if entry.get("url") is None else str(entry["url"]),
                title=None if title is None else str(title),
                path=None if entry.get("file_name") is None else str(entry["file_name"]),
            )
    tree = source / "product_tree.json"
    if tree.is_file():
        for class_id, categories in _walk_tree(_load_json(tree), tree):
            rows.class_paths[class_id] = "/".join(categories)
    _read_class_names(source / "classes.csv", rows)
    return rows


def _load(path: Path) -> dict[str, Any]:
    document = _load_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise DataError(f"{path}: must hold an object with a list 'images'; it does not.")
    return document


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error}). Download it again.") from None


def _read_annotations(document: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[int, str]]:
    labels, names = {}, {}
    try:
        for entry in document.get("annotations") or ():
            labels[str(entry["image_id"])] = entry["category_id"]
        for entry in document.get("categories") or ():
            names[int(entry["id"])] = str(entry["name"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: annotations must give image_id and category_id, categories id and name ({error})."
        ) from None
    return labels, names


def _walk_tree(node: Any, path: Path, above: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...]]]:
    if isinstance(node, dict):
        for name, below in node.items():
            yield from _walk_tree(below, path, (*above, str(name)))
    elif isinstance(node, list):
        for class_id in node:
            yield read_class_id(class_id, f"{path}: a class of category {'/'.join(above)!r}"), above
    else:
        raise DataError(f"{path}: must nest categories down to lists of class ids; got {str(node)[:80]!r}.")


def _read_class_names(path: Path, rows: SourceRows) -> None:
    if not path.is_file():
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = set(reader.fieldnames or ())
            entries = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 CSV ({error}).") from None
    id_column = next((name for name in ("class", "id", "class_id") if name in columns), None)
    if id_column is None or "name" not in columns:
        return
    for entry in entries:
        class_id = parse_whole_number(entry[id_column])
        if class_id is not None:
            rows.class_names[class_id] = entry["name"]
            if entry.get("description"):
                rows.class_descriptions[class_id] = entry["description"]


FORMAT = Format(
    rank=40,
    shows="train.json (iMaterialist, FGVC)",
    detect=lambda source: (source / "train.json").is_file(),
    read=read_fgvc_json,
)
