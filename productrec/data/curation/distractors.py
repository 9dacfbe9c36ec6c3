"""Distractors: images whose label says that they are of no product leave the classes and have a split of their own."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from productrec.data.table import DISTRACTORS
from productrec.errors import DataError, describe_offenders
from productrec.settings.text import suggest_name


def find_distractors(
    classes: pd.DataFrame, wanted: Collection[str], unknown_label: str | None, where: str, *, numbered: bool = False
) -> dict[int, str]:
    """The classes, by id, that stand for no product.

    Args:
        classes: of the source.
        wanted: names that a person says, or ids; each must be one.
        unknown_label: what the competition calls an unknown product; a class of that name is one, if there is any.
        where: the source.
        numbered: ids are numbers that were given to names, by which nobody knows a class.

    Raises:
        DataError: one of ``wanted`` is no class, or none but these would be left.
    """
    found = dict(zip(classes["id"].tolist(), classes["name"].tolist(), strict=True))
    names = list(found.values())
    ids = {} if numbered else {str(class_id): class_id for class_id in found}
    for name in wanted:
        if name not in names and name not in ids:
            near = suggest_name(name, names)
            raise DataError(
                f"{where}: data.distractors must be names of its classes; got {name!r}. "
                + (f"Did you mean {near}?" if near else f"Its classes are {describe_offenders(names)}.")
            )
    called = {*wanted, unknown_label}
    chosen = {class_id: name for class_id, name in found.items() if name in called}
    chosen |= {class_id: found[class_id] for text, class_id in ids.items() if text in called}
    if chosen and len(chosen) == len(found):
        raise DataError(f"{where}: data.distractors must leave a class; got all of {', '.join(chosen.values())}.")
    return chosen


def set_apart(
    images: pd.DataFrame, classes: pd.DataFrame, chosen: Collection[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images and classes where some classes stand for no product: these are gone, and their images have no label.

    Those that could be trained on become distractors; test images stay test images.
    """
    changed = images.copy()
    is_apart = images["label"].isin(list(chosen)).fillna(False)
    changed.loc[is_apart & images["split"].isin(["train", "val"]), "split"] = DISTRACTORS
    changed.loc[is_apart, "label"] = pd.NA
    return changed, classes[~classes["id"].isin(list(chosen))].reset_index(drop=True)
