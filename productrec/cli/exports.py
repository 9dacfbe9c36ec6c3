"""The command ``export``: a run's network as one file that recognises photos where productrec is not."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import Overrides
from productrec.errors import RecipeError


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of one model, trained.")],
    overrides: Overrides = None,
    to: Annotated[
        str, typer.Option(help="onnx, for ONNX Runtime without torch; or torch, a program of torch.export.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="RUN/export/NAME.onnx, or .pt2")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and activations of 8 bits; what that loses is measured.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of photos to check the file on.", show_default="the run's validation images"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Write a run's network as one file that recognises photos elsewhere, checked against the run.

    The file takes images of (B, S, S, 3) uint8 RGB and gives an embedding and the head's class probabilities of each;
    class names are in it. docs/exporting.md says more.
    """
    from productrec.pipeline.select import load_runs
    from productrec.stages.export import report, run_export

    runs = load_runs([run], overrides or [], command="export").runs
    if len(runs) > 1:
        raise RecipeError(
            f"{run}: has several models; export one of them: {', '.join(str(folder) for folder in runs)}."
        )
    ((folder, recipe),) = runs.items()
    exported = run_export(folder, recipe, to=to, out=out, photos=images, int8=int8, over=replace)
    report(exported)
    if to == "onnx":
        tell_next("export", file=exported.path)
    else:
        tell_next("export, to torch", run=folder)


COMMANDS = (export,)
