"""Commands that make pages to look at."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.options import Overrides


def report(
    target: Annotated[Path, typer.Argument(metavar="RUN|ENSEMBLE", help="Run, recipe, or folder of an ensemble.")],
    overrides: Overrides = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="report.html in the folder of the run")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to write the plots to as well.")] = None,
    plots_as: Annotated[str, typer.Option(metavar="svg|png|pdf", help="Kind of these files.")] = "svg",
) -> None:
    """Make a page to look at: scores, mistakes with their nearest products, hard classes, doubted labels, and more.

    One HTML file that holds all it shows and opens from disk. What is not at hand shortens it and is named in it.
    """
    from productrec.cli.next_steps import tell_next
    from productrec.pipeline.report import report_target
    from productrec.plots.files import check_kind
    from productrec.stages.report import report as tell

    reported = report_target(target, overrides or [], out=out, plots=plots, plots_as=check_kind(plots_as))
    tell(reported)
    if open_it:
        import webbrowser

        from productrec.console import warn

        if not webbrowser.open(reported.path.resolve().as_uri()):
            warn(f"no browser opened here; open {reported.path} yourself")
    is_run = target.suffix in (".yaml", ".yml") or any(target.glob("**/checkpoints"))
    tell_next("report" if is_run else "report, of an ensemble", run=target)


COMMANDS = (report,)
