"""How ingest comes to its rows and files: unpack, read, fetch, look at or pack them, as the settings say."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from productrec.artifacts import compute_digest
from productrec.console import show_progress, warn
from productrec.data.download.fetching import download_images
from productrec.data.download.terms import Request, get_file_name
from productrec.data.images import get_boxes
from productrec.data.inspection import ImageState, inspect_images
from productrec.data.packed import pack_images
from productrec.data.sources.archive import describe_skipped, is_archive, unpack_archive
from productrec.data.sources.formats.coco import ROBOFLOW_NAME
from productrec.data.sources.layouts import UNPACKERS, detect_layout, read_source
from productrec.data.sources.rows import SourceRows
from productrec.data.sources.unpacked import Unpacked
from productrec.errors import DataError
from productrec.recipe.data import DataSettings
from productrec.runtime import count_cores

_LARGEST_LIST_BYTES = 4 << 30
_LIST_SUFFIXES = (".json", ".csv", ".tsv", ".txt", ".parquet", ".mat")


def inspect_files(images: pd.DataFrame, root: Path, data: DataSettings) -> list[ImageState]:
    """Look at every file, in the table's order."""
    with show_progress("reading images", len(images)) as bar:
        return inspect_images(
            join_paths(root, images),
            workers=count_cores(),
            verify=data.verify,
            inside=root.resolve(),
            on_progress=bar.advance,
        )


def pack_files(
    images: pd.DataFrame, root: Path, folder: Path, inputs: dict[str, str], data: DataSettings
) -> list[ImageState]:
    """Verify and pack in one pass."""
    with show_progress("packing images", len(images)) as bar:
        packed = pack_images(
            join_paths(root, images),
            folder,
            ids=images["image_id"].tolist(),
            max_side_px=data.max_side_px,
            workers=count_cores(),
            inputs={"files": inputs["files"]},
            boxes=get_boxes(images),
            inside=root.resolve(),
            on_progress=bar.advance,
        )
    return packed.states


def join_paths(root: Path, images: pd.DataFrame) -> list[str | None]:
    """Paths of the files, None where there is none."""
    folder = str(root)
    return [os.path.join(folder, path) if isinstance(path, str) else None for path in images["path"].tolist()]


def fetch_files(images: pd.DataFrame, folder: Path, data: DataSettings) -> tuple[pd.Series, dict[str, str]]:
    """Fetch what has a URL; paths relative to the folder, and why each of the others has none, by id."""
    requests = [
        Request(str(image_id), url if isinstance(url, str) else None)
        for image_id, url in zip(images["image_id"], images["url"], strict=True)
    ]
    with show_progress("fetching images", len(requests)) as bar:
        outcomes = download_images(
            requests, folder, retry_all=True, allow_private=data.allow_private, on_progress=bar.advance
        )
    paths = [get_file_name(outcome.image_id) if outcome.ok else None for outcome in outcomes]
    reasons = {outcome.image_id: outcome.reason for outcome in outcomes if outcome.reason is not None}
    if not any(paths):
        raise DataError(
            f"{folder}: not one of {len(requests)} images could be fetched; the first: "
            f"{next(iter(reasons.values()))}. The ledger there has a line for each."
        )
    return pd.Series(paths, index=images.index, dtype="str"), reasons


def unpack_source(source: Path, out: Path, data: DataSettings) -> tuple[Path, str]:
    """The folder to read, and its layout: what lies in an archive, in shards or in a dataset is unpacked first."""
    place = out.parent / f"{out.name}.unpacked"
    if is_archive(source):
        source = _tell_skipped(source, unpack_archive(source, place))
        place = out.parent / f"{out.name}.unpacked.images"  # an archive of shards
    layout = detect_layout(source) if data.format == "auto" else data.format
    if layout in UNPACKERS:
        source = _tell_skipped(source, UNPACKERS[layout](source, place))
    return source, layout


def _tell_skipped(source: Path, unpacked: Unpacked) -> Path:
    skipped = describe_skipped(unpacked.skipped)
    if skipped:
        warn(f"{source}: {skipped}")
    return unpacked.folder


def list_source_files(source: Path) -> list[Path]:
    """The files of a source that say what its images are."""
    folders = [source, source / "annotations"]
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(
        path
        for path in (*files, *source.glob(f"*/{ROBOFLOW_NAME}"))
        if path.suffix.lower() in _LIST_SUFFIXES and path.is_file() and path.stat().st_size <= _LARGEST_LIST_BYTES
    )


def read_rows(source: Path, layout: str, data: DataSettings, sample: Path | None) -> SourceRows:
    """The source's rows by its layout's reader."""
    return read_source(
        source,
        layout,
        id_column=data.id_column,
        label_column=data.label_column,
        file_column=data.file_column,
        sample=sample,
        box_margin=data.box_margin,
    )


def fingerprint_files(images: pd.DataFrame, root: Path) -> str:
    """Digest of the image files' names, sizes and times: a million files are told apart without reading them."""
    entries = []
    for path in images["path"].tolist():
        if isinstance(path, str):
            state = os.lstat(os.path.join(root, path))
            entries.append((path, state.st_size, state.st_mtime_ns))
    return compute_digest(entries)
