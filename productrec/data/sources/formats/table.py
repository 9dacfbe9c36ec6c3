"""A table written by hand: CSV or Parquet with the image table's own columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from productrec.data.sources.format import Format, ReadOptions
from productrec.data.sources.rows import SourceRows, number_labels
from productrec.data.table import SPLITS
from productrec.errors import DataError, describe_offenders

NAMES = ("images.csv", "images.parquet")
_EXTRAS = ("path", "url", "box", "group", "role")
_KNOWN = ("image_id", "split", "label", "weight", "title", *_EXTRAS)


def read_table(source: Path, options: ReadOptions) -> SourceRows:
    """Read ``images.csv`` or ``images.parquet``: ``image_id`` is needed, ``split`` is train where it is not given.

    Labels that are all whole numbers are class ids; others are names, numbered in sorted order. Each line of a title is
    a title of its own, as the image table has it.

    Raises:
        DataError: it cannot be read, a column is unknown or missing, or a split is none.
    """
    path = next((source / name for name in NAMES if (source / name).is_file()), source / NAMES[0])
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({str(error)[:200]}).") from None
    unknown = [str(name) for name in frame.columns if name not in _KNOWN]
    if unknown or "image_id" not in frame.columns:
        raise DataError(
            f"{path}: must have the column image_id, and may have {', '.join(_KNOWN[1:])}; "
            f"got {', '.join(map(str, frame.columns))}."
        )
    texts = {name: _as_texts(frame[name]) for name in frame.columns}
    count = len(frame)
    splits = [split or "train" for split in texts.get("split", [None] * count)]
    wrong = sorted({split for split in splits if split not in SPLITS})
    if wrong:
        raise DataError(f"{path}: split must be one of {', '.join(SPLITS)}; got {describe_offenders(wrong)}.")
    labels = texts.get("label", [None] * count)
    weights = texts.get("weight", [None] * count)
    rows = SourceRows()
    numbers, rows.numbered = number_labels([label for label in labels if label is not None])
    rows.class_names = {number: name for name, number in numbers.items()}
    for row, image_id in enumerate(texts["image_id"]):
        if image_id is None:
            raise DataError(f"{path}: every row must have an image_id; row {row + 1} has none.")
        extras = {name: texts[name][row] for name in _EXTRAS if name in texts}
        titles = (texts["title"][row] or "").splitlines() if "title" in texts else None
        label = labels[row]
        weight = _read_weight(weights[row], path, image_id)
        rows.add(
            image_id, splits[row], None if label is None else numbers[label], title=titles, **extras, weight=weight
        )
    return rows


def _read_weight(text: str | None, path: Path, image_id: str) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: a weight must be a number from 0 to 1; {image_id} has {text[:80]!r}.") from None


def _as_texts(column: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in column]


FORMAT = Format(
    rank=10,
    shows=f"{' or '.join(NAMES)} (a table of your own)",
    detect=lambda source: any((source / name).is_file() for name in NAMES),
    read=read_table,
)
