"""Run: the conductor, the one stage that calls others; plays a recipe from the source folder to the CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from productrec.artifacts import write_text
from productrec.competitions.contract import load_contract
from productrec.competitions.writer import Submission
from productrec.console import say, silence, warn
from productrec.data.table import load_table
from productrec.data.views import PRESETS, get_views
from productrec.errors import ArtifactError, DataError, RecipeError
from productrec.losses.own_loss import check_code_allowed
from productrec.recipe import Recipe, load_recipe, save_recipe
from productrec.recognition.scores import Scores
from productrec.runtime import StopRequest, choose_device, take_own_device
from productrec.stages.audit import Audited, Judge, run_audit
from productrec.stages.classify import Classified, run_classify
from productrec.stages.embed import Wish, run_embed
from productrec.stages.ensemble import run_ensemble
from productrec.stages.evaluate import (
    Evaluation,
    Protocol,
    Wanted,
    choose_protocol,
    evaluate_material,
    has_foreign_classes,
    list_gallery,
    load_material,
    run_evaluate,
)
from productrec.stages.index import run_index
from productrec.stages.ingest import report, run_ingest
from productrec.stages.score_table import Predicted, print_scores
from productrec.stages.select import Selected, check_run, load_runs, look_through, name_ensemble, select_runs
from productrec.stages.submit import find_predictions, find_recipe, submit_recipe
from productrec.stages.train import Trained, run_train
from productrec.training.loop import Ending, explain_death
from productrec.training.ranks import join_ranks, leave_ranks, refuse_once
from productrec.training.validation import VALIDATION_FIGURES


def run_recipe(recipe: Recipe, *, replace_table: bool = False, allow_code: bool = False) -> Submission | None:
    """Play every stage; what is finished and unchanged is skipped.

    Args:
        recipe: what is played.
        replace_table: take a changed source in: write the image table anew where it is of other rows.
        allow_code: that of `run_train`.

    Returns:
        The CSV; None where there are no test images to predict.

    Raises:
        ProductrecError: whatever a stage raises; the stages before it are kept.
    """
    check_recipe_code(recipe, allow_code=allow_code)
    for member in recipe.resolve_members().values():  # else met only after all training
        get_views(member.predict.tta)
        get_views(member.predict.gallery_tta)
    ingest_recipe(recipe, replace=replace_table)
    train_recipe(recipe, resume=True, allow_code=allow_code)
    predicted = predict_runs(select_runs(recipe))
    print_scores(predicted)
    if not predicted.test_images:
        return None
    return submit_recipe(recipe, predicted.folder / "test")


def ingest_recipe(recipe: Recipe, *, replace: bool = False) -> None:
    """Ingest the recipe's source; without one, the table must be there.

    A sample submission that the contract could not agree with is refused now, before any training.
    """
    if recipe.data.source is None:
        load_table(recipe.table, root=recipe.data.images)
        return
    contract = load_contract(recipe.competition)
    data = recipe.data
    if data.format == "auto" and contract.source_format != "auto":
        data = data.model_copy(update={"format": contract.source_format})
    sample = None if recipe.submit.sample is None else str(recipe.submit.sample)
    ingested = run_ingest(
        recipe.data.source,
        recipe.table,
        data=data,
        contract=contract,
        sample=sample,
        seed=recipe.data.seed,
        replace=replace,
        must_fit=True,
    )
    report(ingested)


def check_recipe_code(recipe: Recipe, *, allow_code: bool) -> None:
    """Refuse a recipe whose loss, or a member's, lies outside productrec, unless code is allowed."""
    for member in recipe.resolve_members().values():
        check_code_allowed(member.loss.metric, allow_code=allow_code)


def train_recipe(
    recipe: Recipe, *, resume: bool, max_minutes: float | None = None, allow_code: bool = False
) -> list[Trained]:
    """Train the recipe's model, or each of its members in turn; see `run_train`."""
    check_recipe_code(recipe, allow_code=allow_code)
    trained = []
    for member in recipe.resolve_members().values():
        one = run_train(member, resume=resume, max_minutes=max_minutes, allow_code=allow_code)
        if recipe.members:
            _keep_recipe(recipe.run_folder, recipe)  # so that the folder of the members is a run like any other
        what = _describe_ending(one)
        figures = ", ".join(f"{name} {one.figures[name]:.4f}" for name in VALIDATION_FIGURES if name in one.figures)
        say(
            f"run {one.folder} {what}; best checkpoint: {figures or 'no validation'}"
            + (f". {one.warning}" if one.warning else "")
        )
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
    recipes = list(runs.values())
    views = recipes[0].predict.tta
    for folder, recipe in runs.items():
        run_embed(folder, recipe)
        plain = run_recipe_views(folder, recipe, "plain")
        ways = (dict(plain.validation), dict(plain.test))
        if recipe.predict.tta != "plain":
            several = run_recipe_views(folder, recipe, recipe.predict.tta)
            for known, more in zip(ways, (several.validation, several.test), strict=True):
                if more:
                    known["tta"] = more["fused"]
        validation[folder.name], test[folder.name] = ways
        if has_foreign_classes(folder, recipe, "val"):
            few = Wanted(draws=0, clustering=False)
            try:  # not kept: what `productrec evaluate` wrote has intervals too
                retrieval[folder.name] = run_evaluate(folder, recipe, wanted=few, keep=False)
            except DataError as error:  # the test images are predicted all the same
                warn(f"{folder.name}: no retrieval figures of its validation images. {error}")
    table = load_table(recipes[0].table, root=recipes[0].data.images)
    test_images = len(table.select(["test"], usable=False))
    if len(runs) == 1:
        only = next(iter(runs))
        return Predicted(only / "predictions" / views, validation, test, None, test_images, retrieval)
    _check_is_no_run(out)
    members = {folder.name: folder / "predictions" / recipe.predict.tta for folder, recipe in runs.items()}
    if len(members) != len(runs):
        raise ArtifactError(
            f"ensemble: run folders must have different names; got {', '.join(str(run) for run in runs)}."
        )
    ensemble_folder = out / "predictions" / views
    metric_k = load_contract(recipes[0].competition).metric_k
    ensembled = run_ensemble(members, ensemble_folder, table, metric_k=metric_k, weights=selected.weigh(weights))
    # A recipe that stands there says what its members were trained as; settings of one prediction are not kept in it.
    if not (out / "recipe.yaml").exists():
        _keep_recipe(out, selected.recipe)
    return Predicted(ensemble_folder, validation, test, ensembled, test_images, retrieval)


def run_recipe_views(folder: Path, recipe: Recipe, views: str) -> Classified:
    """Index and classify one run through one preset of views."""
    run_index(folder, recipe, views=views)
    return run_classify(folder, recipe, views=views)


def evaluate_target(
    target: Path,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    views: str | None = None,
    protocol: Protocol = "auto",
    wanted: Wanted | None = None,
    labels: Path | None = None,
) -> dict[str, Evaluation]:
    """Evaluate runs, an embedding set of a run, or NumPy files.

    Args:
        target: a run folder or recipe, whose split is embedded where it is not yet; a folder
            ``RUN/embeddings/VIEWS/SPLIT``; or a ``.npz`` or ``.npy``, see :func:`load_material`.
        overrides: ``key=value`` changes of the recipe.
        split: whose images ask; None for val.
        views: preset of their views; None for plain.
        protocol: who asks whom.
        wanted: figures.
        labels: ``.npy`` of labels for NumPy files.

    Returns:
        By name of run or file.

    Raises:
        ArtifactError: the target is nothing of these.
        RecipeError: an option is given that decides nothing for such a target.
    """
    wanted = wanted or Wanted()
    given: dict[str, object] = {"--split": split, "--views": views}
    if target.suffix in (".npz", ".npy"):
        given |= {"--protocol": None if protocol == "auto" else protocol} | dict.fromkeys(overrides, True)
        _refuse_idle(target, given, "its arrays alone say who asks whom")
        material = load_material(target, labels)
        return {target.name: evaluate_material(material, "self" if material.gallery is None else "roles", wanted)}
    if (target / "embeddings.npy").is_file():
        _refuse_idle(target, given | {"--labels": labels}, "its folder and the table name them")
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
    _refuse_idle(target, {"--labels": labels}, "the image table has them")
    split, views, found = split or "val", views or "plain", {}
    for run, recipe in load_runs([target], overrides).runs.items():
        table = load_table(recipe.table, root=recipe.data.images)
        chosen = choose_protocol(table, split, recipe.predict.gallery_splits) if protocol == "auto" else protocol
        wishes = [Wish(split, views, True)]
        if chosen == "gallery":
            wishes += [Wish(one, seen, False) for one, seen in list_gallery(recipe, split, views).items()]
        run_embed(run, recipe, wishes)
        found[run.name] = run_evaluate(run, recipe, split=split, views=views, protocol=chosen, wanted=wanted)
    return found


def _refuse_idle(target: Path, given: Mapping[str, object], reason: str) -> None:
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise RecipeError(f"{target}: {', '.join(idle)} would have no effect, since {reason}. Leave out what has none.")


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
        return run_audit(table, out or _name_audit(table), root=_read_root(overrides), replace=replace, **options)
    selected = load_runs(targets, overrides, command="audit")
    recipes = list(selected.runs.values())
    if len({recipe.table.resolve() for recipe in recipes}) > 1:
        raise ArtifactError("audit: runs must be trained on one image table; these are on several. Audit them apart.")
    judges = []
    for folder, recipe in selected.runs.items():
        splits = recipe.train.splits
        run_embed(folder, recipe, [Wish(split, "plain", True) for split in splits])
        judges.append(Judge(folder, splits, recipe.train.fold))
    table = recipes[0].table
    return run_audit(
        table, out or _name_audit(table), judges=judges, root=recipes[0].data.images, replace=replace, **options
    )


def _read_root(overrides: Sequence[str]) -> Path | None:
    """The image folder, the one setting that an audit of a table alone takes."""
    others = [text for text in overrides if not text.startswith("data.images=")]
    if others:
        raise RecipeError(f"audit: {', '.join(others)} have no effect on a table; only data.images=FOLDER has.")
    return Path(overrides[-1].partition("=")[2]) if overrides else None


def _name_audit(table: Path) -> Path:
    return table.with_name(f"{table.name}.audit")


def ensemble_predictions(members: Sequence[Path], out: Path, *, weights: Sequence[float] | None = None) -> Predicted:
    """Blend predictions that are there already; a member is a run (its newest) or a prediction folder."""
    for member in members:
        if not member.exists():
            check_run(member)
    folders = [find_predictions(member) for member in members]
    recipe = find_recipe(folders[0])
    if recipe is None:
        raise RecipeError(
            f"{folders[0]}: lies in no run folder, so the image table is unknown. Name runs or their predictions."
        )
    _check_is_no_run(out)
    names = dict(zip([str(member) for member in members], folders, strict=True))
    target = out / "predictions" / "blend"
    metric_k = load_contract(recipe.competition).metric_k
    table = load_table(recipe.table, root=recipe.data.images)
    ensembled = run_ensemble(names, target, table, metric_k=metric_k, weights=weights)
    if folders[0].name in PRESETS:
        recipe = look_through(recipe, folders[0].name)
    _keep_recipe(out, name_ensemble(recipe, out))
    return Predicted(target, {}, {}, ensembled, len(table.select(["test"], usable=False)))


def _check_is_no_run(folder: Path) -> None:
    if (folder / "checkpoints").exists():
        raise ArtifactError(f"{folder}: holds a trained run; an ensemble needs its own folder. Name one with --out.")


def _keep_recipe(folder: Path, recipe: Recipe) -> None:
    write_text(folder / "recipe.yaml", save_recipe(recipe))
