"""Report: a run or an ensemble as it is named on the command line, with its models and predictions, becomes a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from productrec.artifacts import MANIFEST_NAME
from productrec.assembly.compared import find_target
from productrec.competitions.contract import load_contract
from productrec.ensembling.ensemble_file import get_ensemble_folder, load_ensemble
from productrec.errors import ArtifactError, ProductrecError
from productrec.pipeline.select import Selected, load_runs
from productrec.pipeline.targets import list_ingest_command, name_audit
from productrec.pipeline.titles import has_classes
from productrec.plots.files import Kind
from productrec.recipe import Recipe, load_recipe
from productrec.stages.report import Reported, run_report
from productrec.stages.structure import SUFFIX
from productrec.stages.submit import find_predictions


def report_target(
    target: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    plots: Path | None = None,
    plots_as: Kind = "svg",
) -> Reported:
    """Write the report of a run folder, of a recipe's run or of an ensemble's folder.

    Args:
        target: as it is named.
        overrides: ``key=value`` changes, such as where the images are now.
        out: file to write; None for ``report.html`` in the folder.
        plots: folder to write the plots to as well.
        plots_as: kind of these files.

    Raises:
        ArtifactError: there is no run.
        RecipeError: there is no such folder, or a setting decides nothing here.
    """
    selected = load_runs([target], overrides)
    try:
        predictions = find_predictions(selected.folder)
    except ArtifactError:
        predictions = None
    answers = _find_answers(selected.folder, selected.recipe, predictions)
    ensemble = None
    if predictions is not None:
        ensemble = get_ensemble_folder(selected.folder, predictions.name.removesuffix(SUFFIX))
    runs = selected.runs
    if not selected.recipe.members and not (selected.folder / "checkpoints").is_dir() and ensemble is not None:
        runs = _find_members(selected.folder, ensemble, overrides) or runs
    return run_report(
        selected.folder,
        selected.recipe,
        runs,
        predictions=answers,
        without="" if answers else _tell_without(selected),
        ensemble=ensemble,
        audit=name_audit(selected.recipe.table),
        ingest_command=_list_ingest_command(selected.recipe.table),
        out=out,
        plots=plots,
        plots_as=plots_as,
    )


def _find_answers(folder: Path, recipe: Recipe, predictions: Path | None) -> dict[str, Path]:
    """Predictions by split; where there are none of validation images, also those of training images out of fold."""
    found = {split: predictions / split for split in ("val", "test") if predictions is not None}
    found = {split: path for split, path in found.items() if (path / MANIFEST_NAME).is_file()}
    if "val" in found:
        return found
    try:
        known = find_target(folder).list_views("train")
    except ProductrecError:
        return found
    wish = [*([] if predictions is None else [predictions.name]), recipe.predict.tta, *known]
    views = next((name for name in wish if name in known), None)
    return found if views is None else {"train": known[views], **found}


def _tell_without(selected: Selected) -> str:
    """Why class answers do not apply to runs; empty where they do."""
    answers = load_contract(selected.recipe.competition).answers
    if answers != "classes":
        return f"they do not apply, since the competition asks for {answers}, not for classes."
    try:
        know = [has_classes(run, recipe) for run, recipe in selected.runs.items()]
    except ArtifactError:  # not trained
        return ""
    return "" if any(know) else "they do not apply, since the run learned from titles alone and knows no classes."


def _list_ingest_command(table: Path) -> list[str]:
    try:
        return list_ingest_command(table)
    except ArtifactError:  # the table is not at hand
        return ["productrec", "ingest", "SOURCE", "--out", str(table)]


def _find_members(folder: Path, ensemble: Path, overrides: Sequence[str]) -> dict[Path, Recipe]:
    """The runs that an ensemble names, as far as they are at hand: by their paths, or below or beside its folder."""
    try:
        names = load_ensemble(ensemble).names
    except ProductrecError:
        return {}
    found = {}
    for name in names:
        for place in (Path(name), folder / name, folder.parent / name):
            if (place / "checkpoints").is_dir() and (place / "recipe.yaml").is_file():
                found[place] = load_recipe(place / "recipe.yaml", overrides)
                break
    return found
