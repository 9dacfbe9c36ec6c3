"""Read a source folder, whatever its layout, into the rows of an image table; each layout has a reader of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import pandas as pd

from productrec.data.sources.unpacked import match_split
from productrec.data.table import CLASS_COLUMNS, IMAGE_COLUMNS, SPLITS, build_frame
from productrec.errors import DataError, describe_offenders

# Folders below the root, in the order they are looked into; those named for a split serve that split alone. A val image
# may lie among the training images, which it was held out of.
IMAGE_FOLDERS = (
    "images",
    *(
        f"{split}{ending}"
        for split in ("val", "valid", "validation", "train", "test")
        for ending in ("", "_images", "2017", "2014")
    ),
    ".",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
UPPER_SUFFIXES = tuple(suffix.upper() for suffix in IMAGE_SUFFIXES)
_TRIED_SUFFIXES = ("", *IMAGE_SUFFIXES, *UPPER_SUFFIXES)
SAMPLE_NAME = "sample_submission.csv"
_CARRIED = ("image_id", "label", "split", "url", "title", "path", "box", "group", "role", "weight")
_SPLIT_ENDING = re.compile("_images$|20[0-9]{2}$")
_SAMPLE = re.compile(r"sample[ _-]?sub(mission)?s?\.(csv|tsv)$", re.IGNORECASE)
_WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")


@dataclass
class SourceRows:
    """What a reader found: one entry an image, in the source's order, and what is known of the classes."""

    image_id: list[str] = field(default_factory=list)
    label: list[int | None] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    url: list[str | None] = field(default_factory=list)
    title: list[str | None] = field(default_factory=list)
    path: list[str | None] = field(default_factory=list)
    box: list[str | None] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)
    role: list[str | None] = field(default_factory=list)
    weight: list[float | None] = field(default_factory=list)
    class_names: dict[int, str] = field(default_factory=dict)
    class_paths: dict[int, str] = field(default_factory=dict)
    class_descriptions: dict[int, str] = field(default_factory=dict)
    numbered: bool = False  # whether class ids are numbers that the reader gave to names
    notes: list[str] = field(default_factory=list)  # how the source was understood
    warnings: list[str] = field(default_factory=list)  # what was seen in it and left out

    def add(
        self,
        image_id: str,
        split: str,
        label: int | None,
        *,
        url: str | None = None,
        title: str | None = None,
        path: str | None = None,
        box: str | None = None,
        group: str | None = None,
        role: str | None = None,
        weight: float | None = None,
    ) -> None:
        """Append one image.

        ``box``: the part of its picture; ``group``: its listing; ``role``: query or gallery; ``weight``: from 0 to 1,
        how often it is trained on.
        """
        self.image_id.append(image_id)
        self.split.append(split)
        self.label.append(label)
        self.url.append(url)
        self.title.append(title)
        self.path.append(path)
        self.box.append(box)
        self.group.append(group)
        self.role.append(role)
        self.weight.append(weight)

    def add_test_ids(self, ids: Iterable[str]) -> None:
        """Have a row of the split test for every id, as a sample submission lists them.

        A row whose id is one of them but for a file's suffix (``9.jpg`` for ``9``) takes it; other ids get new rows.
        """
        known = set(self.image_id)
        missing = [image_id for image_id in ids if image_id not in known]
        stems: dict[str, list[int]] = {}
        for place, image_id in enumerate(self.image_id):
            if missing and self.split[place] == "test":
                stems.setdefault(_strip_suffix(image_id), []).append(place)
        for image_id in missing:
            places = stems.get(_strip_suffix(image_id), [])
            if len(places) == 1:
                place = places.pop()
                self.path[place] = self.path[place] or self.image_id[place]
                self.image_id[place] = image_id
            else:
                self.add(image_id, "test", None)

    def build_frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The image rows (paths and states still to be found) and the classes, sorted by id.

        Raises:
            DataError: a text is no Unicode, which no table can hold.
        """
        for texts in (self.image_id, self.path, self.title, self.url, self.class_names.values()):
            _check_unicode(texts)
        images = build_frame(
            IMAGE_COLUMNS,
            {name: getattr(self, name) for name in _CARRIED},
        )
        ids = sorted(
            {label for label in self.label if label is not None} | set(self.class_names) | set(self.class_paths)
        )
        classes = build_frame(
            CLASS_COLUMNS,
            {
                "id": ids,
                "name": [self.class_names.get(class_id, str(class_id)) for class_id in ids],
                "path": [self.class_paths.get(class_id) for class_id in ids],
                "description": [self.class_descriptions.get(class_id) for class_id in ids],
            },
        )
        return images, classes


def _strip_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def find_sample(source: Path, given: str | None = None) -> Path | None:
    """The sample submission among a source's files: ``given``, else the one that is named like one.

    Args:
        source: folder.
        given: its file name in the source, or a path of its own.

    Raises:
        DataError: ``given`` is no file, or several files are named like one.
    """
    if given is not None:
        found = next((path for path in (source / given, Path(given)) if path.is_file()), None)
        if found is None:
            tables = sorted(path.name for path in source.glob("*.csv"))
            raise DataError(
                f"{source / given}: must be the sample submission; no such file. "
                f"The CSV files of the source: {describe_offenders(tables)}. Name one of them with --sample, or none."
            )
        return found
    if (source / SAMPLE_NAME).is_file():
        return source / SAMPLE_NAME
    named = sorted(path for path in source.iterdir() if _SAMPLE.match(path.name) and path.is_file())
    if len(named) > 1:
        names = ", ".join(path.name for path in named)
        raise DataError(f"{source}: must hold one sample submission; got {names}. Name one with --sample.")
    return named[0] if named else None


def _check_unicode(texts: Iterable[str | None]) -> None:
    # File names that are no UTF-8, and JSON's lone surrogates, come as letters that cannot be written.
    wrong = [
        ascii(text)
        for text in texts
        if text is not None and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)
    ]
    if wrong:
        raise DataError(
            f"source: ids, file names and titles must be valid Unicode; {describe_offenders(wrong)} are not. "
            "Rename them."
        )


def parse_whole_number(text: str) -> int | None:
    """``text`` as a class id, or None where it is no whole number that 64 bits hold."""
    if not _WHOLE_NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def number_labels(labels: Sequence[str]) -> tuple[dict[str, int], bool]:
    """The class id of each label, and whether it is a number given here rather than the label itself."""
    names = sorted(set(labels))
    numbers = {name: number for name in names if (number := parse_whole_number(name)) is not None}
    if any(str(numbers.get(name)) != name for name in names):  # "007" is a name: as a number it would be another's
        return {name: number for number, name in enumerate(names)}, True
    return numbers, False


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
        actual = {name.lower(): name for name in _list_folders(root)} | {".": "."}  # Images/ is images/ as well
        there = [actual[folder] for folder in folders if folder in actual]
        self._folders = {split: [folder for folder in there if _serves(folder, split)] for split in SPLITS}
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


def _list_folders(root: Path) -> list[str]:
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
    found = [finder.find(name, split) for name, split in zip(names, images["split"].tolist(), strict=True)]
    if not any(found):
        raise DataError(
            f"{root}: holds none of the {len(images)} images the source lists (looked in {', '.join(IMAGE_FOLDERS)}). "
            "Put the image files there, or name their folder with --images."
        )
    return pd.Series(found, index=images.index, dtype="str")
