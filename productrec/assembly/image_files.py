"""The image files of a source, as the settings say: fetched, looked at or packed, and what they are known by."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from productrec.artifacts import compute_digest
from productrec.console import show_progress
from productrec.data.download.fetching import download_images
from productrec.data.download.terms import Request, get_file_name
from productrec.data.images import get_boxes
from productrec.data.inspection import ImageState, inspect_images
from productrec.data.packed import pack_images
from productrec.errors import DataError
from productrec.recipe.data import DataSettings
from productrec.runtime import count_cores


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


def fingerprint_files(images: pd.DataFrame, root: Path) -> str:
    """Digest of the image files' names, sizes and times: a million files are told apart without reading them."""
    entries = []
    for path in images["path"].tolist():
        if isinstance(path, str):
            state = os.lstat(os.path.join(root, path))
            entries.append((path, state.st_size, state.st_mtime_ns))
    return compute_digest(entries)
