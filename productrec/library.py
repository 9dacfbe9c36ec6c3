"""productrec as a library: what the commands do, as functions that ``import productrec`` gives when they are asked for.

Each calls what its command calls, prints the same lines, and raises the same errors, of `productrec.errors`. Heavy
libraries are imported where a function needs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from productrec.errors import RecipeError
from productrec.recipe import Recipe
from productrec.recipe import load_recipe as _load_recipe

if TYPE_CHECKING:
    from productrec.pipeline.answers import Answers
    from productrec.pipeline.loaded import LoadedRun
    from productrec.stages.ingest import Ingested
    from productrec.stages.train import Trained


def ingest(
    source: str | Path,
    *changes: str,
    out: str | Path | None = None,
    competition: str | None = None,
    sample: str | Path | None = None,
    replace: bool = False,
) -> Ingested:
    """Read a competition's files into an image table; one of the same files is left as it is.

    Args:
        source: folder, zip or tar.
        changes: settings of the table as the command line takes them, for instance ``"data.folds=5"``.
        out: folder of the table; None for ``data/NAME`` of the source, where recipes with that source look for it.
        competition: contract that the sample submission must fit; None for the plain one, which adapts.
        sample: sample submission; None for the source's own.
        replace: write over a table of another source.

    Returns:
        Its folder, images by split and by state, number of classes, and findings.

    Raises:
        DataError: the source cannot be understood.
        ArtifactError: ``out`` holds another table.
        SubmissionError: the sample submission does not fit ``competition``.
    """
    from productrec.competitions.contract import load_contract
    from productrec.pipeline.select import build_data_settings
    from productrec.recipe import name_table
    from productrec.stages.ingest import report, run_ingest

    data = build_data_settings({}, changes)
    ingested = run_ingest(
        Path(source),
        Path(out or data.table or name_table(Path(source))),
        data=data,
        contract=load_contract(competition or "plain"),
        sample=None if sample is None else str(sample),
        replace=replace,
        must_fit=competition is not None,
    )
    report(ingested)
    return ingested


def load_recipe(path: str | Path, *changes: str) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file, or a run folder, which keeps its own.
        changes: settings as the command line takes them, for instance ``"train.epochs=1"``.

    Raises:
        RecipeError: there is no such file, or a setting is unknown or does not suit.
    """
    path = Path(path)
    return _load_recipe(path / "recipe.yaml" if path.is_dir() else path, changes)


def train(
    recipe: Recipe | str | Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    jobs: int = 1,
    allow_code: bool = False,
) -> list[Trained]:
    """Train a recipe's model, or each of its members, on its image table.

    Args:
        recipe: of `load_recipe`, or its file.
        resume: go on with a run that was stopped; one that is finished is left as it is.
        max_minutes: of each model; None for no limit.
        jobs: members that train at once; more than 1 starts processes, which import your script anew, so that it must
            stand below ``if __name__ == "__main__":``.
        allow_code: whether a loss from outside productrec may be imported, which runs it.

    Returns:
        A run a model: its ``folder``, the ``figures`` of its best checkpoint by name, minutes, and why it ended.

    Raises:
        ArtifactError: no image table, or a run folder holds another run, or a stopped one without ``resume``.
        TrainingError: the model cannot be built, or its loss is no longer finite.
        Interrupted: Ctrl-C; what was trained is saved.
    """
    from productrec.pipeline.play import train_recipe

    return train_recipe(_take(recipe), resume=resume, max_minutes=max_minutes, jobs=jobs, allow_code=allow_code)


def predict(
    recipe: Recipe | str | Path,
    *,
    tta: bool = False,
    views: str | None = None,
    weights: list[float] | None = None,
) -> Answers:
    """Answer the test images by a trained run, or by a recipe's trained members together.

    Args:
        recipe: of `load_recipe`, its file, or a run folder.
        tta: average over several views: the recipe's, or ``zoom`` where it has none.
        views: preset of views; None for the recipe's.
        weights: one a member; None for what validation likes best.

    Returns:
        The folder of what `submit` takes, and the scores on validation images by run and way.

    Raises:
        ArtifactError: nothing is trained there, or it does not fit its image table any more.
        RecipeError: no such run or preset.
    """
    from productrec.pipeline.answers import answer_runs
    from productrec.pipeline.select import load_runs, look_through, select_runs, take_views

    if not isinstance(recipe, Recipe):
        return answer_runs(load_runs([Path(recipe)], [], views=views, some_views=tta), weights=weights)
    chosen = take_views(recipe if views is None else look_through(recipe, views), some_views=tta)
    return answer_runs(select_runs(chosen), weights=weights)


def submit(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    competition: str | None = None,
    sample: str | Path | None = None,
) -> Path:
    """Write the CSV that the competition wants, of the newest predictions, checked against its sample submission.

    Args:
        recipe: of `load_recipe`, its file, or a run folder.
        out: CSV; None for the recipe's, or ``submissions/NAME.csv``.
        competition: contract; None for the recipe's.
        sample: sample submission; None for the one of the image table.

    Returns:
        The CSV. ``ledger.csv`` beside it has a row of it.

    Raises:
        ArtifactError: nothing was predicted, or test images or classes have changed since.
        SubmissionError: it would not fit the contract or the sample submission.
    """
    from productrec.pipeline.submit import submit_answers, submit_target

    target, given = (None if path is None else Path(path) for path in (out, sample))
    if not isinstance(recipe, Recipe):
        return submit_target(Path(recipe), competition=competition, out=target, sample=given).path
    if competition is not None:
        recipe = recipe.model_copy(update={"competition": competition})
    return submit_answers(recipe, recipe.run_folder, out=target, sample=given).path


def load(run: str | Path, *, views: str | None = None, index: str | Path | None = None) -> LoadedRun:
    """Load a trained run into this process, to recognise photos with.

    Args:
        run: its folder, or a file of `productrec export --to onnx`, for which torch need not be there.
        views: preset of views to look through; None for that of the run's recipe.
        index: of a file, folder of the index to find near products in; None for that of the run it lies in.

    Returns:
        What ``recognise`` is asked of, see `productrec.pipeline.loaded.LoadedRun`.

    Raises:
        ArtifactError: the folder holds no trained run, or something in it is damaged.
    """
    from productrec.pipeline.loaded import load_run

    return load_run(run, views=views, index=index)


def silence() -> None:
    """Print no progress and no notes from now on; tables of results, which go to standard output, still come."""
    from productrec.console import silence

    silence()


def _take(recipe: Recipe | str | Path) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if Path(recipe).is_dir():
        raise RecipeError(f"{recipe}: must be a recipe's YAML file to train; got a folder. Name the file.")
    return _load_recipe(Path(recipe))
