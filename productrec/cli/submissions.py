"""The command ``submit``: what becomes of predictions."""

from pathlib import Path
from typing import Annotated

import typer


def submit(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|PROBABILITIES|RECIPE", help="What to submit; with --check also an image table."),
    ] = None,
    competition: Annotated[str | None, typer.Option(help="Contract: a bundled name or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write; default submissions/NAME.csv.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sample submission to agree with; default the source's; none: none.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Write nothing; check this CSV, also one made elsewhere. Exits with 1 on faults."),
    ] = None,
) -> None:
    """Write the CSV that a competition accepts, checked against its sample submission; or check one."""
    if check is not None:
        if out is not None:
            raise typer.BadParameter("--check writes nothing; leave out --out")
        _check(check, source, competition=competition, sample=sample)
        return
    if source is None:
        raise typer.BadParameter("name a run, class probabilities or a recipe, or a CSV with --check")
    from productrec.pipeline.submit import submit_target

    submit_target(source, competition=competition, out=out, sample=sample)


def _check(path: Path, source: Path | None, *, competition: str | None, sample: Path | None) -> None:
    from productrec.pipeline.check import check_file

    done = check_file(path, source, competition=competition, sample=sample)
    verdict = "sound" if done.report.is_sound else "NOT sound"
    print(f"{path}: {verdict} for {done.title}; {done.report.rows:,} rows; {done.compared}")
    print("".join(f"{line}\n" for line in done.report.list_faults()), end="")
    if not done.report.is_sound:
        raise typer.Exit(1)


COMMANDS = (submit,)
