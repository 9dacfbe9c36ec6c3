"""Reader for Kaggle's usual layout: train.csv (and val.csv, test.csv or a sample submission) beside an image folder."""

import csv
from pathlib import Path

from productrec.data.sources.formats import SAMPLE_NAME, SourceRows, parse_whole_number
from productrec.errors import DataError, describe_offenders

ID_COLUMNS = ("image_id", "id", "image", "image_name", "file_name", "filename", "file", "path")
LABEL_COLUMNS = ("label", "class", "class_id", "label_group", "category_id", "category", "target", "product_id")
TITLE_COLUMNS = ("title", "name", "product_title")


def read_csv(source: Path, *, id_column: str | None = None, label_column: str | None = None) -> SourceRows:
    """Read splits from CSV files; ids stay the strings they are (``000123`` and ``NA`` too).

    Labels that are all whole numbers are the class ids themselves; other labels are names, numbered in sorted order.
    Test ids come from test.csv, else from the sample submission.

    Raises:
        DataError: a column is missing, or a file cannot be read.
    """
    rows = SourceRows()
    labelled: list[tuple[str, str, str, str | None]] = []
    for split in ("train", "val"):
        path = source / f"{split}.csv"
        if not path.is_file():
            if split == "train":
                raise DataError(f"{path}: must exist in a CSV source; no such file.")
            continue
        entries = _read(path)
        ids = _choose_column(path, entries, id_column, ID_COLUMNS, "--id-column")
        labels = _choose_label(path, entries, label_column)
        title = next(
            (name for name in TITLE_COLUMNS if entries and name in entries[0] and name not in (ids, labels)), None
        )
        labelled += [
            (split, entry[ids], entry[labels] if labels else "", entry[title] if title else None) for entry in entries
        ]
    unlabelled = [image_id for _, image_id, label, _ in labelled if not label]
    if 0 < len(unlabelled) < len(labelled):
        raise DataError(
            f"{source}: every row of train.csv and val.csv must have a label; "
            f"{describe_offenders(unlabelled)} have none."
        )
    names = sorted({label for _, _, label, _ in labelled if label})
    numbers = {name: number for name in names if (number := parse_whole_number(name)) is not None}
    if any(str(numbers.get(name)) != name for name in names):  # "007" is a name: as a number it would be another's
        numbers = {name: number for number, name in enumerate(names)}
    rows.class_names = {number: name for name, number in numbers.items()}
    for split, image_id, label, text in labelled:
        rows.add(image_id, split, numbers[label] if label else None, title=text)
    test = next((source / name for name in ("test.csv", SAMPLE_NAME) if (source / name).is_file()), None)
    if test is not None:
        entries = _read(test)
        ids = _choose_column(test, entries, id_column, ID_COLUMNS, "--id-column")
        for entry in entries:
            rows.add(entry[ids], "test", None)
    return rows


def _choose_label(path: Path, entries: list[dict[str, str]], given: str | None) -> str | None:
    """The column of labels; None for a catalogue of titles, which has none."""
    columns = list(entries[0])
    if given is None and not set(LABEL_COLUMNS) & set(columns) and set(TITLE_COLUMNS) & set(columns):
        return None
    return _choose_column(path, entries, given, LABEL_COLUMNS, "--label-column")


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            entries = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 CSV ({error}).") from None
    if not entries:
        raise DataError(f"{path}: must have a header and at least one row; it has none.")
    return entries


def _choose_column(
    path: Path, entries: list[dict[str, str]], given: str | None, usual: tuple[str, ...], option: str
) -> str:
    columns = [name for name in entries[0] if name is not None]
    for name in (given,) if given else usual:
        if name in columns:
            return name
    wanted = repr(given) if given else f"one of {', '.join(usual)}"
    raise DataError(f"{path}: must have the column {wanted}; got {', '.join(columns)}. Name it with {option}.")
