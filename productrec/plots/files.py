"""Figures as files of a folder, for a write-up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from productrec.errors import RecipeError
from productrec.plots.figure import save

if TYPE_CHECKING:
    from productrec.plots.figure import Figure

Kind = Literal["svg", "png", "pdf"]


def check_kind(kind: str) -> Kind:
    """The kind of files that a text names.

    Raises:
        RecipeError: it names none.
    """
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise RecipeError(f"plots: must be written as {', '.join(get_args(Kind))}; got {kind!r}.")


def write_plots(figures: Mapping[str, Figure], folder: Path, *, kind: Kind = "svg") -> list[Path]:
    """Write each figure into ``FOLDER/NAME.KIND``, over one that is there; the folder is made where it is not.

    Args:
        figures: by name, the file's.
        folder: of the files.
        kind: of the files.

    Returns:
        The files, in the order of the figures.

    Raises:
        StorageError: they cannot be written.
    """
    paths = {folder / f"{name}.{kind}": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        save(figure, path)
    return list(paths)
