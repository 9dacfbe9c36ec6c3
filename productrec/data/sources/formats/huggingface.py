"""Hugging Face: a folder that ``Dataset.save_to_disk`` wrote, exported to image files and their table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from productrec.artifacts import compute_file_digest
from productrec.data.sources.archive import MOST_FILE_BYTES, Budget, explain_damage
from productrec.data.sources.column_names import LABEL_COLUMNS, TITLE_COLUMNS
from productrec.data.sources.files import IMAGE_SUFFIXES
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
from productrec.errors import DataError, describe_offenders

_DICT, _INFO, _STATE = "dataset_dict.json", "dataset_info.json", "state.json"
_IDS = ("image_id", "id")
_TITLES = (*TITLE_COLUMNS, "caption", "captions")
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)  # as the library allows; a folder's name as well
_BATCH = 64
_FOLDER_FILES = 10_000
_SIGNATURES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


class _Columns(NamedTuple):
    image: str
    label: str | None
    image_id: str | None
    title: str | None
    class_names: list[str] | None


def is_saved_dataset(source: Path) -> bool:
    """Whether a folder is what ``save_to_disk`` writes of a Dataset or a DatasetDict."""
    return (source / _DICT).is_file() or ((source / _INFO).is_file() and (source / _STATE).is_file())


def export_dataset(source: Path, folder: Path) -> Unpacked:
    """Write a saved dataset into ``folder``: image files, and the table that lists them.

    Images are the column of the type Image; classes the column with a usual name, else the one of the type ClassLabel;
    ids are ``image_id`` or ``id``, else split and row (``train-000123``). A row without an image stays in the table.
    Labels of test are not used. A title may be a list of several, as captions often are.

    Args:
        source: folder that ``save_to_disk`` wrote.
        folder: where to; its earlier contents are replaced, unless they come from these very files.

    Raises:
        DataError: the library ``datasets`` is not installed, the folder is damaged, its columns or splits are unclear,
            or an image lies outside of it.
        StorageError: the disk refused.
    """
    parts = _list_parts(source)
    inputs = {
        path.relative_to(source).as_posix(): compute_file_digest(path)
        for path in sorted(source.rglob("*"))
        if path.suffix in (".json", ".arrow") and path.is_file()
    }

    def fill(files: Path) -> list[str]:
        budget = Budget(source, sum((source / name).stat().st_size for name in inputs))
        images: list[UnpackedImage] = []
        for name, part in parts.items():
            images += _export_split(part, name, files / IMAGES, budget, source)
        save_images(files, images, source)
        return []

    return make_unpacked(folder, inputs, {"layout": "huggingface"}, fill)


def _list_parts(source: Path) -> dict[str, Path]:
    """The folder of each split, by its name in the dataset; nothing they name lies outside ``source``."""
    if not (source / _DICT).is_file():
        split = _read_json(source / _STATE).get("_split")
        name = split if isinstance(split, str) and _SPLIT_NAME.fullmatch(split) and match_split(split) else "train"
        parts = {name: source}
    else:
        names = _read_json(source / _DICT).get("splits")
        wrong = [name for name in names if not _is_split(name)] if isinstance(names, list) else [names]
        if wrong or not names:
            raise DataError(
                f"{source / _DICT}: splits must be train, validation or test; got {describe_offenders(wrong)}. "
                "Rename them, or save the ones that are wanted."
            )
        parts = {name: source / name for name in names}
    for part in parts.values():
        files = _read_json(part / _STATE).get("_data_files")
        names = [entry.get("filename") if isinstance(entry, dict) else entry for entry in files or []]
        wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name or "\\" in name]
        if not isinstance(files, list) or wrong:
            raise DataError(
                f"{part / _STATE}: data files must lie beside it; got {describe_offenders(wrong)}. Save the set again."
            )
    return parts


def _is_split(name: object) -> bool:
    return isinstance(name, str) and bool(_SPLIT_NAME.fullmatch(name)) and match_split(name) is not None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Save the dataset again with save_to_disk.") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: must be an object; got {ascii(document)[:80]}. Save the dataset again.")
    return document


def _export_split(part: Path, name: str, root: Path, budget: Budget, source: Path) -> list[UnpackedImage]:
    split = match_split(name) or "train"
    columns, rows = _open_split(part)
    images = []
    for number, row in enumerate(rows):
        where = f"{part}, row {number}"
        data = _get_bytes(row[columns.image], where, source)
        # Named by number: what the dataset calls its files leads nowhere.
        path = f"{name}/{number // _FOLDER_FILES:04d}/{number:06d}"
        path += ".without.image" if data is None else _guess_suffix(data, row[columns.image]["path"])
        if data is not None:
            budget.spend(len(data))
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        image_id = f"{name}-{number:06d}" if columns.image_id is None else _read_id(row[columns.image_id], where)
        label = None if columns.label is None or split == "test" else row[columns.label]
        if columns.class_names is not None and label is not None:
            label = _get_class_name(columns.class_names, label, where)
        title = None if columns.title is None else row[columns.title]
        titles = title if isinstance(title, list) else [title]
        title = join_titles(str(one) for one in titles if one is not None)
        images.append(UnpackedImage(image_id, split, format_label(label, where), path, title))
    return images


def _open_split(part: Path) -> tuple[_Columns, Iterator[dict[str, Any]]]:
    """The columns that are wanted, and the rows, images as they were stored."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{part}: a dataset of Hugging Face must be read with the library datasets; it cannot be imported "
            f"({error}). Run pip install 'productrec[huggingface]'."
        ) from None
    with explain_damage(part):
        opened = datasets.Dataset.load_from_disk(str(part), keep_in_memory=False)
        opened.reset_format()
    columns = _choose_columns(
        part,
        list(opened.features),
        [name for name, kind in opened.features.items() if isinstance(kind, datasets.Image)],
        {name: list(kind.names) for name, kind in opened.features.items() if isinstance(kind, datasets.ClassLabel)},
    )
    wanted = [name for name in (columns.image, columns.label, columns.image_id, columns.title) if name is not None]
    with explain_damage(part):
        chosen = opened.select_columns(wanted).cast_column(columns.image, datasets.Image(decode=False))
    return columns, _iterate(chosen, part)


def _iterate(opened: Any, part: Path) -> Iterator[dict[str, Any]]:
    batches = opened.iter(batch_size=_BATCH)
    while True:
        with explain_damage(part):
            batch = next(batches, None)
        if batch is None:
            return
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _choose_columns(part: Path, names: list[str], images: list[str], classes: dict[str, list[str]]) -> _Columns:
    image = "image" if "image" in images else images[0] if len(images) == 1 else None
    if image is None:
        raise DataError(
            f"{part}: one column must be of the type Image, or of several one named image; "
            f"got {describe_offenders(images or names)}. Cast or rename it and save the dataset again."
        )
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if label is None and len(classes) > 1:
        raise DataError(
            f"{part}: of several columns of the type ClassLabel one must be named label; "
            f"got {describe_offenders(classes)}. Rename the one that is meant and save the dataset again."
        )
    label = label or next(iter(classes), None)
    image_id = next((name for name in _IDS if name in names), None)
    title = next((name for name in _TITLES if name in names and name != label), None)
    return _Columns(image, label, image_id, title, classes.get(label) if label else None)


def _get_bytes(image: Any, where: str, source: Path) -> bytes | None:
    """An image's file, from its row or from beside it; None where it has none."""
    if image is None or (image["bytes"] is None and image["path"] is None):
        return None
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    path = (source / image["path"]).resolve() if "\0" not in image["path"] else source
    if not path.is_relative_to(source.resolve()) or not path.is_file() or path.stat().st_size > MOST_FILE_BYTES:
        raise DataError(
            f"{where}: an image must be stored in the dataset, or lie in its folder; got {ascii(image['path'])[:80]} "
            "alone. Save the dataset again with its images embedded."
        )
    with explain_damage(path):
        return path.read_bytes()


def _guess_suffix(data: bytes, name: str | None) -> str:
    known = next((suffix for start, suffix in _SIGNATURES.items() if data.startswith(start)), None)
    given = Path(name or "").suffix.lower()
    return known or (given if given in IMAGE_SUFFIXES else ".jpg")


def _get_class_name(names: list[str], number: int, where: str) -> str | None:
    if number == -1:  # the library's own sign for none
        return None
    if not 0 <= number < len(names):
        raise DataError(f"{where}: a label must be one of {len(names)} classes; got {number}. Mend the dataset.")
    return names[number]


def _read_id(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: an id must be a text or a whole number; got {ascii(value)[:80]}. Mend the dataset.")
    return str(value)


FORMAT = Format(
    rank=20,
    shows="a dataset that Hugging Face's save_to_disk wrote",
    detect=is_saved_dataset,
    unpack=export_dataset,
    read=read_table,
)
