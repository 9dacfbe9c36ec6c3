"""Kaggle's usual files: train.csv (and val.csv, test.csv or a sample submission) beside an image folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from productrec.data.sources.column_names import FILE_COLUMNS, ID_COLUMNS, LABEL_COLUMNS, TITLE_COLUMNS
from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows, number_labels
from productrec.delimited import SEPARATORS, Delimited, read_delimited, squash_name
from productrec.errors import DataError, describe_offenders

# Stems of a split's file, as `squash_name` gives them, the usual ones first.
_STEMS = {
    "train": ("train", "trainlabels", "trainlabel", "training", "traininglabels", "traindata", "trainset", "labels"),
    "val": ("val", "valid", "validation", "vallabels", "validlabels", "validationlabels", "dev"),
    "test": ("test", "testing", "testids", "testdata"),
}
_SUFFIXES = (".csv", ".tsv")
_SEPARATOR_NAMES = dict(zip(SEPARATORS, ("commas", "semicolons", "tabs"), strict=True))


class _Columns(NamedTuple):
    """Names of the columns of one file; None where it has none of that kind."""

    ids: str
    files: str | None
    labels: str | None
    titles: str | None


def read_csv(source: Path, options: ReadOptions) -> SourceRows:
    """Read splits from CSV files; ids stay the strings they are (``000123`` and ``NA`` too).

    Fields stand between commas, semicolons or tabs. Columns that are not named are known by their usual names, in any
    case; where the first column of the sample submission is one of theirs, it is that of the ids. Labels that are all
    whole numbers are the class ids themselves; other labels are names, numbered in sorted order. Test ids come from
    test.csv, else from the sample submission.

    Args:
        source: folder.
        options: columns that a person names, and the sample submission.

    Raises:
        DataError: columns are missing (all of them are named), or a file cannot be read.
    """
    train = find_split_csv(source, "train")
    if train is None:
        raise DataError(f"{source / 'train.csv'}: must exist in a CSV source; no such file.")
    rows = SourceRows()
    sample = options.sample
    hint = None if sample is None else _read(sample).columns[0]
    labelled: list[tuple[str, str, str, str | None, str | None]] = []
    first: _Columns | None = None
    for split, path in (("train", train), ("val", find_split_csv(source, "val"))):
        if path is None:
            continue
        table = _read(path)
        columns = _choose(path, table, options, hint)
        first = first or columns
        rows.notes.append(_describe(path, table, columns))
        labels = table.get_column(columns.labels) if columns.labels else [""] * len(table.rows)
        fields = (table.get_column(columns.ids), labels, *_read_extras(table, columns))
        labelled += [(split, *entry) for entry in zip(*fields, strict=True)]
    unlabelled = [image_id for _, image_id, label, title, _ in labelled if not label and not (title or "").strip()]
    if unlabelled and any(label for _, _, label, *_ in labelled):
        raise DataError(
            f"{source}: every row of train.csv and val.csv must have a label or a title; "
            f"{describe_offenders(unlabelled)} have neither."
        )
    numbers, rows.numbered = number_labels([label for _, _, label, *_ in labelled if label])
    rows.class_names = {number: name for name, number in numbers.items()}
    for split, image_id, label, title, file in labelled:
        rows.add(image_id, split, numbers[label] if label else None, title=title, path=file)
    assert first is not None
    test = find_split_csv(source, "test") or sample
    if test is not None:
        table = _read(test)
        columns = _choose_unlabelled(test, table, options, hint, first)
        if test != sample:
            rows.notes.append(_describe(test, table, columns))
        for image_id, title, file in zip(table.get_column(columns.ids), *_read_extras(table, columns), strict=True):
            rows.add(image_id, "test", None, title=title, path=file)
    return rows


def find_split_csv(source: Path, split: str) -> Path | None:
    """The CSV of a split, by its usual names in any case; None where there is none."""
    tables: dict[str, Path] = {}
    for path in sorted(source.iterdir()):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            tables.setdefault(squash_name(path.stem), path)
    return next((tables[stem] for stem in _STEMS[split] if stem in tables), None)


def is_labelled(path: Path) -> bool:
    """Whether a CSV's header has a column of ids and one of labels, by their usual names."""
    try:
        names = {squash_name(column) for column in read_delimited(path).columns}
    except DataError:
        return False
    return all(bool(names & {squash_name(name) for name in usual}) for usual in (ID_COLUMNS, LABEL_COLUMNS))


def _read(path: Path) -> Delimited:
    table = read_delimited(path)
    if not table.rows:
        raise DataError(f"{path}: must have a header and at least one row; it has none.")
    return table


def _choose(path: Path, table: Delimited, given: ReadOptions, hint: str | None) -> _Columns:
    """The columns of a file of labelled images: named, or known by their names; all that lack are told together."""
    absent = [
        f"the column {name!r} ({option})"
        for name, option in (
            (given.id_column, "--id-column"),
            (given.label_column, "--label-column"),
            (given.file_column, "--file-column"),
        )
        if name is not None and name not in table.columns
    ]
    ids = given.id_column or _find(table, (*([hint] if hint else ()), *ID_COLUMNS))
    labels = given.label_column or _find(table, LABEL_COLUMNS, but={ids})
    titles = _find(table, TITLE_COLUMNS, but={ids, labels})
    if ids is None:
        absent.append(f"a column of image ids, usually {', '.join(ID_COLUMNS[:4])} (--id-column)")
    if labels is None and titles is None:  # a catalogue of titles has no labels
        absent.append(f"a column of labels, usually {', '.join(LABEL_COLUMNS[:4])} (--label-column)")
    if absent or ids is None:
        raise DataError(
            f"{path}: must have {' and '.join(absent)}; got {', '.join(table.columns)}. Name its columns so, or "
            "tell them with these options."
        )
    return _Columns(ids, given.file_column or _find(table, FILE_COLUMNS, but={ids, labels}), labels, titles)


def _choose_unlabelled(path: Path, table: Delimited, given: ReadOptions, hint: str | None, train: _Columns) -> _Columns:
    """The columns of a file of test images: named, or those of the training images, or known by their names."""
    ids = _find(table, [name for name in (given.id_column, train.ids, hint, *ID_COLUMNS) if name])
    if ids is None:
        raise DataError(
            f"{path}: must have a column of image ids, as {train.ids}; got {', '.join(table.columns)}. "
            "Name it with --id-column."
        )
    files = _find(table, [name for name in (given.file_column, train.files) if name], but={ids})
    return _Columns(ids, files, None, _find(table, TITLE_COLUMNS, but={ids, files}))


def _find(table: Delimited, usual: Sequence[str], *, but: Collection[str | None] = ()) -> str | None:
    """The first column of these names, however they are written; None where there is none."""
    known = {squash_name(column): column for column in reversed(table.columns) if column not in but}
    return next((known[name] for name in map(squash_name, usual) if name in known), None)


def _read_extras(table: Delimited, columns: _Columns) -> tuple[list[str | None], list[str | None]]:
    """Titles and file names by row; None where there is no column or a file's name is empty."""
    empty: list[str | None] = [None] * len(table.rows)
    titles = list(table.get_column(columns.titles)) if columns.titles else []
    files = list(table.get_column(columns.files)) if columns.files else []
    return [*titles] or empty, [file or None for file in files] or empty


def _describe(path: Path, table: Delimited, columns: _Columns) -> str:
    kinds = {"ids": columns.ids, "files": columns.files, "labels": columns.labels, "titles": columns.titles}
    shown = ", ".join(f"{kind} from {column}" for kind, column in kinds.items() if column is not None)
    between = "" if table.separator == "," else f", fields between {_SEPARATOR_NAMES[table.separator]}"
    return f"{path.name}: {shown}{between}"


def _is_csv(source: Path) -> bool:
    table = find_split_csv(source, "train")
    return table is not None and (table.name.lower() == "train.csv" or is_labelled(table))


FORMAT = Format(
    rank=50,
    shows="train.csv (Kaggle)",
    detect=_is_csv,
    read=read_csv,
    guess=lambda source: find_split_csv(source, "train") is not None,  # the reader asks for its columns
)
