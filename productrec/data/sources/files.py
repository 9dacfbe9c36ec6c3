"""The image files of a source: the folders they lie in, and which file belongs to an id."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

import pandas as pd

from productrec.data.sources.unpacked import match_split
from productrec.data.table import DISTRACTORS, SPLITS
from productrec.errors import DataError

# Folders below the root, in the order they are looked into; those named for a split serve that split alone. A val image
# may lie among the training images, which it was held out of.
IMAGE_FOLDERS = (
    "images",
    *(
        f"{split}{ending}"
        for split in ("val", "valid", "validation", "train", "test")
        for ending in ("", "_images", "2017", "2014")
    ),
    *("flickr30k-images", "flickr30k_images", "flicker8k_dataset"),
    ".",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
UPPER_SUFFIXES = tuple(suffix.upper() for suffix in IMAGE_SUFFIXES)
_TRIED_SUFFIXES = ("", *IMAGE_SUFFIXES, *UPPER_SUFFIXES)
_SPLIT_ENDING = re.compile("_images$|20[0-9]{2}$")


def list_folders(root: Path) -> list[Path]:
    """The folders right in ``root``, sorted; those whose names begin with a dot are none of the source's."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def strip_image_suffix(name: str) -> str:
    """``name`` without the suffix of an image file, where it has one."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def find_image_root(source: Path, given: Path | None) -> Path:
    """The folder image paths are relative to: ``given``, else ``source`` itself.

    Raises:
        DataError: ``given`` is no folder.
    """
    if given is not None and not given.is_dir():
        raise DataError(f"{given}: must be the folder of the images; no such folder.")
    return given or source


def _serves(folder: str, split: str) -> bool:
    owner = match_split(_SPLIT_ENDING.sub("", folder.lower()), whole=True)
    return owner is None or owner == split or (owner, split) == ("train", "val")


class FileFinder:
    """Finds an image's file by its id or name, listing each folder once (a million ``stat`` calls would be slow)."""

    def __init__(self, root: Path, folders: Iterable[str] = IMAGE_FOLDERS) -> None:
        actual = {name.lower(): name for name in _list_names(root)} | {".": "."}  # Images/ is images/ as well
        present = [actual[folder] for folder in folders if folder in actual]
        self._folders = {split: [folder for folder in present if _serves(folder, split)] for split in SPLITS}
        self._folders[DISTRACTORS] = self._folders["val"]  # they were of train or val, whose folders these are
        self._root = root
        self._listed: dict[str, set[str]] = {}

    def find(self, name: str, split: str) -> str | None:
        """Path of ``name`` relative to the root (with an image suffix added where it has none), or None.

        A name that would lead outside the root is not looked for.
        """
        if name.startswith(("/", "\\")) or "\0" in name or (".." in name and ".." in PureWindowsPath(name).parts):
            return None  # PureWindowsPath takes both / and \ for separators
        above, last = os.path.split(name)
        for folder in self._folders[split]:
            inner = os.path.normpath(os.path.join(folder, above)) if above else folder
            files = self._list(inner)
            for suffix in _TRIED_SUFFIXES:
                if last + suffix in files:
                    return last + suffix if inner == "." else f"{inner.replace(os.sep, '/')}/{last}{suffix}"
        return None

    def _list(self, folder: str) -> set[str]:
        if folder not in self._listed:
            try:
                with os.scandir(self._root / folder) as entries:
                    # A link is listed, wherever it leads: asking a looped one whether it is a folder is an error.
                    self._listed[folder] = {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
            except OSError:
                self._listed[folder] = set()
        return self._listed[folder]


def _list_names(root: Path) -> list[str]:
    """Names of the folders in ``root``; one in lower case after others that differ in case alone."""
    try:
        names = [entry.name for entry in root.iterdir() if entry.is_dir()]
    except OSError:
        return []
    return sorted(names, key=lambda name: (name.islower(), name))


def find_paths(images: pd.DataFrame, root: Path) -> pd.Series:
    """Path of each row relative to ``root``, empty where there is no file.

    Raises:
        DataError: not one image was found.
    """
    finder = FileFinder(root)
    names = [
        known if isinstance(known, str) else image_id
        for known, image_id in zip(images["path"].tolist(), images["image_id"].tolist(), strict=True)
    ]
    paths = [finder.find(name, split) for name, split in zip(names, images["split"].tolist(), strict=True)]
    if not any(paths):
        raise DataError(
            f"{root}: holds none of the {len(images)} images the source lists (looked in {', '.join(IMAGE_FOLDERS)}). "
            "Put the image files there, or name their folder with --images."
        )
    return pd.Series(paths, index=images.index, dtype="str")
