"""The command ``index``: products come and go in a trained run's index, without training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import Overrides

app = typer.Typer(
    help="Add products to a trained run's index, take them out, or look at it; nothing is trained.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, after predict.")]
Place = Annotated[
    str, typer.Argument(metavar="RUN|ADDRESS", help="Run folder, after predict, or http://HOST:PORT/NAME of a copy.")
]


@app.command()
def show(run: Place) -> None:
    """Print kind, rows, classes, segments, tombstones and recall of a run's indexes, or of the one at an address."""
    from productrec.pipeline.select import load_runs
    from productrec.retrieval.milvus import is_address
    from productrec.stages.upkeep import show_address, show_indexes

    if is_address(run):
        show_address(run)
        return
    for folder in load_runs([Path(run)], [], command="index").runs:
        show_indexes(folder)
    tell_next("index show", run=run)


@app.command()
def grow(
    run: Run,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|TABLE", help="One folder a product with its photos, or an image table.")
    ],
    overrides: Overrides = None,
    piece: Annotated[int, typer.Option(min=1, help="Photos that are kept on the disk together.")] = 512,
) -> None:
    """Add products by their photos; one of each is enough, and classes that the run never saw get a key of their own.

    The same command again goes on where a killed one stopped. predict.index_address=http://HOST:PORT[/NAME] adds to a
    copy in a server.
    """
    from productrec.console import say
    from productrec.pipeline.select import load_runs
    from productrec.stages.grow import report, run_grow

    for folder, recipe in load_runs([run], overrides or [], command="index").runs.items():
        report(
            run_grow(
                folder,
                recipe,
                source,
                piece=piece,
                on_kept=lambda index, ids: say(f"index {index}: kept {len(ids):,} photos"),
            )
        )
    tell_next("index", run=run)


@app.command()
def remove(
    run: Place,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Classes, by class_id as `predict` writes it.")],
) -> None:
    """Take products out: they are neither found nor named from then on."""
    from productrec.pipeline.select import load_runs
    from productrec.retrieval.milvus import is_address
    from productrec.stages.upkeep import run_remove, run_remove_at

    if is_address(run):
        run_remove_at(run, keys)
    else:
        for folder in load_runs([Path(run)], [], command="index").runs:
            run_remove(folder, keys)
    tell_next("index", run=run)


@app.command()
def compact(run: Run, overrides: Overrides = None) -> None:
    """Fold what was grown and removed into a new base."""
    from productrec.pipeline.select import load_runs
    from productrec.stages.upkeep import run_compact

    for folder, recipe in load_runs([run], overrides or [], command="index").runs.items():
        run_compact(folder, recipe)
    tell_next("index", run=run)


@app.command()
def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Run folder, index folder, or http://HOST:PORT/NAME.")
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="http://HOST:PORT[/NAME] of a Milvus server; or run folder, or folder."),
    ],
    kind: Annotated[
        Literal["flat", "hnsw", "ivf_sq8"], typer.Option(help="Index that the server builds; flat is exact.")
    ] = "flat",
    views: Annotated[str | None, typer.Option(help="Copy the run's index of these gallery views alone.")] = None,
) -> None:
    """Copy an index to a Milvus server, or back, and compare what arrived: count and digest.

    A copy stands for its name once it was compared; one that was killed is made again by the same command.
    """
    from productrec.errors import RecipeError
    from productrec.pipeline.select import load_runs
    from productrec.retrieval.milvus import is_address
    from productrec.stages.copy import run_copy_back, run_copy_out

    if is_address(source) == is_address(target):
        raise RecipeError("index copy: one of SOURCE and TARGET must be http://HOST:PORT/NAME, the other a folder.")
    folder = Path(target if is_address(source) else source)
    is_run = (folder / "recipe.yaml").is_file() or folder.is_file()
    runs = load_runs([folder], [], command="index").runs if is_run else {folder: None}
    for place, recipe in runs.items():
        if is_address(source):
            run_copy_back(source, place, recipe)
        else:
            copied = run_copy_out(place, recipe, target, kind=kind, views=views)
    if is_address(target):
        tell_next("index", run=copied[0])
    elif is_run:
        tell_next("index", run=target)


@app.command()
def renew(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run whose catalogue has grown.")],
    new_run: Annotated[Path, typer.Argument(metavar="NEW_RUN", help="Run of the new model, after predict.")],
    overrides: Overrides = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of right answers that the new model may lose.")
    ] = 0.02,
) -> None:
    """Carry a grown catalogue over to a new model: embed it again, compare the answers of both, and switch."""
    from productrec.errors import RecipeError
    from productrec.pipeline.select import load_runs
    from productrec.stages.renew import report, run_renew

    old = load_runs([run], [], command="index").runs
    new = load_runs([new_run], overrides or [], command="index").runs
    if len(old) != 1 or len(new) != 1:
        raise RecipeError("index renew: both must be runs of one model; name the members' folders one by one.")
    ((new_folder, recipe),) = new.items()
    report(run_renew(next(iter(old)), new_folder, recipe, tolerance=tolerance))
    tell_next("index", run=new_run)
