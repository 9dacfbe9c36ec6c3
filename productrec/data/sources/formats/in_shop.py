"""In-Shop Clothes Retrieval (Liu et al., CVPR 2016): one list of images to train on, queries and gallery."""

from __future__ import annotations

from pathlib import Path

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.list_lines import has_files, read_lines
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError

LIST = "list_eval_partition.txt"


def read_in_shop(source: Path, options: ReadOptions) -> SourceRows:
    """Read the list: items to train on; other items, as queries and gallery, are test images.

    Raises:
        DataError: the file is not of this form.
    """
    rows = SourceRows(numbered=True)
    path = source / LIST
    numbers: dict[str, int] = {}
    for line, (name, item, status) in read_lines(path, columns=3, skip=2):
        if status not in ("train", "query", "gallery"):
            raise DataError(f"{path}, line {line}: the status must be train, query or gallery; got {status!r}.")
        label = numbers.setdefault(item, len(numbers))
        rows.class_names[label] = item
        category = "/".join(name.split("/")[1:-2])
        if category:
            rows.class_paths[label] = category
        role = None if status == "train" else status
        rows.add(name, "train" if status == "train" else "test", label, path=name, role=role)
    return rows


FORMAT = Format(
    rank=62,
    shows=f"{LIST} (In-Shop Clothes Retrieval)",
    detect=lambda source: has_files(source, LIST),
    read=read_in_shop,
)
