"""Readers for the list files of the retrieval benchmarks, with their class-disjoint or query and gallery splits.

Classes that are tested on are never trained on. Their images stand in the split val, with their labels, because
Recall@K is measured among them; where a benchmark tells queries from gallery, the column ``role`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError

# The files that give a layout away, in the order they are looked for.
LAYOUTS = {
    "sop": ("Ebay_train.txt", "Ebay_test.txt"),
    "in_shop": ("list_eval_partition.txt",),
    "cub": ("images.txt", "image_class_labels.txt", "classes.txt"),
    "cars": ("cars_annos.mat",),
}
_CUB_TRAIN_CLASSES, _CARS_TRAIN_CLASSES = 100, 98


def read_sop(source: Path) -> SourceRows:
    """Stanford Online Products (Song et al., CVPR 2016): 11,318 classes to train on, 11,316 others to test on.

    Raises:
        DataError: a file is not of this form.
    """
    rows = SourceRows()
    for name, split in (("Ebay_train.txt", "train"), ("Ebay_test.txt", "val")):
        path = source / name
        for number, fields in _read_lines(path, columns=4, skip=1):
            label = _read_number(fields[1], path, number)
            rows.class_paths[label] = fields[3].partition("/")[0].removesuffix("_final")
            rows.add(fields[3], split, label, path=fields[3])
    return rows


def read_in_shop(source: Path) -> SourceRows:
    """In-Shop Clothes Retrieval (Liu et al., CVPR 2016): train, and other items as queries and gallery.

    Raises:
        DataError: the file is not of this form.
    """
    rows = SourceRows(numbered=True)
    path = source / "list_eval_partition.txt"
    numbers: dict[str, int] = {}
    for number, (name, item, status) in _read_lines(path, columns=3, skip=2):
        if status not in ("train", "query", "gallery"):
            raise DataError(f"{path}, line {number}: the status must be train, query or gallery; got {status!r}.")
        label = numbers.setdefault(item, len(numbers))
        rows.class_names[label] = item
        place = "/".join(name.split("/")[1:-2])
        if place:
            rows.class_paths[label] = place
        role = None if status == "train" else status
        rows.add(name, "train" if status == "train" else "val", label, path=name, role=role)
    return rows


def read_cub(source: Path) -> SourceRows:
    """CUB-200-2011 (Wah et al. 2011) as retrieval papers split it: the first 100 classes to train on.

    Raises:
        DataError: a file is not of this form.
    """
    rows = SourceRows()
    listed, labelled = source / "classes.txt", source / "image_class_labels.txt"
    labels = {image: label for _, (image, label) in _pairs(labelled)}
    for line, (number, name) in _pairs(listed):
        rows.class_names[_read_number(number, listed, line)] = name.partition(".")[2] or name
    for line, (image, name) in _pairs(source / "images.txt"):
        if image not in labels:
            raise DataError(f"{labelled}: must give every image a class; image {image} has none.")
        label = _read_number(labels[image], labelled, line)
        split = "train" if label <= _CUB_TRAIN_CLASSES else "val"
        rows.add(name, split, label, path=f"images/{name}" if (source / "images").is_dir() else name)
    return rows


def read_cars(source: Path) -> SourceRows:
    """Cars196 (Krause et al. 2013) as retrieval papers split it: the first 98 classes to train on.

    Raises:
        DataError: the file is not of this form.
    """
    from scipy.io import loadmat

    path = source / "cars_annos.mat"
    try:
        document = loadmat(path, squeeze_me=True)
        entries = [(str(entry["relative_im_path"]), int(entry["class"])) for entry in document["annotations"]]
        names = [str(name) for name in document["class_names"]]
    except Exception as error:  # SciPy's parser raises whatever it stumbles over
        raise DataError(f"{path}: must hold 'annotations' and 'class_names' of Cars196 ({error}).") from None
    rows = SourceRows()
    rows.class_names = dict(enumerate(names, start=1))
    for name, label in entries:
        rows.add(name, "train" if label <= _CARS_TRAIN_CLASSES else "val", label, path=name)
    return rows


READERS = {"sop": read_sop, "in_shop": read_in_shop, "cub": read_cub, "cars": read_cars}


def _pairs(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, fields in _read_lines(path, columns=2, skip=0):
        yield number, (fields[0], fields[1])


def _read_lines(path: Path, *, columns: int, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1, and the fields of each line after the first ``skip``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    for number, line in enumerate(lines[skip:], start=skip + 1):
        fields = line.split(maxsplit=columns - 1)
        if fields and len(fields) != columns:
            raise DataError(f"{path}, line {number}: must have {columns} columns; got {line[:80]!r}.")
        if fields:
            yield number, [field.strip() for field in fields]


def _read_number(text: str, path: Path, line: int) -> int:
    if not text.isascii() or not text.isdigit():
        raise DataError(f"{path}, line {line}: a class must be a whole number; got {text[:80]!r}.")
    return int(text)
