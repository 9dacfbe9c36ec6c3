"""Cars196 (Krause et al. 2013), as retrieval papers split it: by class."""

from __future__ import annotations

from pathlib import Path

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.list_lines import has_files
from productrec.data.sources.rows import SourceRows
from productrec.errors import DataError

ANNOTATIONS = "cars_annos.mat"
TRAIN_CLASSES = 98


def read_cars(source: Path, options: ReadOptions) -> SourceRows:
    """Read the annotations: the first 98 classes to train on, the others are test images.

    Raises:
        DataError: the file is not of this form.
    """
    from scipy.io import loadmat

    path = source / ANNOTATIONS
    try:
        document = loadmat(path, squeeze_me=True)
        entries = [(str(entry["relative_im_path"]), int(entry["class"])) for entry in document["annotations"]]
        names = [str(name) for name in document["class_names"]]
    except Exception as error:  # SciPy's parser raises whatever it stumbles over
        raise DataError(f"{path}: must hold 'annotations' and 'class_names' of Cars196 ({error}).") from None
    rows = SourceRows()
    rows.class_names = dict(enumerate(names, start=1))
    for name, label in entries:
        rows.add(name, "train" if label <= TRAIN_CLASSES else "test", label, path=name)
    return rows


FORMAT = Format(
    rank=66,
    shows=f"{ANNOTATIONS} (Cars196)",
    detect=lambda source: has_files(source, ANNOTATIONS),
    read=read_cars,
)
