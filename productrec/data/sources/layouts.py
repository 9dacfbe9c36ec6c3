"""Layouts: which one a source folder has, and the reader of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from productrec.data.sources.formats import lists as format_lists
from productrec.data.sources.formats import table as format_table
from productrec.data.sources.formats.coco import list_coco_files, read_coco
from productrec.data.sources.formats.csv import find_split_csv, is_labelled, read_csv
from productrec.data.sources.formats.fgvc_json import read_fgvc_json
from productrec.data.sources.formats.folders import is_images_only, read_folders
from productrec.data.sources.formats.huggingface import export_dataset, is_saved_dataset
from productrec.data.sources.formats.webdataset import list_shards, unpack_shards
from productrec.data.sources.rows import SourceRows
from productrec.data.sources.unpacked import Unpacked
from productrec.errors import DataError, describe_offenders

# Layouts whose images lie within larger files: they are unpacked to a folder of files and a table, which is then read.
UNPACKERS: dict[str, Callable[[Path, Path], Unpacked]] = {
    "webdataset": unpack_shards,
    "huggingface": export_dataset,
}
LAYOUTS = ("table", "fgvc_json", "coco", "csv", *format_lists.READERS, *UNPACKERS, "folders")
_CHUNK_BYTES = 1 << 20
_NO_CLASSES = (
    " Its folders are named as folders of all images are, not as classes; if they are classes, pass --format folders."
)


def detect_layout(source: Path) -> str:
    """Which of `LAYOUTS` a source folder has, told by its files.

    Raises:
        DataError: no such folder, or none of the layouts.
    """
    if not source.is_dir():
        raise DataError(f"{source}: must be the folder (or the zip or tar) of the competition's files; no such folder.")
    if any((source / name).is_file() for name in format_table.NAMES):
        return "table"
    if is_saved_dataset(source):
        return "huggingface"
    if (source / "train.json").is_file():
        return "coco" if _mentions(source / "train.json", b'"bbox"') else "fgvc_json"
    if list_coco_files(source):
        return "coco"
    table = find_split_csv(source, "train")
    if table is not None and (table.name.lower() == "train.csv" or is_labelled(table)):
        return "csv"
    for layout, names in format_lists.LAYOUTS.items():
        if all((source / name).is_file() for name in names):
            return layout
    has_folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in source.iterdir())
    shards = list_shards(source)
    # A tar beside class folders is somebody's backup, unless it has a shard's number.
    if shards and (not has_folders or any(shard.name.partition(".")[0][-1:].isdigit() for shard in shards)):
        return "webdataset"
    if has_folders and not is_images_only(source):
        return "folders"
    if table is not None:  # its columns will be asked for
        return "csv"
    raise DataError(
        f"{source}: must hold train.json (iMaterialist, FGVC, COCO), train.csv (Kaggle), images.csv (a table of your "
        "own), the lists of Stanford Online Products, In-Shop, CUB or Cars196, tar shards (WebDataset), a saved "
        "dataset of Hugging Face, or one folder a class; "
        f"got {describe_offenders(sorted(entry.name for entry in source.iterdir()))}."
        f"{_NO_CLASSES if has_folders else ''}"
    )


def read_source(
    source: Path,
    layout: str,
    *,
    id_column: str | None = None,
    label_column: str | None = None,
    file_column: str | None = None,
    sample: Path | None = None,
    box_margin: float = 0.1,
) -> SourceRows:
    """The rows of a source of a known layout.

    Args:
        source: folder; of a layout of `UNPACKERS`, the one it was unpacked to.
        layout: one of `LAYOUTS`.
        id_column: of a CSV.
        label_column: of a CSV.
        file_column: of a CSV, where files are not named by their ids.
        sample: the sample submission of a CSV source; None where there is none.
        box_margin: by which share COCO's boxes are widened on every side.

    Raises:
        DataError: the source is not of that layout.
    """
    if layout == "csv":
        return read_csv(source, id_column=id_column, label_column=label_column, file_column=file_column, sample=sample)
    if layout == "coco":
        return read_coco(source, margin=box_margin)
    readers = {
        "table": format_table.read_table,
        "fgvc_json": read_fgvc_json,
        "folders": read_folders,
        **format_lists.READERS,
        **dict.fromkeys(UNPACKERS, format_table.read_table),
    }
    return readers[layout](source)


def _mentions(path: Path, text: bytes) -> bool:
    """Whether a file holds these bytes; it is read in chunks, because such files may be large."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if text in tail + chunk:
                return True
            tail = chunk[-len(text) :]
    return False
