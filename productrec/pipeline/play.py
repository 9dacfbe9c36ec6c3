"""Play a recipe from the source folder to the CSV, and its parts: ingest and training of all members."""

from __future__ import annotations

from collections.abc import Sequence

from productrec.competitions.contract import load_contract
from productrec.competitions.writer import Submission
from productrec.console import say
from productrec.data.table import load_table
from productrec.losses.own_loss import check_code_allowed
from productrec.metrics.figures import VALIDATION_FIGURES
from productrec.pipeline.answers import answer_runs, warn_of_seen_classes
from productrec.pipeline.select import keep_recipe, select_runs
from productrec.pipeline.side_by_side import choose_jobs, train_side_by_side
from productrec.pipeline.submit import submit_answers
from productrec.recipe import Recipe
from productrec.stages.ingest import report, run_ingest
from productrec.stages.train import Trained
from productrec.training.run.endings import Ending


def run_recipe(
    recipe: Recipe, *, replace_table: bool = False, jobs: int | None = 1, allow_code: bool = False
) -> Submission | None:
    """Play every stage; what is finished and unchanged is skipped.

    Args:
        recipe: what is played.
        replace_table: take a changed source in: write the image table anew where it is of other rows.
        jobs: that of `train_recipe`.
        allow_code: that of `run_train`.

    Returns:
        The CSV; None where there are no test images to predict, or the contract wants none.

    Raises:
        ProductrecError: whatever a stage raises; the stages before it are kept.
    """
    check_recipe_code(recipe, allow_code=allow_code)
    ingest_recipe(recipe, replace=replace_table)
    warn_of_seen_classes(recipe)
    train_recipe(recipe, resume=True, jobs=jobs, allow_code=allow_code)
    answered = answer_runs(select_runs(recipe)).folder
    return None if answered is None else submit_answers(recipe, answered)


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
        replace=replace,
        must_fit=True,
    )
    report(ingested)


def check_recipe_code(recipe: Recipe, *, allow_code: bool) -> None:
    """Refuse a recipe whose loss, or a member's, lies outside productrec, unless code is allowed."""
    for member in recipe.resolve_members().values():
        check_code_allowed(member.loss.metric, allow_code=allow_code)


def train_recipe(
    recipe: Recipe,
    *,
    resume: bool,
    members: Sequence[str] | None = None,
    max_minutes: float | None = None,
    jobs: int | None = 1,
    allow_code: bool = False,
) -> list[Trained]:
    """Train the recipe's model, or its members.

    Args:
        recipe: what is trained.
        members: names of those to train; None for all.
        resume: that of `run_train`.
        max_minutes: of each model.
        jobs: members that train at once, each in a process of its own, which imports the caller's main module anew;
            None for as many as this machine trains well at once, see `choose_jobs`.
        allow_code: that of `run_train`.

    Returns:
        Outcomes, in the order of the members.

    Raises:
        ProductrecError: see `train_side_by_side`.
    """
    check_recipe_code(recipe, allow_code=allow_code)

    def tell(trained: Trained) -> None:
        if recipe.members:
            keep_recipe(recipe.run_folder, recipe)  # so that the folder of the members is a run like any other
        figures = ", ".join(
            f"{name} {trained.figures[name]:.4f}" for name in VALIDATION_FIGURES if name in trained.figures
        )
        say(
            f"run {trained.folder} {_describe_ending(trained)}; best checkpoint: {figures or 'no validation'}"
            + (f". {trained.warning}" if trained.warning else "")
        )

    recipes = [one for name, one in recipe.resolve_members().items() if members is None or name in members]
    return train_side_by_side(
        recipes,
        jobs=choose_jobs(recipes, jobs),
        resume=resume,
        max_minutes=max_minutes,
        allow_code=allow_code,
        on_ended=tell,
    )


def _describe_ending(trained: Trained) -> str:
    if trained.skipped:
        return "is finished already"
    minutes = f"{trained.minutes:.1f} minutes"
    return {
        Ending.FINISHED: f"finished in {minutes}",
        Ending.NO_BETTER: f"ended after {minutes}, since validation got no better",
        Ending.OUT_OF_TIME: f"stopped after {minutes}; --resume goes on",
    }[trained.ending]
