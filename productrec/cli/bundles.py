"""The command ``bundle``: a run as one folder that answers elsewhere, without a network."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import Overrides, Views


def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, of one model or of a recipe with members.")],
    to: Annotated[Path, typer.Option(help="Folder to write; nothing may be there.")],
    overrides: Overrides = None,
    views: Views = None,
    model: Annotated[
        str, typer.Option(help="run: the weights; onnx: the file of `productrec export`, which needs no torch.")
    ] = "run",
    wheels: Annotated[
        str,
        typer.Option(
            help="none; productrec, its own alone; light, also what it needs but torch and CUDA, which notebooks of "
            "Kaggle have; all. light and all fetch from a package index."
        ),
    ] = "productrec",
    python: Annotated[
        str | None,
        typer.Option(help="Version of the Python that the wheels are for, on Linux, as 3.12.", show_default="this one"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to time.", show_default="the table's test images")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, help="Images that are to be predicted.", show_default="the table's test images"),
    ] = None,
) -> None:
    """Write one folder that answers elsewhere without a network: network, index, classifier, contract, wheels.

    `python run.py --images TEST --sample sample_submission.csv --out submission.csv` in it writes the submission of a
    folder of images, for instance in a notebook of Kaggle. It is a run folder too. docs/bundling.md says more.
    """
    from productrec.pipeline.select import load_runs
    from productrec.stages.bundle import report, run_bundle

    selected = load_runs([run], overrides or [], views=views, command="photos")
    done = run_bundle(
        run,
        selected.runs,
        selected.recipe,
        to,
        model=model,
        wheels=wheels,
        python=python,
        images=images,
        count=count,
    )
    report(done)
    tell_next("bundle", bundle=to)


COMMANDS = (bundle,)
