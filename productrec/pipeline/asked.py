"""What is asked about photos: a run folder, or an exported file, for which torch need not be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from productrec.assembly.answering import ReadyRun
from productrec.errors import RecipeError
from productrec.pipeline.select import load_runs
from productrec.recipe import Recipe

if TYPE_CHECKING:
    from productrec.assembly.title_search import Target, TitleSearch

_SUFFIX = ".onnx"


def is_exported(target: str | Path) -> bool:
    """Whether a target is an exported file, by its name."""
    return Path(target).suffix == _SUFFIX


def prepare_asked(
    target: str | Path, settings: Sequence[str] = (), *, views: str | None = None, index: str | Path | None = None
) -> ReadyRun:
    """A run or an exported file, ready to answer.

    Args:
        target: run folder of one model, or file of `productrec export --to onnx`.
        settings: ``key=value`` changes to a run's recipe.
        views: preset to look through; None for that of the run's recipe.
        index: of a file, folder of the index to find near products in; None for that of the run it lies in.

    Raises:
        ArtifactError: the target is no trained run and no exported file, or something is damaged or of other weights.
        RecipeError: no such preset, or a setting or index that decides nothing here.
    """
    path = Path(target)
    if is_exported(path):
        if settings:
            raise RecipeError(f"{settings[0]}: has no effect on {path}; an exported file has no settings.")
        from productrec.assembly.ready_file import prepare_file

        return prepare_file(path, views=views, index=None if index is None else Path(index))
    if index is not None:
        raise RecipeError(f"--index: goes with an exported file; {path} is asked with the index of its own views.")
    folder, recipe = _select_run(path, settings, views)
    return prepare_folder(folder, recipe)


def prepare_search(target: str | Path, settings: Sequence[str] = (), *, to: Target) -> TitleSearch:
    """A run with a text tower, ready to be searched.

    Args:
        target: run folder of one model.
        settings: ``key=value`` changes to its recipe.
        to: whether images of its gallery are looked for, or their titles.

    Raises:
        ArtifactError: it is not trained, has no text tower, or no index yet.
        RecipeError: a setting decides nothing here.
    """
    path = Path(target)
    if is_exported(path):
        raise RecipeError(f"{path}: must be a run folder to be searched; an exported file holds no text tower.")
    folder, recipe = _select_run(path, settings)
    from productrec.assembly.title_search import prepare_title_search  # brings torch

    return prepare_title_search(folder, recipe, to)


def _select_run(path: Path, settings: Sequence[str], views: str | None = None) -> tuple[Path, Recipe]:
    selected = load_runs([path], settings, views=views, command="photos")
    if len(selected.runs) > 1:
        names = ", ".join(str(folder) for folder in selected.runs)
        raise RecipeError(f"{path}: must be a run of one model; it holds {names}. Name one of them.")
    ((folder, recipe),) = selected.runs.items()
    return folder, recipe


def prepare_folder(folder: Path, recipe: Recipe) -> ReadyRun:
    """A run folder ready to answer; by its exported file, where a bundle holds that in the place of the weights.

    Raises:
        ArtifactError: no trained run is there, or something is damaged or of other weights.
    """
    exported = sorted(folder.glob(f"export/*{_SUFFIX}"))
    if len(exported) == 1 and not (folder / "checkpoints").exists():
        from productrec.assembly.ready_file import prepare_file

        return prepare_file(exported[0], views=recipe.predict.tta)
    from productrec.assembly.ready_run import prepare_run  # brings torch

    return prepare_run(folder, recipe)
