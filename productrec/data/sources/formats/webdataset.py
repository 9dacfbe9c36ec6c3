"""WebDataset: a folder of tar shards whose samples are entries of one name, unpacked to image files and their table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from productrec.artifacts import compute_file_digest
from productrec.data.sources.archive import SUFFIXES, unpack_into
from productrec.data.sources.files import list_folders
from productrec.data.sources.format import Format
from productrec.data.sources.formats.table import read_table
from productrec.data.sources.unpacked import (
    IMAGES,
    Unpacked,
    UnpackedImage,
    format_label,
    make_unpacked,
    match_split,
    save_images,
)
from productrec.data.titles import join_titles
from productrec.errors import DataError

_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".zip")
# Of several images in one sample the first of these is taken; the others are masks, or the same at another size.
_IMAGES = ("jpg", "jpeg", "png", "webp")
_LABELS = ("label", "class", "class_name", "category")
_TITLES = ("title", "caption")
_MOST_NOTE_BYTES = 16 << 20
# As WebDataset splits names: the key ends at the first dot after the last slash, what follows is the field.
_ENTRY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


def list_shards(source: Path) -> list[Path]:
    """The tars of a folder, in the order of their names."""
    return sorted(
        path
        for path in source.iterdir()
        if path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )


def unpack_shards(source: Path, folder: Path) -> Unpacked:
    """Unpack shards into ``folder``: image files, and the table that lists them.

    A sample's id is its key; its split is the one its shard's name starts with, else train. The class is that of
    ``KEY.cls``, else of ``KEY.json``; the title that of ``KEY.json``, else ``KEY.txt``. A sample without an image keeps
    its row. Labels of test are not used.

    Args:
        source: folder with ``train-000000.tar`` and so on; compressed tars are shards too.
        folder: where to; its earlier contents are replaced, unless they come from these very shards.

    Raises:
        DataError: no shards or no samples, a damaged shard, or a label or title that cannot be read.
        StorageError: the disk refused.
    """
    shards = list_shards(source)
    if not shards:
        raise DataError(f"{source}: must hold tar shards (train-000000.tar); got none. Name the folder of the shards.")

    def fill(files: Path) -> list[str]:
        images: list[UnpackedImage] = []
        skipped: list[str] = []
        for shard in shards:
            # Below its whole name: train-0.tar and train-0.tar.gz are two shards.
            skipped += [f"{shard.name}/{name}" for name in unpack_into(shard, files / IMAGES / shard.name)]
            images += _read_samples(shard, files / IMAGES / shard.name)
        if not images:
            raise DataError(
                f"{source}: shards must hold samples (KEY.jpg with KEY.cls or KEY.json); got none in {len(shards)}. "
                "If it is an archive of a competition's files, name the archive itself."
            )
        save_images(files, images, source)
        return skipped

    inputs = {shard.name: compute_file_digest(shard) for shard in shards}
    return make_unpacked(folder, inputs, {"layout": "webdataset"}, fill)


def _read_samples(shard: Path, folder: Path) -> list[UnpackedImage]:
    """The samples of an unpacked shard, by key; every file but their images is removed."""
    samples: dict[str, dict[str, Path]] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            match = _ENTRY.fullmatch(path.relative_to(folder).as_posix())
            if match is None:
                path.unlink()
            elif samples.setdefault(match[1], {}).setdefault(match[2].lower(), path) != path:
                path.unlink()  # a.JPG beside a.jpg
    split = match_split(shard.name) or "train"
    images = []
    for key, fields in samples.items():
        image = next((fields[suffix] for suffix in _IMAGES if suffix in fields), None)
        label, title = _read_notes(fields, f"{shard}, sample {key}")
        for path in fields.values():
            if path != image:
                path.unlink()
        # Files' keys hold no dot, so that nothing can have the name of a sample without one.
        path = image.relative_to(folder) if image is not None else Path(f"{key}.without.image")
        images.append(
            UnpackedImage(key, split, None if split == "test" else label, (shard.name / path).as_posix(), title)
        )
    return images


def _read_notes(fields: dict[str, Path], where: str) -> tuple[str | None, str | None]:
    """Label and title."""
    notes: Any = {}
    if "json" in fields:
        try:
            notes = json.loads(_read_text(fields["json"], where))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: its json cannot be read ({error}). Mend the shard.") from None
        if not isinstance(notes, dict):
            raise DataError(f"{where}: its json must be an object; got {ascii(notes)[:80]}. Mend the shard.")
    label = _read_text(fields["cls"], where) if "cls" in fields else _choose(notes, _LABELS)
    title = _choose(notes, _TITLES)
    if title is None and "txt" in fields:
        title = _read_text(fields["txt"], where)
    return format_label(label, where), None if title is None else join_titles([str(title)])


def _choose(notes: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((notes[name] for name in names if notes.get(name) is not None), None)


def _read_text(path: Path, where: str) -> str:
    if path.stat().st_size > _MOST_NOTE_BYTES:
        raise DataError(f"{where}: a label or title must have at most {_MOST_NOTE_BYTES} bytes; {path.name} has more.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: {path.name} must be text in UTF-8; it is not. Mend the shard.") from None


def _is_shards(source: Path) -> bool:
    shards = list_shards(source)
    # A tar beside class folders is somebody's backup, unless it has a shard's number.
    is_numbered = any(shard.name.partition(".")[0][-1:].isdigit() for shard in shards)
    return bool(shards) and (is_numbered or not list_folders(source))


FORMAT = Format(rank=70, shows="tar shards (WebDataset)", detect=_is_shards, unpack=unpack_shards, read=read_table)
