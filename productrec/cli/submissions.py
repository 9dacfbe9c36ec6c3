"""The command ``submit``: what becomes of predictions."""

from pathlib import Path
from typing import Annotated

import typer


def submit(
    source: Annotated[
        Path | None, typer.Argument(metavar="RUN|PROBABILITIES|RECIPE|CSV", help="What to submit.")
    ] = None,
    competition: Annotated[str | None, typer.Option(help="Contract: a bundled name or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write; default submissions/NAME.csv.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sample submission to agree with; default the source's; none: none.")
    ] = None,
    upload: Annotated[bool, typer.Option("--upload", help="Send it to the competition, with Kaggle's client.")] = False,
    slug: Annotated[str | None, typer.Option(help="The competition's name there; default the contract's.")] = None,
    message: Annotated[str | None, typer.Option(help="What is listed beside it; default its name.")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Minutes to wait for the score; 0: none.")] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --upload: do all but send it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --upload: send it again.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Print the ledger at SOURCE (a file or folder; default submissions).")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="With --history: ask for new scores first.")] = False,
) -> None:
    """Write the CSV that a competition accepts, checked against its sample submission.

    With --upload it is sent to the competition, its score waited for and kept in the ledger beside it; a finished CSV
    may be named instead of a run. --history shows all that were sent and draws validation against leaderboard.
    """
    if refresh and not history:
        raise typer.BadParameter("goes with --history", param_hint="--refresh")
    if history:
        if upload:
            raise typer.BadParameter("goes without --upload", param_hint="--history")
        from productrec.pipeline.upload import show_history

        return show_history(source or Path("submissions"), refresh=refresh)
    if source is None:
        raise typer.BadParameter("is missing", param_hint="RUN|PROBABILITIES|RECIPE|CSV")
    alone = [name for name, given in (("--slug", slug), ("--message", message)) if given is not None]
    alone += [name for name, given in (("--dry-run", dry_run), ("--force", force)) if given]
    if alone and not upload:
        raise typer.BadParameter("goes with --upload", param_hint=alone[0])
    if not upload:
        from productrec.pipeline.submit import submit_target

        submit_target(source, competition=competition, out=out, sample=sample)
        return None
    from productrec.pipeline.upload import upload_target

    return upload_target(
        source,
        competition=competition,
        out=out,
        sample=sample,
        slug=slug,
        message=message,
        wait_minutes=wait,
        dry_run=dry_run,
        force=force,
    )


COMMANDS = (submit,)
