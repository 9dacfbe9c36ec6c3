"""What is to be submitted, as the command line names it.

Apart from other targets, because it takes neither torch nor, where all is as it was, pandas.
"""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.competitions.contract import load_contract
from productrec.competitions.writer import Submission
from productrec.errors import RecipeError, SubmissionError
from productrec.recipe import Recipe, build_recipe, load_recipe
from productrec.stages.submit import NO_SAMPLE, find_recipe, find_sample, submit_recipe
from productrec.stages.submit_matches import find_matches, submit_matches


def submit_target(
    source: Path, *, competition: str | None = None, out: Path | None = None, sample: Path | None = None
) -> Submission:
    """Submit a run folder, a folder of class probabilities, or what a recipe has predicted.

    Raises:
        ArtifactError: no predictions there.
        RecipeError: no such run, or neither a recipe above the folder nor ``competition`` says what is wanted.
    """
    if source.is_file():
        recipe = load_recipe(source)
        folder = recipe.run_folder
    else:
        if not source.exists():
            from productrec.pipeline.select import check_run  # takes pandas

            check_run(source)
        folder = source
        own_recipe = find_recipe(source)
        if own_recipe is None:
            if competition is None:
                raise RecipeError(f"{source}: lies in no run folder; name the contract with --competition.")
            own_recipe = build_recipe({"name": source.name, "submit": {"sample": sample}, "data": {"table": "none"}})
        recipe = own_recipe
    if competition is not None:
        recipe = recipe.model_copy(update={"competition": competition})
    return submit_answers(recipe, folder, out=out, sample=sample)


def submit_answers(recipe: Recipe, source: Path, *, out: Path | None = None, sample: Path | None = None) -> Submission:
    """Write the CSV that the recipe's competition wants, of classes or of matches; arguments as of `submit_recipe`.

    Raises:
        SubmissionError: the competition wants none, or what is there does not fit.
    """
    contract = load_contract(recipe.competition)
    if contract.answers == "retrieval":
        raise SubmissionError(
            f"{contract.title}: is a research protocol, which has no CSV. `productrec evaluate {source} --split test` "
            "makes its table."
        )
    if contract.answers == "classes":
        return submit_recipe(recipe, source, out=out, sample=sample)
    folder = find_matches(source)
    if sample is None:
        sample = recipe.submit.sample or find_sample(recipe.table, source)
    if sample == NO_SAMPLE:
        sample = None
    views = folder.parent.name
    name = recipe.name if views == recipe.predict.tta else f"{recipe.name}-{views}"
    target = out or (recipe.submit.out if name == recipe.name else None) or Path("submissions") / f"{name}.csv"
    has_table = (recipe.table / MANIFEST_NAME).exists()
    fingerprint = load_manifest(recipe.table).fingerprint if has_table else None
    return submit_matches(folder, target, contract=contract, sample=sample, table_fingerprint=fingerprint)
