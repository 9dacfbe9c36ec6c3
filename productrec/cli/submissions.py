"""The command ``submit``: a CSV written, checked, sent, and what became of it."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import repeat, tell_next


def submit(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|PROBABILITIES|RECIPE|CSV", help="What to submit; with --check also a table."),
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
    """Write the CSV that a competition accepts, checked against its sample submission; or check one.

    With --upload it is sent to the competition, its score waited for and kept in the ledger beside it; a finished CSV
    may be named instead of a run. --history shows all that were sent and draws validation against leaderboard.
    """
    ways = [name for name, given in (("--check", check), ("--upload", upload), ("--history", history)) if given]
    if len(ways) > 1:
        raise typer.BadParameter(f"goes without {ways[1]}", param_hint=ways[0])
    if refresh and not history:
        raise typer.BadParameter("goes with --history", param_hint="--refresh")
    alone = [name for name, given in (("--slug", slug), ("--message", message)) if given is not None]
    alone += [name for name, given in (("--dry-run", dry_run), ("--force", force)) if given]
    if alone and not upload:
        raise typer.BadParameter("goes with --upload", param_hint=alone[0])
    if history:
        from productrec.pipeline.upload import show_history

        ledger = source or Path("submissions")
        if show_history(ledger, refresh=refresh):
            tell_next("submit, history", ledger=ledger)
        return
    if check is not None:
        if out is not None:
            raise typer.BadParameter("--check writes nothing; leave out --out")
        _check(check, source, competition=competition, sample=sample)
        return
    if source is None:
        raise typer.BadParameter("name a run, class probabilities or a recipe, or a CSV with --check or --upload")
    if not upload:
        from productrec.pipeline.submit import submit_target

        written = submit_target(source, competition=competition, out=out, sample=sample)
        from productrec.pipeline.upload import find_competition

        tell_submitted(written.path, competition or find_competition(source), sample)
        return
    from productrec.pipeline.upload import upload_target

    uploaded = upload_target(
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
    if uploaded.is_sent:
        tell_next("submit, sent" if uploaded.is_scored else "submit, waiting", ledger=uploaded.ledger)
    else:
        tell_next("submit, dry run", command=repeat(context, without=["--dry-run"]))


def tell_submitted(csv: Path, competition: str, sample: Path | None = None, *, is_checked: bool = False) -> None:
    """What to do with a CSV that fits: upload it where its contract knows the place, else hand it in by hand.

    Args:
        csv: the file.
        competition: its contract.
        sample: sample submission that was named for it; None for none.
        is_checked: whether it was looked over and not written, so that no ledger lists it.
    """
    from productrec.competitions.contract import load_contract

    if load_contract(competition).upload_slug is None:
        if not is_checked:
            tell_next("submit", csv=csv, ledger=csv.parent)
        return
    command = ["productrec", "submit", csv, "--competition", competition]
    command += [] if sample is None else ["--sample", sample]
    tell_next("submit, checked" if is_checked else "submit, to upload", command=[*command, "--upload", "--dry-run"])


def _check(path: Path, source: Path | None, *, competition: str | None, sample: Path | None) -> None:
    from productrec.pipeline.check import check_file

    done = check_file(path, source, competition=competition, sample=sample)
    verdict = "sound" if done.report.is_sound else "NOT sound"
    print(f"{path}: {verdict} for {done.title}; {done.report.rows:,} rows; {done.compared}")
    print("".join(f"{line}\n" for line in done.report.list_faults()), end="")
    if not done.report.is_sound:
        raise typer.Exit(1)
    if competition is not None:
        tell_submitted(path, competition, sample, is_checked=True)


COMMANDS = (submit,)
