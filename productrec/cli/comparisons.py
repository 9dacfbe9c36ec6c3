"""Commands that set models beside each other."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run or ensemble, or RUN/predictions/VIEWS.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="What is compared with it.")],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="val|train|test",
            help="Whose images: validation, training out of fold, or test images with labels; default val, else train.",
        ),
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Preset of views; default that of RUN_A's recipe, else plain.")
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="Images and classes that are printed.")] = 20,
    bootstrap: Annotated[int, typer.Option(min=1, help="Draws of images that the interval is told from.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Write all images with another answer into this CSV.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a CSV that is there.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Draw pictures into this folder.")] = None,
    plots_as: Annotated[str, typer.Option(metavar="svg|png|pdf", help="Kind of the pictures.")] = "svg",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two runs on the images that both answered: what changed, by how much, and by which settings.

    The difference comes with an interval, by a paired bootstrap over the images.
    """
    if split not in (None, "val", "train", "test"):
        raise typer.BadParameter(f"must be val, train or test; got {split!r}", param_hint="--split")
    if replace and out is None:
        raise typer.BadParameter("goes with --out", param_hint="--replace")
    from productrec.cli.next_steps import tell_next
    from productrec.console import say
    from productrec.pipeline.comparison import compare_targets, draw_comparison, print_comparison, print_json
    from productrec.plots.files import check_kind
    from productrec.stages.compare import check_free, write_changed

    kind = check_kind(plots_as)
    if out is not None:
        check_free(out, replace=replace)
    comparison = compare_targets(first, second, split=split, views=views, draws=bootstrap)
    if as_json:
        print_json(comparison)
    else:
        print_comparison(comparison, shown=shown)
    if out is not None:
        write_changed(comparison.images, out, replace=replace)
        say(f"images with another answer: {out}")
    if plots is not None:
        say("pictures: " + ", ".join(map(str, draw_comparison(comparison, plots, kind=kind))))
    if not as_json and (second / "recipe.yaml").is_file():
        tell_next("compare", run=second)


COMMANDS = (compare,)
