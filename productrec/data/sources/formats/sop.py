"""Stanford Online Products (Song et al., CVPR 2016): two lists, of products to train on and of others to test on."""

from __future__ import annotations

from pathlib import Path

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.list_lines import has_files, read_lines
from productrec.data.sources.rows import SourceRows, read_class_id

TRAIN, TEST = "Ebay_train.txt", "Ebay_test.txt"


def read_sop(source: Path, options: ReadOptions) -> SourceRows:
    """Read both lists: 11,318 classes to train on, 11,316 others to test on.

    Raises:
        DataError: a file is not of this form.
    """
    rows = SourceRows()
    for name, split in ((TRAIN, "train"), (TEST, "test")):
        path = source / name
        for line, (_image, class_id, _category, image_path) in read_lines(path, columns=4, skip=1):
            label = read_class_id(class_id, f"{path}, line {line}: a class")
            rows.class_paths[label] = image_path.partition("/")[0].removesuffix("_final")
            rows.add(image_path, split, label, path=image_path)
    return rows


FORMAT = Format(
    rank=60,
    shows=f"{TRAIN} and {TEST} (Stanford Online Products)",
    detect=lambda source: has_files(source, TRAIN, TEST),
    read=read_sop,
)
