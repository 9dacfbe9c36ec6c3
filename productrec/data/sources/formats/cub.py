"""CUB-200-2011 (Wah et al. 2011), as retrieval papers split it: by class."""

from __future__ import annotations

from pathlib import Path

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.list_lines import has_files, read_lines
from productrec.data.sources.rows import SourceRows, read_class_id
from productrec.errors import DataError

IMAGES, LABELS, CLASSES = "images.txt", "image_class_labels.txt", "classes.txt"
TRAIN_CLASSES = 100


def read_cub(source: Path, options: ReadOptions) -> SourceRows:
    """Read images, their classes and these' names: the first 100 classes to train on, the others are test images.

    Raises:
        DataError: a file is not of this form.
    """
    rows = SourceRows()
    listed, labelled = source / CLASSES, source / LABELS
    labels = {image: class_id for _, (image, class_id) in read_lines(labelled, columns=2, skip=0)}
    for line, (class_id, name) in read_lines(listed, columns=2, skip=0):
        label = read_class_id(class_id, f"{listed}, line {line}: a class")
        rows.class_names[label] = name.partition(".")[2] or name
    for _, (image, name) in read_lines(source / IMAGES, columns=2, skip=0):
        if image not in labels:
            raise DataError(f"{labelled}: must give every image a class; image {image} has none.")
        label = read_class_id(labels[image], f"{labelled}: the class of image {image}")
        split = "train" if label <= TRAIN_CLASSES else "test"
        rows.add(name, split, label, path=f"images/{name}" if (source / "images").is_dir() else name)
    return rows


FORMAT = Format(
    rank=64,
    shows=f"{IMAGES} beside {LABELS} and {CLASSES} (CUB-200-2011)",
    detect=lambda source: has_files(source, IMAGES, LABELS, CLASSES),
    read=read_cub,
)
