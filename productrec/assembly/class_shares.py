"""How often each class is to be expected among the test images, as a recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from productrec.class_order import ClassOrder
from productrec.data.table import ImageTable
from productrec.delimited import read_delimited
from productrec.errors import RecipeError, describe_offenders
from productrec.recipe import Recipe
from productrec.recognition.structure.prior import share_out

_COLUMNS = ("class", "share")


def count_trained(table: ImageTable, class_ids: list[int], splits: Sequence[str]) -> np.ndarray:
    """Share (C,) of each class among the images of some splits, above 0."""
    labels = table.select(splits)["label"].dropna().to_numpy(dtype=np.int64)
    positions = ClassOrder(class_ids).positions_of(labels)
    return share_out(np.bincount(positions[positions >= 0], minlength=len(class_ids)))


def get_shares(recipe: Recipe, keys: Sequence[str], names: Sequence[str]) -> np.ndarray | None:
    """Shares (C,) that ``predict.prior`` gives; None where it gives none, or they are to be estimated.

    Raises:
        RecipeError: its file cannot be read or does not give a share for each class.
    """
    if recipe.predict.prior == "uniform":
        return np.full(len(names), 1 / len(names))
    return read_shares(Path(recipe.predict.prior), keys, names) if recipe.predict.prior.endswith(".csv") else None


def read_shares(path: Path, keys: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Shares (C,) float64 that sum to 1, from a CSV with the columns class and share.

    Args:
        path: its classes are keys or names, its shares numbers from 0 of any sum, such as counts.
        keys: (C,) of the classes.
        names: (C,) of the classes.

    Raises:
        RecipeError: it cannot be read, or does not give one share for each class.
    """
    where = f"predict.prior: {path}"
    read = read_delimited(path, error=RecipeError)
    missing = [column for column in _COLUMNS if column not in read.columns]
    if missing:
        raise RecipeError(f"{where}: columns must be class and share; got {', '.join(read.columns)}. Name them so.")
    given = [text.strip() for text in read.get_column("class")]
    known = keys if set(given) <= set(keys) else names
    if sorted(given) != sorted(known):
        odd = sorted(set(given) ^ set(known)) or sorted({text for text in given if given.count(text) > 1})
        raise RecipeError(
            f"{where}: classes must be those of the run, each once, by key or name; {describe_offenders(odd)} are not, "
            "or are missing. A class that does not occur has share 0."
        )
    try:
        shares = np.array([float(text) for text in read.get_column("share")])
    except ValueError as error:
        raise RecipeError(f"{where}: shares must be numbers; {error}. Correct it.") from None
    if not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise RecipeError(f"{where}: shares must be finite numbers from 0, not all 0; got others. Correct them.")
    by_class = dict(zip(given, shares.tolist(), strict=True))
    ordered = np.array([by_class[text] for text in known])
    shares = ordered / ordered.sum()
    return np.asarray(shares, dtype=np.float64)
