"""What is to be submitted, as the command line names it.

Apart from other targets, because it takes neither torch nor, where all is as it was, pandas.
"""

from __future__ import annotations

from pathlib import Path

from productrec.competitions.writer import Submission
from productrec.errors import RecipeError
from productrec.recipe import build_recipe, load_recipe
from productrec.stages.submit import find_recipe, submit_recipe


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
    return submit_recipe(recipe, folder, out=out, sample=sample)
