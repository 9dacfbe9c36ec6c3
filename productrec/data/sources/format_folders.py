"""Reader for class folders: SOURCE/CLASS/*.jpg, or SOURCE/train/CLASS/*.jpg with val and test beside it."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from productrec.data.sources.formats import IMAGE_SUFFIXES, SourceRows
from productrec.errors import DataError


def read_folders(source: Path) -> SourceRows:
    """Read class folders; a class is the folder an image lies in, nested folders are its categories.

    An image's id is its path relative to its split's folder for test, and to ``source`` otherwise; test images may lie
    flat. Class ids are the positions of the class paths in sorted order.

    Raises:
        DataError: no image lies in a class folder.
    """
    rows = SourceRows()
    splits = [split for split in ("train", "val", "test") if (source / split).is_dir()]
    if "train" not in splits:
        splits = []
    found: list[tuple[str, str, str | None, str]] = []
    for split in splits or ["train"]:
        root = source / split if splits else source
        for path in _list_images(root):
            relative = path.relative_to(root)
            label = relative.parent.as_posix()
            if split == "test":
                found.append((relative.as_posix(), split, None, path.relative_to(source).as_posix()))
            elif label != ".":
                found.append((path.relative_to(source).as_posix(), split, label, path.relative_to(source).as_posix()))
    labels = sorted({label for _, _, label, _ in found if label is not None})
    if not labels:
        raise DataError(
            f"{source}: must hold one folder of images a class; no image ({', '.join(IMAGE_SUFFIXES)}) lies in one."
        )
    numbers = {label: number for number, label in enumerate(labels)}
    leaves = Counter(label.rpartition("/")[2] for label in labels)
    for label, number in numbers.items():
        categories, _, name = label.rpartition("/")
        # Two branches may use one name for a leaf; the whole path tells them apart.
        rows.class_names[number] = name if leaves[name] == 1 else label
        if categories:
            rows.class_paths[number] = categories
    for image_id, split, known_label, relative_path in found:
        rows.add(image_id, split, None if known_label is None else numbers[known_label], path=relative_path)
    return rows


def _list_images(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)
