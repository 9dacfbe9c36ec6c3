"""What answers for a folder of photos, as the command line names it, and the CSV that comes of it.

Apart from other predictions, since exported files answer without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from productrec.assembly.answering import ReadyRun
from productrec.assembly.run_contract import name_contract
from productrec.competitions.contract import load_contract
from productrec.console import warn
from productrec.ensembling.blend import RULES, Blend, weigh
from productrec.ensembling.ensemble_file import find_ensemble, get_ensemble_folder
from productrec.errors import RecipeError
from productrec.pipeline.asked import is_exported, prepare_asked, prepare_folder
from productrec.pipeline.select import Selected, load_runs
from productrec.recipe.portable import CONTRACT


def classify_photos(
    targets: Sequence[Path],
    settings: Sequence[str],
    photos: Path,
    out: Path,
    *,
    views: str | None = None,
    some_views: bool = False,
    weights: Sequence[float] | None = None,
    sample: Path | None = None,
    competition: str | None = None,
    fill_missing: bool = False,
    replace: bool = False,
) -> str | None:
    """Classify photos by runs, or exported files, and say what came of it.

    Args:
        targets: run folders and recipes, or exported files; several are blended.
        settings: ``key=value`` changes to the runs' recipes.
        photos: folder.
        out: CSV to write.
        views: preset to look through; None for that of the recipes.
        some_views: look through several views.
        weights: one a run; None for those of the recipe.
        sample: sample submission, whose ids and order the CSV then has, as the contract wants it; None for a line a
            file, with names and probabilities.
        competition: with ``sample``, the contract; None for the run's own.
        fill_missing: with ``sample``, see `productrec.stages.answer.run_answer`.
        replace: write over a CSV that is there.

    Returns:
        The contract that the CSV follows, by its name or its file; None without a sample.

    Raises:
        ProductrecError: see `productrec.stages.photos.run_photos` and `productrec.stages.answer.run_answer`.
    """
    prepare: Callable[[], list[ReadyRun]]
    if all(is_exported(target) for target in targets):
        if some_views:
            raise RecipeError("--tta: is of a run's recipe; name the views of an exported file with --views.")
        chosen, blend = None, None if weights is None else weigh([str(target) for target in targets], weights)

        def prepare() -> list[ReadyRun]:
            return [prepare_asked(target, settings, views=views) for target in targets]

    else:
        selected = load_runs(targets, settings, views=views, some_views=some_views, command="photos")
        chosen, blend = selected, _find_blend(selected, weights)

        def prepare() -> list[ReadyRun]:
            return [prepare_folder(folder, recipe) for folder, recipe in selected.runs.items()]

    if sample is None:
        from productrec.stages import photos as stage

        stage.report(stage.run_photos(prepare, photos, out, blend=blend, replace=replace))
        return None
    from productrec.stages import answer

    contract = _choose_contract(targets[0], chosen) if competition is None else competition
    done = answer.run_answer(
        prepare,
        photos,
        out,
        contract=load_contract(contract),
        sample=sample,
        blend=blend,
        fill_missing=fill_missing,
        replace=replace,
    )
    answer.report(done)
    return contract


def _find_blend(selected: Selected, weights: Sequence[float] | None) -> Blend | None:
    """How runs become one: by weights, where a person or the recipe gives them, else as their ensemble was fitted."""
    if len(selected.runs) == 1:
        return None
    names, how = selected.name_runs(), selected.recipe.predict.blend
    if weights is not None or selected.has_weights():
        return weigh(names, selected.weigh(weights), how)
    if how in RULES:
        return weigh(names, None, how)
    fitted = find_ensemble(get_ensemble_folder(selected.folder, selected.recipe.predict.tta), names)
    if fitted is None:
        warn(f"{selected.folder}: its runs weigh alike, since no blend of them was fitted. Predict with them first.")
    return fitted


def _choose_contract(target: Path, selected: Selected | None) -> str:
    """The contract of a run, or of the bundle that an exported file lies in."""
    if selected is not None:
        return name_contract(target, selected.recipe)
    folder = target.absolute().parent.parent
    if not (folder / CONTRACT).is_file():
        raise RecipeError(f"{target}: an exported file knows no contract. Name it with --competition.")
    return str(folder / CONTRACT)
