"""Predict: embed, index and classify runs, through each preset of views that is wanted, and blend them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from productrec.assembly.evaluation import Evaluation, Wanted
from productrec.competitions.contract import load_contract
from productrec.console import silence, warn
from productrec.data.table import ImageTable, load_table
from productrec.data.view_presets import PRESETS
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.metrics.calibration import Reliability, build_reliability
from productrec.pipeline.score_table import Predicted
from productrec.pipeline.select import Selected, check_is_no_run, check_run, keep_recipe, look_through, name_ensemble
from productrec.pipeline.titles import index_titles
from productrec.recipe import Recipe
from productrec.recognition.classifier import get_answer
from productrec.recognition.classifier_file import load_classifier
from productrec.recognition.scores import Scores
from productrec.runtime import StopRequest, choose_device, take_own_device
from productrec.stages.classify import Classified, run_classify
from productrec.stages.embed import run_embed
from productrec.stages.ensemble import run_ensemble
from productrec.stages.evaluate import (
    has_foreign_classes,
    run_evaluate,
)
from productrec.stages.fit import run_fit
from productrec.stages.index import run_index
from productrec.stages.structure import SUFFIX, run_structure
from productrec.stages.submit import find_predictions, find_recipe
from productrec.training.ranks.group import join_ranks, leave_ranks, refuse_once
from productrec.training.run.endings import explain_death


def embed_together(selected: Selected) -> bool:
    """Where torchrun started several of this process, embed with all of them; whether this one goes on alone."""
    first = next(iter(selected.runs.values()))
    with refuse_once():
        ranks = join_ranks(take_own_device(choose_device(first.device)), timeout_minutes=first.train.timeout_minutes)
        if ranks.size == 1:
            return True
        if not ranks.is_first:
            silence()
        try:
            for folder, recipe in selected.runs.items():
                run_embed(folder, recipe, ranks=ranks)
        except RuntimeError as error:
            raise explain_death(error, StopRequest(), ranks) from error
        leave_ranks()
    return ranks.is_first


def predict_runs(selected: Selected, *, weights: Sequence[float] | None = None) -> Predicted:
    """Embed, index and classify each run, through the plain view and the recipe's views, and ensemble them.

    Args:
        selected: run folders with the settings to predict with; the ensemble's folder also keeps its recipe.
        weights: one a run; else the recipes' ``member_weights``.

    Raises:
        ArtifactError: a run is not trained, or the runs do not speak of the same images and classes.
    """
    runs, out = selected.runs, selected.folder
    validation: dict[str, dict[str, Scores]] = {}
    test: dict[str, dict[str, Scores]] = {}
    retrieval: dict[str, Evaluation] = {}
    calibration: dict[str, Reliability] = {}
    recipes = list(runs.values())
    views = recipes[0].predict.tta
    for folder, recipe in runs.items():
        run_embed(folder, recipe)
        if recipe.model.text.is_wanted:
            index_titles(folder, recipe)
        plain = run_recipe_views(folder, recipe, "plain")
        ways = (dict(plain.validation), dict(plain.test))
        if recipe.predict.tta != "plain":
            several = run_recipe_views(folder, recipe, recipe.predict.tta)
            for known, more in zip(ways, (several.validation, several.test), strict=True):
                if more:
                    known["tta"] = get_answer(more)
        validation[folder.name], test[folder.name] = ways
        fitted = load_classifier(folder / "classifier" / "plain").fitted
        if "calibration" in fitted:
            calibration[folder.name] = build_reliability(fitted["calibration"]["answers"])
        if has_foreign_classes(folder, recipe, "val"):
            few = Wanted(draws=0, clustering=False, fused=False)
            try:  # not kept: what `productrec evaluate` wrote has intervals too
                retrieval[folder.name] = run_evaluate(folder, recipe, wanted=few, keep=False)
            except DataError as error:  # the test images are predicted all the same
                warn(f"{folder.name}: no retrieval figures of its validation images. {error}")
    table = load_table(recipes[0].table, root=recipes[0].data.images)
    test_images = len(table.select(["test"], usable=False))
    if len(runs) == 1:
        only = _add_structure(next(iter(runs)) / "predictions" / views, recipes, table)
        return Predicted(only, validation, test, None, test_images, retrieval, calibration)
    check_is_no_run(out)
    members = {folder.name: folder / "predictions" / recipe.predict.tta for folder, recipe in runs.items()}
    if len(members) != len(runs):
        raise ArtifactError(
            f"ensemble: run folders must have different names; got {', '.join(str(run) for run in runs)}."
        )
    ensemble_folder = out / "predictions" / views
    metric = load_contract(recipes[0].competition).scored_by
    if weights is None and selected.has_weights():
        weights = selected.weigh(None)
    ensembled = run_ensemble(
        members, ensemble_folder, table, metric=metric, how=selected.recipe.predict.blend, weights=weights
    )
    # A recipe that stands there says what its members were trained as; settings of one prediction are not kept in it.
    if not (out / "recipe.yaml").exists():
        keep_recipe(out, selected.recipe)
    ensemble_folder = _add_structure(ensemble_folder, recipes, table)
    return Predicted(ensemble_folder, validation, test, ensembled, test_images, retrieval, calibration)


def _add_structure(predictions: Path, recipes: Sequence[Recipe], table: ImageTable) -> Path:
    """What the steps of ``predict.structure`` and ``predict.prior`` make of finished predictions; they themselves."""
    validates = not any("val" in recipe.train.splits for recipe in recipes)
    return run_structure(predictions, recipes[0], table, validates=validates)


def run_recipe_views(folder: Path, recipe: Recipe, views: str) -> Classified:
    """Index, fit and classify one run through one preset of views."""
    run_index(folder, recipe, views=views)
    run_fit(folder, recipe, views=views)
    return run_classify(folder, recipe, views=views)


def ensemble_predictions(
    members: Sequence[Path], out: Path, *, how: str | None = None, weights: Sequence[float] | None = None
) -> Predicted:
    """Blend predictions that are there already; a member is a run (its newest) or a prediction folder.

    Args:
        members: of one image table.
        out: folder of the ensemble.
        how: as ``predict.blend``; None for what the first member's recipe says.
        weights: one a member, see `run_ensemble`.
    """
    for member in members:
        if not member.exists():
            check_run(member)
    folders = [find_predictions(member) for member in members]
    recipe = find_recipe(folders[0])
    if recipe is None:
        raise RecipeError(
            f"{folders[0]}: lies in no run folder, so the image table is unknown. Name runs or their predictions."
        )
    check_is_no_run(out)
    names = dict(zip([str(member) for member in members], folders, strict=True))
    target = out / "predictions" / "blend"
    metric = load_contract(recipe.competition).scored_by
    table = load_table(recipe.table, root=recipe.data.images)
    ensembled = run_ensemble(
        names, target, table, metric=metric, how=recipe.predict.blend if how is None else how, weights=weights
    )
    if (views := folders[0].name.removesuffix(SUFFIX)) in {*PRESETS, *recipe.predict.own_views}:
        recipe = look_through(recipe, views)
    keep_recipe(out, name_ensemble(recipe, out))
    return Predicted(target, {}, {}, ensembled, len(table.select(["test"], usable=False)))
