"""The command ``submit``: what becomes of predictions."""

from pathlib import Path
from typing import Annotated

import typer


def submit(
    source: Annotated[Path, typer.Argument(metavar="RUN|PROBABILITIES|RECIPE", help="What to submit.")],
    competition: Annotated[str | None, typer.Option(help="Contract: a bundled name or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write; default submissions/NAME.csv.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sample submission to agree with; default the source's; none: none.")
    ] = None,
) -> None:
    """Write the CSV that a competition accepts, checked against its sample submission."""
    from productrec.pipeline.submit import submit_target

    submit_target(source, competition=competition, out=out, sample=sample)


COMMANDS = (submit,)
