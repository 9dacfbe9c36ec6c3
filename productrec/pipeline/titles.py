"""Runs with a text tower: their titles embedded and indexed, evaluated, and searched where there are no classes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from productrec.assembly.embedding_requests import EmbeddingRequest
from productrec.assembly.titles import list_titles
from productrec.console import say, warn
from productrec.data.table import load_table
from productrec.pipeline.select import Selected, load_runs
from productrec.recipe import Recipe
from productrec.retrieval.embedding_set import JOINED, TEXT
from productrec.stages.embed import run_embed
from productrec.stages.embed_titles import run_embed_titles
from productrec.stages.evaluate_titles import TitleEvaluation, report_titles, run_evaluate_titles
from productrec.stages.index import run_index
from productrec.training.run.checkpoint import load_checkpoint


def index_titles(folder: Path, recipe: Recipe) -> None:
    """Embed and index the titles of a run with a text tower, and images and titles joined."""
    present = run_embed_titles(folder, recipe)
    if not set(present) & set(recipe.predict.gallery_splits):
        warn(f"{folder}: no image of the gallery has a title, so titles cannot be searched and do not vote.")
        for space in (TEXT, JOINED):  # of when it had some
            shutil.rmtree(folder / "neighbours" / space, ignore_errors=True)
        return
    for space in (TEXT, JOINED):
        run_index(folder, recipe, views=space)


def report_validation_titles(selected: Selected) -> None:
    """Print how well images and titles of validation find each other, of each run with a text tower."""
    for folder, recipe in selected.runs.items():
        table = load_table(recipe.table, root=recipe.data.images)
        text = recipe.model.text
        if text.is_wanted and any(list_titles(table, table.select(["val"]), text.reads)):
            report_titles(run_evaluate_titles(folder, recipe), f"{folder.name}, validation")


def has_classes(folder: Path, recipe: Recipe) -> bool:
    """Whether a run knows classes; one that learned from titles alone knows none."""
    if not recipe.model.text.is_wanted:
        return True
    return bool(load_checkpoint(folder / "checkpoints" / recipe.predict.checkpoint).class_ids)


def prepare_searches(selected: Selected) -> None:
    """Make runs that know no classes ready to be searched by words and photos."""
    for folder, recipe in selected.runs.items():
        run_embed(folder, recipe)
        run_index(folder, recipe, views=recipe.predict.tta)
        index_titles(folder, recipe)
    report_validation_titles(selected)
    first = next(iter(selected.runs))
    say(f'no classes, so no CSV; search by words: productrec query {first} --text "WORDS"')


def evaluate_titles(
    target: Path, overrides: Sequence[str] = (), *, split: str = "val", draws: int = 1000
) -> dict[str, TitleEvaluation]:
    """Evaluate images and titles of a split by each run of a target, embedding what is not yet.

    Args:
        target: run folder or recipe.
        overrides: ``key=value`` changes of its recipe.
        split: of the image table.
        draws: for the intervals; 0 for none.

    Returns:
        By name of run.

    Raises:
        ArtifactError: see `run_evaluate_titles`.
        DataError: likewise.
    """
    evaluations = {}
    for folder, recipe in load_runs([target], overrides).runs.items():
        run_embed(folder, recipe, [EmbeddingRequest(split, "plain", recipe.loss.needs_labels)])
        evaluations[folder.name] = run_evaluate_titles(folder, recipe, split=split, draws=draws)
    return evaluations
