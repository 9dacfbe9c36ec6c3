"""Unpacked sources: a folder beside the image table, made anew only where its source changed, and what lies in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from productrec.artifacts import is_fresh, write_artifact
from productrec.errors import DataError

KIND = "unpacked archive"
IMAGES = "images"  # the folder in which an image's path is looked for first, whatever its split
TABLE = "images.parquet"
_SPLIT = re.compile(r"(?i:(train(?:ing)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?))(?![a-z])")


class Unpacked(NamedTuple):
    """``folder``: what the source held; ``skipped``: entries that were left out."""

    folder: Path
    skipped: list[str]


class UnpackedImage(NamedTuple):
    """A row of the table beside unpacked images; ``path`` is relative to their folder, and no file's where it has none.

    ``label`` is a class's name or its number as a text; ``title`` may be several, see `data.titles`.
    """

    image_id: str
    split: str
    label: str | None
    path: str
    title: str | None


def make_unpacked(
    folder: Path, inputs: Mapping[str, str], settings: Mapping[str, str], fill: Callable[[Path], list[str]]
) -> Unpacked:
    """Have ``fill`` write into ``folder``'s ``files``, unless they were made from these very inputs already.

    Args:
        folder: an artefact; its earlier contents are replaced when all is written.
        inputs: digests of what is unpacked.
        settings: how, where one source can be unpacked in several ways.
        fill: writes into the folder it is given, and returns the entries it left out.

    Raises:
        StorageError: the disk refused.
    """
    skipped: list[str] = []
    if not is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        notes: dict[str, object] = {}
        with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
            (temporary / "files").mkdir()
            skipped = fill(temporary / "files")
            notes["skipped"] = skipped
    return Unpacked(folder / "files", skipped)


def save_images(folder: Path, images: list[UnpackedImage], source: Path) -> None:
    """Write the table of unpacked images, for the format `table` to read.

    Raises:
        DataError: a text is no valid Unicode.
    """
    try:
        pd.DataFrame(images, columns=list(UnpackedImage._fields), dtype=object).to_parquet(folder / TABLE, index=False)
    except UnicodeEncodeError as error:
        wrong = ascii(error.object)[:80]
        raise DataError(
            f"{source}: ids, labels and titles must be valid Unicode; got {wrong}. Rename it in the source."
        ) from None


def match_split(name: str, *, whole: bool = False) -> str | None:
    """The split that a name starts with (``validation-0001`` is val), or, where ``whole``, that it is; or None."""
    match = _SPLIT.fullmatch(name) if whole else _SPLIT.match(name)
    return None if match is None else ("train", "val", "test")[(match.lastindex or 1) - 1]


def format_label(value: object, where: str) -> str | None:
    """A class's name or number as a text; None where there is none.

    Raises:
        DataError: it is neither a text nor a whole number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f"{where}: a label must be a class name or a whole number; got {ascii(value)[:80]}. Mend the source."
        )
    return str(value).strip() or None
