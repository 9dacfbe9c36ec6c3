"""Upkeep: classes are taken out of a run's indexes, changes are folded into a new base, and an index is told of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from productrec.assembly.run_indexes import OpenIndex, list_indexes, open_address, open_indexes
from productrec.console import print_table, say
from productrec.errors import DataError
from productrec.recipe import Recipe
from productrec.retrieval.catalogue import Catalogue
from productrec.retrieval.choice import describe_built
from productrec.retrieval.embedding_set import JOINED, TEXT
from productrec.retrieval.milvus import parse_address


def run_remove(run: Path, keys: Sequence[str]) -> None:
    """Take classes out of every index of a run, by key; they are neither found nor named from then on.

    Raises:
        ArtifactError: the run has no index.
        DataError: no index holds one of the classes.
    """
    _remove(str(run), open_indexes(run), keys)
    for space in (TEXT, JOINED):  # of titles, where the run has some
        if (run / "index" / space).is_dir():
            catalogue = Catalogue(run / "index" / space)
            held = [key for key in dict.fromkeys(keys) if catalogue.has_class(key)]
            if held:
                say(f"index {run / 'index' / space}: {catalogue.remove(held):,} titles removed")


def run_remove_at(address: str, keys: Sequence[str]) -> None:
    """Take classes out of the index at an address, as `run_remove`."""
    _remove(address, [open_address(parse_address(address))], keys)


def _remove(whole: str, indexes: Sequence[OpenIndex], keys: Sequence[str]) -> None:
    # A kill between two indexes leaves a class in the second alone; then it goes from there.
    held = [[key for key in dict.fromkeys(keys) if index.catalogue.has_class(key)] for index in indexes]
    lost = [key for key in keys if not any(key in some for some in held)]
    for index, some in zip(indexes, held, strict=True):
        if lost:
            index.catalogue.remove(lost)  # says what is near to them
            raise DataError(f"{whole}: no index holds {lost}.")
        if some:
            say(f"index {index.where}: {index.catalogue.remove(some):,} images of {len(some):,} classes removed")


def run_compact(run: Path, recipe: Recipe) -> None:
    """Fold what was grown and removed into a new base, for every index of a run.

    Raises:
        ArtifactError: the run has no index, or all was removed.
    """
    for folder in list_indexes(run):
        catalogue = Catalogue(folder)
        before = catalogue.describe()
        if not before["segments"]:
            say(f"index {folder}: nothing to fold, there were no changes")
            continue
        recall = recipe.predict.index_recall
        tuned = catalogue.compact(kind=recipe.predict.index, recall=recall)
        after = catalogue.describe()
        how = "" if tuned is None else f"; {describe_built(tuned, recall)}"
        say(
            f"index {folder}: {before['segments']:,} segments folded, {before['tombstones']:,} tombstones dropped, "
            f"{after['rows']:,} rows left{how}"
        )


def show_indexes(run: Path) -> None:
    """Print what each index of a run holds.

    Raises:
        ArtifactError: the run has no index, or it is damaged.
    """
    _show(str(run), open_indexes(run))


def show_address(address: str) -> None:
    """Print what the index at an address holds."""
    _show(address, [open_address(parse_address(address))])


def _show(whole: str, indexes: Sequence[OpenIndex]) -> None:
    seen = {index.views: index.catalogue.describe() for index in indexes}
    first = next(iter(seen.values()))
    rows = [(name, *(_write(one[name]) for one in seen.values())) for name in first]
    print_table(f"index of {whole}", ("", *seen), rows)


def _write(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else value[:20] if value is not None else "1 (exact search)"
