"""A run in a process that stays: loaded once, asked again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from productrec.assembly.answering import prepare_run
from productrec.assembly.asking import Answer, ask
from productrec.data.images import ArrayImages, FileImages
from productrec.errors import DataError, RecipeError
from productrec.pipeline.select import load_runs


class LoadedRun:
    """A trained run that recognises photos.

    >>> run = load_run("runs/mine")  # doctest: +SKIP
    >>> run.recognise(["photo.jpg"])[0].name  # doctest: +SKIP
    'cola, 0.5 l'
    """

    def __init__(self, run: str | Path, *, views: str | None = None) -> None:
        """Load a run.

        Args:
            run: its folder, of one model.
            views: preset to look through; None for that of the run's recipe.

        Raises:
            ArtifactError: the folder holds no trained run, or something in it is damaged.
            RecipeError: no such preset.
        """
        folder = Path(run)
        selected = load_runs([folder], ["train.workers=0"], views=views, command="photos")
        (path, recipe), *more = selected.runs.items()
        if more:
            raise RecipeError(f"{folder}: holds several models. Load one of them: {path}.")
        self._ready = prepare_run(path, recipe)

    @property
    def way(self) -> str:
        """How it answers, in words."""
        return self._ready.way

    @property
    def class_names(self) -> list[str]:
        """Every class that it can name, those that its index has grown by among them."""
        return list(self._ready.known.names)

    def recognise(self, photos: Sequence[np.ndarray | str | Path], *, nearest: int = 3) -> list[Answer]:
        """Answers for photos, in their order; products that were added to the index meanwhile are found too.

        Args:
            photos: pictures (H, W, 3) uint8 RGB, or files; all of one kind.
            nearest: products to name beside the class.

        Raises:
            DataError: a picture is of another shape or type. A file that is no photo is an answer with a reason.
        """
        if not len(photos):
            return []
        self._ready = self._ready.refresh()
        pictures = [photo for photo in photos if isinstance(photo, np.ndarray)]
        if len(pictures) == len(photos):
            images: ArrayImages | FileImages = ArrayImages(pictures)
            names = [f"picture {number}" for number in range(len(pictures))]
        elif pictures:
            raise DataError("photos: must all be pictures, or all be files; got both. Ask for each kind by itself.")
        else:
            names = [str(photo) for photo in photos]
            images = FileImages(names)
        return list(ask(self._ready, images, names, nearest=nearest))


def load_run(run: str | Path, *, views: str | None = None) -> LoadedRun:
    """Load a trained run, to ask it for photos; see `LoadedRun`."""
    return LoadedRun(run, views=views)
