"""Folds and seeds: one recipe trained several times, and what all of these trainings say together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.out_of_fold import check_folds
from productrec.console import print_table, say
from productrec.data.table import load_table
from productrec.errors import RecipeError
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.pipeline.play import train_recipe
from productrec.pipeline.score_table import OTHER_TITLES, name_ways, print_score_rows
from productrec.recipe import Recipe
from productrec.recipe.spread import list_spread, spread_folds, spread_seeds
from productrec.recognition.classifier import get_answer
from productrec.stages.embed import run_embed
from productrec.stages.out_of_fold import OutOfFold, list_fold_requests, run_out_of_fold
from productrec.training.run.run_folder import load_figures


def train_spread(
    recipe: Recipe,
    *,
    folds: int = 0,
    seeds: int = 0,
    only: Sequence[int] | None = None,
    resume: bool,
    max_minutes: float | None = None,
    jobs: int | None = 1,
    allow_code: bool = False,
) -> Recipe:
    """Train a recipe once a fold or once a seed; what is finished is told together.

    Of folds that are all finished every training image is predicted by the run that left it out, and the classifier
    that is fitted on that serves the recipe's own run.

    Args:
        recipe: what is trained, with members or without.
        folds: that the table has, or 0.
        seeds: how many, from the recipe's own on, or 0.
        only: numbers of the folds or seeds to train now, on this machine; None for all.
        resume: that of `run_train`.
        max_minutes: of each model.
        jobs: that of `train_recipe`.
        allow_code: that of `run_train`.

    Returns:
        The recipe whose members are the folds or seeds.

    Raises:
        DataError: the image table has other folds.
        RecipeError: both or none of folds and seeds, or a number beyond them.
    """
    if bool(folds) == bool(seeds):
        raise RecipeError("--folds: must be given without --seeds, which is another experiment.")
    spread = spread_folds(recipe, folds) if folds else spread_seeds(recipe, seeds)
    if folds:
        check_folds(load_table(recipe.table, root=recipe.data.images), folds, recipe.table)
    models = list_spread(spread)
    numbers = range(folds or seeds) if only is None else only
    beyond = [number for number in numbers if not 0 <= number < (folds or seeds)]
    if beyond:
        raise RecipeError(f"--only: must name some of 0 to {(folds or seeds) - 1}; got {', '.join(map(str, beyond))}.")
    wanted = [names[number] for names in models.values() for number in numbers]
    train_recipe(spread, members=wanted, resume=resume, max_minutes=max_minutes, jobs=jobs, allow_code=allow_code)
    for model, names in models.items():
        finished = [name for name in names if (spread.run_folder / name / MANIFEST_NAME).exists()]
        if len(finished) > 1:
            _print_spread(spread, model, finished)
        if len(finished) < len(names):
            missing = ", ".join(name for name in names if name not in finished)
            say(f"{model}: {len(finished)} of {len(names)} are finished; missing: {missing}")
        elif folds:
            print_out_of_fold(predict_out_of_fold(spread, model))
    return spread


def predict_out_of_fold(spread: Recipe, model: str) -> dict[str, OutOfFold]:
    """Predict every training image of a model's folds through the plain view and the recipe's views, by preset."""
    members = spread.resolve_members()
    runs = {fold: (spread.run_folder / name, members[name]) for fold, name in enumerate(list_spread(spread)[model])}
    presets = list(dict.fromkeys(("plain", runs[0][1].predict.tta)))
    table = load_table(spread.table, root=spread.data.images)
    for fold, (run, recipe) in runs.items():
        asked = [request for views in presets for request in list_fold_requests(recipe, table, fold, views)]
        run_embed(run, recipe, asked)
    return {views: run_out_of_fold(spread.run_folder, model, runs, views=views) for views in presets}


def print_out_of_fold(found: dict[str, OutOfFold]) -> None:
    """Print a line a way to predict, on training images out of fold, and where the probabilities lie."""
    plain = found["plain"].scores
    rows = [(told, plain[way]) for way, told in name_ways(plain)]
    rows += [
        (f"{OTHER_TITLES['tta']} ({views})", get_answer(one.scores)) for views, one in found.items() if views != "plain"
    ]
    print_score_rows("training images out of fold", rows)
    for one in found.values():
        say(f"class probabilities out of fold: {one.folder}")


def _print_spread(spread: Recipe, model: str, names: Sequence[str]) -> None:
    """Print mean and standard deviation of the figures of finished runs."""
    seen = [load_figures(spread.run_folder / name) for name in names]
    rows = []
    for figure, about in VALIDATION_FIGURES.items():
        values = [figures[figure] for figures in seen if figure in figures]
        if len(values) == len(seen):
            rows.append(
                (
                    about.title,
                    f"{100 * statistics.mean(values):.1f}",
                    f"{100 * statistics.stdev(values):.1f}",
                    f"{100 * min(values):.1f} to {100 * max(values):.1f}",
                )
            )
    if rows:
        title = f"{model}: best checkpoints of {len(names)} runs on validation images"
        print_table(title, ("", "mean %", "standard deviation", "range"), rows)
