"""The sheets of an audit: suspects beside examples of both classes, and pairs of classes that look like one product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from productrec.data.images import open_images
from productrec.data.sheets import write_sheet
from productrec.data.table import ImageTable
from productrec.data.views import resize_square

_SHEET_PX = 128
_EXAMPLES = 2
_TWIN_EXAMPLES = 3


def draw_suspects(path: Path, suspects: pd.DataFrame, shown: int, table: ImageTable) -> None:
    """A row a suspect: the image, then examples of its label, then examples of the class that is suggested.

    Above them stand the image's id and the names of both classes. No example is a suspect itself.
    """
    usable = table.images[table.images["status"] == "ok"]
    doubted = set(suspects["image_id"])
    clean = usable[(usable["split"] == "train") & ~usable["image_id"].isin(doubted)]
    blank = np.full((_SHEET_PX, _SHEET_PX, 3), 255, np.uint8)
    by_label = {label: rows.head(_EXAMPLES) for label, rows in clean.groupby("label")}

    def show(rows: pd.DataFrame, count: int) -> list[np.ndarray]:
        pictures = open_images(table, rows)
        squares = [resize_square(pictures.decode(row), _SHEET_PX) for row in range(len(rows))]
        return (squares + [blank] * count)[:count]

    labels = usable.set_index("image_id")["label"]
    names = dict(zip(table.classes["id"].tolist(), table.classes["name"].tolist(), strict=True))
    lines, captions = [], []
    first = suspects.head(shown)
    for image_id, suggested in zip(first["image_id"], first["new_label"], strict=True):
        line, caption = show(usable[usable["image_id"] == image_id], 1), [str(image_id)]
        for what, label in (("labelled", labels[image_id]), ("looks like", suggested)):
            line += [blank[:, :8], *show(by_label.get(label, clean.head(0)), _EXAMPLES)]
            caption += ["", f"{what} {names.get(label, label)}", *[""] * (_EXAMPLES - 1)]
        lines.append(line)
        captions.append(caption)
    write_sheet(path, lines, captions)


def draw_twins(path: Path, doubles: Sequence[Mapping[str, Any]], table: ImageTable) -> None:
    """A row a pair of classes: images of the one, then of the other, with their names above."""
    usable = table.images[(table.images["status"] == "ok") & table.images["label"].notna()]
    names = dict(zip(table.classes["id"].tolist(), table.classes["name"].tolist(), strict=True))
    blank = np.full((_SHEET_PX, _SHEET_PX, 3), 255, np.uint8)
    lines, captions = [], []
    for finding in doubles:
        line, caption = list[np.ndarray](), list[str]()
        for label in (finding["new_label"], finding["label"]):
            rows = usable[usable["label"] == label].head(_TWIN_EXAMPLES)
            pictures = open_images(table, rows)
            squares = [resize_square(pictures.decode(row), _SHEET_PX) for row in range(len(rows))]
            line += [*(squares + [blank] * _TWIN_EXAMPLES)[:_TWIN_EXAMPLES], blank[:, :8]]
            caption += [str(names.get(label, label)), *[""] * _TWIN_EXAMPLES]
        lines.append(line)
        captions.append(caption)
    write_sheet(path, lines, captions)
