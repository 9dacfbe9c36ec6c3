"""The application: its commands, and what becomes of an error.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

import os
import sys
from typing import Annotated

import typer

from productrec import __version__
from productrec.cli import (
    bundles,
    comparisons,
    competitions,
    exports,
    indexes,
    looks,
    plans,
    predictions,
    reports,
    runs,
    serving,
    submissions,
    tables,
    weights,
)
from productrec.errors import ProductrecError, RecipeError
from productrec.runtime import prepare_process

app = typer.Typer(
    name="productrec",
    help="Tell near-identical products apart: from a competition's files to a scored submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if traceback:
        os.environ["PRODUCTREC_TRACEBACK"] = "1"


# In the order that --help lists them.
_COMMANDS = (
    *tables.COMMANDS,
    *plans.COMMANDS,
    *runs.COMMANDS,
    *predictions.COMMANDS,
    *comparisons.COMMANDS,
    *reports.COMMANDS,
    *submissions.COMMANDS,
    *serving.COMMANDS,
    *exports.COMMANDS,
    *bundles.COMMANDS,
    *looks.COMMANDS,
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(competitions.app, name="competitions")
app.add_typer(weights.app, name="weights")
app.add_typer(indexes.app, name="index")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with the exit code of what happened."""
    prepare_process()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_tta_values(given)
        app(args=given, prog_name="productrec", obj=given)
    except ProductrecError as error:
        if os.environ.get("PRODUCTREC_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _refuse_tta_values(arguments: list[str]) -> None:
    """Say what ``--tta=flip`` is now; the parser itself would only say that the option takes no value."""
    for argument in arguments:
        if argument.startswith("--tta="):
            raise RecipeError(
                f"--tta: takes no value; got {argument}. Write --views {argument.removeprefix('--tta=')}."
            )
