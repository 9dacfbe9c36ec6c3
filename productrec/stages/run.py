"""Run: the conductor, the one stage that calls others; plays a recipe from the source folder to the CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from productrec.artifacts import write_text
from productrec.competitions.contract import load_contract
from productrec.competitions.writer import Submission
from productrec.console import print_table, say, silence
from productrec.data.table import load_table
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe, load_recipe, save_recipe
from productrec.recognition.scores import Scores
from productrec.runtime import StopRequest, choose_device, take_own_device
from productrec.stages.audit import Audited, Judge, run_audit
from productrec.stages.classify import PARTS, run_classify
from productrec.stages.embed import Wish, run_embed
from productrec.stages.ensemble import run_ensemble
from productrec.stages.evaluate import (
    Evaluation,
    Protocol,
    Wanted,
    choose_protocol,
    evaluate_material,
    has_foreign_classes,
    load_material,
    run_evaluate,
)
from productrec.stages.evaluate import report as report_evaluation
from productrec.stages.index import run_index
from productrec.stages.ingest import report, run_ingest
from productrec.stages.submit import find_probabilities, find_recipe, submit_recipe
from productrec.stages.train import Trained, run_train
from productrec.training.loop import Ending, explain_death
from productrec.training.ranks import join_ranks, leave_ranks, refuse_once
from productrec.training.validation import VALIDATION_FIGURES

DEFAULT_VIEWS = "zoom"
TITLES = {"head": "head alone", "nearest": "nearest neighbour", "vote": "vote", "fused": "fused", "tta": "with TTA"}


@dataclass(frozen=True)
class Selected:
    """Runs to predict with, each with its settings; where their ensemble lands, and the recipe that stands for it."""

    runs: dict[Path, Recipe]
    folder: Path
    recipe: Recipe


@dataclass(frozen=True)
class Predicted:
    """Where predictions lie (``folder/val`` and ``folder/test``) and their validation scores by run and way.

    ``retrieval``: by run, of those whose head knows no class of the validation images.
    """

    folder: Path
    scores: dict[str, dict[str, Scores]]
    ensembled: Scores | None
    retrieval: dict[str, Evaluation] = field(default_factory=dict)


def run_recipe(recipe: Recipe) -> Submission:
    """Play every stage; what is finished and unchanged is skipped.

    Raises:
        ProductrecError: whatever a stage raises; the stages before it are kept.
    """
    ingest_recipe(recipe)
    train_recipe(recipe, resume=True)
    predicted = predict_runs(select_runs(recipe))
    print_scores(predicted)
    return submit_recipe(recipe, predicted.folder / "test")


def ingest_recipe(recipe: Recipe) -> None:
    """Ingest the recipe's source; without one, the table must be there."""
    if recipe.data.source is None:
        load_table(recipe.table, root=recipe.data.images)
        return
    contract = load_contract(recipe.competition)
    data = recipe.data
    if data.format == "auto" and contract.source_format != "auto":
        data = data.model_copy(update={"format": contract.source_format})
    report(run_ingest(recipe.data.source, recipe.table, data=data, sample=contract.sample_submission, seed=recipe.seed))


def train_recipe(recipe: Recipe, *, resume: bool, max_minutes: float | None = None) -> list[Trained]:
    """Train the recipe's model, or each of its members in turn."""
    trained = []
    for member in recipe.resolve_members().values():
        one = run_train(member, resume=resume, max_minutes=max_minutes)
        if recipe.members:
            _keep_recipe(recipe.run_folder, recipe)  # so that the folder of the members is a run like any other
        what = _describe_ending(one)
        figures = ", ".join(f"{name} {one.figures[name]:.4f}" for name in VALIDATION_FIGURES if name in one.figures)
        say(f"run {one.folder} {what}; best checkpoint: {figures or 'no validation'}")
        trained.append(one)
    return trained


def _describe_ending(trained: Trained) -> str:
    if trained.skipped:
        return "is finished already"
    minutes = f"{trained.minutes:.1f} minutes"
    return {
        Ending.FINISHED: f"finished in {minutes}",
        Ending.NO_BETTER: f"ended after {minutes}, since validation got no better",
        Ending.OUT_OF_TIME: f"stopped after {minutes}; --resume goes on",
    }[trained.ending]


def select_runs(recipe: Recipe, folder: Path | None = None) -> Selected:
    """The run of a recipe, or those of its members, below ``folder`` (default: where the recipe puts them)."""
    folder = folder or recipe.run_folder
    if not recipe.members:
        return Selected({folder: recipe}, folder, recipe)
    runs = {folder / name: member for name, member in recipe.resolve_members().items()}
    return Selected(runs, folder, recipe)


def load_runs(
    targets: Sequence[Path], overrides: Sequence[str], *, out: Path | None = None, some_views: bool = False
) -> Selected:
    """Runs named on the command line, by run folder or by recipe.

    Args:
        targets: run folders (of one model, or of a recipe with members) and recipe files.
        overrides: ``key=value`` changes.
        some_views: look through several views, `DEFAULT_VIEWS` where the recipe says no more than the plain one.
        out: folder of the ensemble; else the one target's, or, for several, one beside the first, by their names.

    Raises:
        ArtifactError: a folder holds no run.
    """
    found = []
    for target in targets:
        if target.is_dir() and not (target / "recipe.yaml").exists():
            raise ArtifactError(f"{target}: holds no run (no recipe.yaml). Train one, or name the run folder itself.")
        recipe = load_recipe(target / "recipe.yaml" if target.is_dir() else target, overrides)
        if some_views and recipe.predict.tta == "plain":
            recipe = recipe.model_copy(update={"predict": recipe.predict.model_copy(update={"tta": DEFAULT_VIEWS})})
        found.append(select_runs(recipe, target if target.is_dir() else None))
    if len(found) == 1:
        only = found[0]
        return only if out is None else Selected(only.runs, out, _name_ensemble(only.recipe, out))
    runs = {folder: recipe for one in found for folder, recipe in one.runs.items()}
    folder = out or next(iter(runs)).parent / "+".join(one.folder.name for one in found)
    return Selected(runs, folder, _name_ensemble(found[0].recipe, folder))


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
    scores: dict[str, dict[str, Scores]] = {}
    retrieval: dict[str, Evaluation] = {}
    recipes = list(runs.values())
    views = recipes[0].predict.tta
    for folder, recipe in runs.items():
        run_embed(folder, recipe)
        ways = dict(run_recipe_views(folder, recipe, "plain"))
        if recipe.predict.tta != "plain":
            with_views = run_recipe_views(folder, recipe, recipe.predict.tta)
            if with_views:
                ways["tta"] = with_views["fused"]
        scores[folder.name] = ways
        if has_foreign_classes(folder, recipe, "val"):
            retrieval[folder.name] = run_evaluate(folder, recipe, wanted=Wanted(draws=0, clustering=False))
    if len(runs) == 1:
        only = next(iter(runs))
        return Predicted(only / "predictions" / views, scores, None, retrieval)
    _check_is_no_run(out)
    members = {folder.name: folder / "predictions" / recipe.predict.tta for folder, recipe in runs.items()}
    if len(members) != len(runs):
        raise ArtifactError(
            f"ensemble: run folders must have different names; got {', '.join(str(run) for run in runs)}."
        )
    if weights is None:
        weights = [recipe.predict.member_weights.get(folder.name, 1.0) for folder, recipe in runs.items()]
    ensemble_folder = out / "predictions" / views
    table = load_table(recipes[0].table, root=recipes[0].data.images)
    metric_k = load_contract(recipes[0].competition).metric_k
    ensembled = run_ensemble(members, ensemble_folder, table, metric_k=metric_k, weights=weights)
    _keep_recipe(out, selected.recipe)
    return Predicted(ensemble_folder, scores, ensembled, retrieval)


def run_recipe_views(folder: Path, recipe: Recipe, views: str) -> dict[str, Scores]:
    """Index and classify one run through one preset of views."""
    run_index(folder, recipe, views=views)
    return run_classify(folder, recipe, views=views)


def evaluate_target(
    target: Path,
    overrides: Sequence[str] = (),
    *,
    split: str = "val",
    views: str = "plain",
    protocol: Protocol = "auto",
    wanted: Wanted | None = None,
    labels: Path | None = None,
) -> dict[str, Evaluation]:
    """Evaluate runs, an embedding set of a run, or NumPy files.

    Args:
        target: a run folder or recipe, whose split is embedded where it is not yet; a folder
            ``RUN/embeddings/VIEWS/SPLIT``; or a ``.npz`` or ``.npy``, see :func:`load_material`.
        overrides: ``key=value`` changes of the recipe.
        split: whose images ask.
        views: preset of their views.
        protocol: who asks whom.
        wanted: figures.
        labels: ``.npy`` of labels for NumPy files.

    Returns:
        By name of run or file.

    Raises:
        ArtifactError: the target is nothing of these.
    """
    wanted = wanted or Wanted()
    if target.suffix in (".npz", ".npy"):
        material = load_material(target, labels)
        return {target.name: evaluate_material(material, "self" if material.gallery is None else "roles", wanted)}
    if (target / "embeddings.npy").is_file():
        folder = target.resolve()
        run, views, split = folder.parents[2], folder.parent.name, folder.name
        if not (run / "recipe.yaml").is_file():
            raise ArtifactError(
                f"{target}: an embedding set must lie in its run folder, which names the image table. "
                "Evaluate its arrays as a .npz with embeddings and labels."
            )
        return {
            run.name: run_evaluate(
                run,
                load_recipe(run / "recipe.yaml", overrides),
                split=split,
                views=views,
                protocol=protocol,
                wanted=wanted,
            )
        }
    found = {}
    for run, recipe in load_runs([target], overrides).runs.items():
        gallery_splits = recipe.predict.gallery_splits
        table = load_table(recipe.table, root=recipe.data.images)
        chosen = choose_protocol(table, split, gallery_splits) if protocol == "auto" else protocol
        wishes = [Wish(split, views, True)]
        if chosen == "gallery":
            gallery_views = "plain" if views == "plain" else recipe.predict.gallery_tta
            wishes += [Wish(one, gallery_views, False) for one in gallery_splits]
        run_embed(run, recipe, wishes)
        found[run.name] = run_evaluate(run, recipe, split=split, views=views, protocol=chosen, wanted=wanted)
    return found


def audit_targets(
    targets: Sequence[Path],
    overrides: Sequence[str],
    *,
    out: Path | None = None,
    duplicates: bool = True,
    mark: str | None = None,
    first: int = 0,
    shown: int = 24,
    replace: bool = False,
) -> Audited:
    """Audit an image table, by its folder, or that of some runs together with what they have learned.

    Raises:
        ArtifactError: a target is neither, or runs are of different tables.
        RecipeError: a table is named beside something else.
    """
    options: dict[str, Any] = {"duplicates": duplicates, "mark": mark, "first": first, "shown": shown}
    tables = [target for target in targets if (target / "images.parquet").is_file()]
    if tables:
        if len(targets) > 1:
            raise RecipeError(f"audit: {tables[0]} is an image table and must be named alone; name runs without it.")
        table = tables[0]
        return run_audit(table, out or _name_audit(table), replace=replace, **options)
    selected = load_runs(targets, overrides)
    recipes = list(selected.runs.values())
    if len({recipe.table.resolve() for recipe in recipes}) > 1:
        raise ArtifactError("audit: runs must be trained on one image table; these are on several. Audit them apart.")
    judges = []
    for folder, recipe in selected.runs.items():
        splits = recipe.train.splits
        run_embed(folder, recipe, [Wish(split, "plain", True) for split in splits])
        judges.append(Judge(folder, splits, recipe.train.fold, recipe.predict.checkpoint))
    table = recipes[0].table
    return run_audit(
        table, out or _name_audit(table), judges=judges, root=recipes[0].data.images, replace=replace, **options
    )


def _name_audit(table: Path) -> Path:
    return table.with_name(f"{table.name}.audit")


def print_scores(predicted: Predicted, title: str = "validation") -> None:
    """Print one line a way to predict."""
    rows = [
        (TITLES[way] if len(predicted.scores) == 1 else f"{name}: {TITLES[way]}", *_format(ways[way]))
        for name, ways in predicted.scores.items()
        for way in (*PARTS, "tta")
        if way in ways
    ]
    if predicted.ensembled is not None:
        rows.append(("ensembled", *_format(predicted.ensembled)))
    if rows:
        print_table(title, ("", "top-1 accuracy %", "top-3 error %"), rows)
    for name, evaluation in predicted.retrieval.items():
        report_evaluation(evaluation, name)
    say(f"class probabilities: {predicted.folder}")


def ensemble_predictions(members: Sequence[Path], out: Path, *, weights: Sequence[float] | None = None) -> Predicted:
    """Blend predictions that are there already; a member is a run (its newest) or a prediction folder."""
    folders = [find_probabilities(member).parent for member in members]
    recipe = find_recipe(folders[0])
    if recipe is None:
        raise RecipeError(
            f"{folders[0]}: lies in no run folder, so the image table is unknown. Name runs or their predictions."
        )
    _check_is_no_run(out)
    names = dict(zip([str(member) for member in members], folders, strict=True))
    target = out / "predictions" / "blend"
    metric_k = load_contract(recipe.competition).metric_k
    ensembled = run_ensemble(
        names, target, load_table(recipe.table, root=recipe.data.images), metric_k=metric_k, weights=weights
    )
    _keep_recipe(out, _name_ensemble(recipe, out))
    return Predicted(target, {}, ensembled)


def _name_ensemble(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe that stands for an ensemble in ``folder``: table and contract of one of its runs, its own name."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", folder.name).lstrip("._+-") or recipe.name
    data = recipe.data.model_copy(update={"table": recipe.table})
    return recipe.model_copy(update={"name": name, "runs": folder.parent, "members": {}, "data": data})


def _check_is_no_run(folder: Path) -> None:
    if (folder / "checkpoints").exists():
        raise ArtifactError(f"{folder}: holds a trained run; an ensemble needs its own folder. Name one with --out.")


def _keep_recipe(folder: Path, recipe: Recipe) -> None:
    write_text(folder / "recipe.yaml", save_recipe(recipe))


def _format(scores: Scores) -> tuple[str, str]:
    return f"{100 * scores.top_1_accuracy:.1f}", f"{100 * scores.top_3_error:.1f}"
