"""Submissions sent to the competition and what became of them, as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from productrec.competitions.client import CompetitionClient
from productrec.competitions.contract import load_contract
from productrec.competitions.credentials import find_credentials
from productrec.competitions.ledger import PENDING, UPLOADING, LedgerEntry, load_ledger
from productrec.competitions.scores import list_waiting, note_scores, wait_for_score
from productrec.competitions.upload import prepare_upload, send
from productrec.console import print_table, say
from productrec.errors import ArtifactError, RecipeError, SubmissionError, UploadError
from productrec.pipeline.check import check_file
from productrec.pipeline.submit import submit_target
from productrec.recipe import load_recipe
from productrec.stages.submit import find_recipe

_LEDGER = "ledger.csv"
_COLUMNS = ("file", "when (UTC)", "metric", "validation", "public", "private", "submission", "status", "message")


@dataclass(frozen=True)
class Uploaded:
    """What became of an upload, and the ledger that knows it; of a dry run, nothing is sent."""

    ledger: Path
    is_sent: bool
    is_scored: bool


def upload_target(
    source: Path,
    *,
    competition: str | None = None,
    out: Path | None = None,
    sample: Path | None = None,
    slug: str | None = None,
    message: str | None = None,
    wait_minutes: float = 5.0,
    dry_run: bool = False,
    force: bool = False,
) -> Uploaded:
    """Write and check the CSV of a source (or check a finished one), send it, and wait for its score.

    Args:
        source: a run, a folder of class probabilities, a recipe, or a finished ``.csv``.
        competition: contract; default the recipe's.
        out: CSV to write, as for `submit_target`.
        sample: sample submission to agree with, as for `submit_target`.
        slug: the competition's name where submissions are uploaded; default the contract's ``upload_slug``.
        message: what the service lists beside the submission; default the file's name and digest.
        wait_minutes: how long to wait for the score; 0: not at all.
        dry_run: do all but the upload.
        force: send a file that was sent already.

    Returns:
        What became of it.

    Raises:
        UploadError: no credentials, no submission left, sent already, or refused.
    """
    is_finished = source.suffix.lower() == ".csv"
    contract = load_contract(competition or find_competition(source))
    slug = slug or contract.upload_slug
    if slug is None:
        raise UploadError(
            f"{contract.title}: the contract must name the competition where submissions are uploaded; its upload_slug "
            "is null. Give the name in the competition's address with --slug, or write it into a contract of your own."
        )
    place = find_credentials()
    if is_finished:
        if out is not None:
            raise SubmissionError(f"{source}: is a finished CSV; --out must be left out with it. Leave it out.")
        assert competition is not None  # else `find_competition` has refused it
        check_finished(source, competition=competition, sample=sample)
        path = source
    else:
        path = submit_target(source, competition=competition, out=out, sample=sample).path
    with CompetitionClient(slug) as client:
        upload = prepare_upload(client, path, force=force)
        left = "not told" if upload.left is None else f"{upload.left:,}"
        say(f"{slug}: credentials from {place}; submissions left today: {left}")
        message = message or f"{path.name} {upload.sha256[:8]}"
        if dry_run:
            say(
                f"{slug}: {path} ({path.stat().st_size:,} bytes, SHA-256 {upload.sha256[:8]}) would be uploaded as "
                f"{message!r}; nothing was sent"
            )
            return Uploaded(upload.ledger, is_sent=False, is_scored=False)
        reference = send(client, upload, competition=contract.name, message=message)
        scored = wait_for_score(client, reference, ledger=upload.ledger, minutes=wait_minutes)
    if scored is None:
        say(f"{slug}: submission {reference} is not scored yet")
        return Uploaded(upload.ledger, is_sent=True, is_scored=False)
    entry = next(row for row in load_ledger(upload.ledger) if (row.slug, row.reference) == (slug, str(reference)))
    print_table(f"{slug}, submission {reference}", _COLUMNS, [_build_row(entry)], wrap_last=True)
    return Uploaded(upload.ledger, is_sent=True, is_scored=True)


def check_finished(path: Path, *, competition: str, sample: Path | None) -> None:
    """Check a finished CSV against a contract, and its ids against a sample submission.

    Raises:
        SubmissionError: they do not fit.
    """
    done = check_file(path, competition=competition, sample=sample)
    if not done.report.is_sound:
        raise SubmissionError(
            f"{path}: must be what {done.title} accepts; got {done.report.summarise()}. `productrec submit --check "
            f"{path}` tells all; mend it, or write it again."
        )
    say(f"submission {path}: {done.report.rows:,} rows fit {done.title}; {done.compared}")


def show_history(place: Path, *, refresh: bool = False) -> int:
    """Print a ledger of submissions, and draw validation against leaderboard into a PNG beside it.

    Args:
        place: a ledger, or the folder it lies in.
        refresh: ask the service first for scores that have come since.

    Returns:
        How many submissions have no score yet.

    Raises:
        ArtifactError: there is no ledger.
        UploadError: the service refuses, or there are no credentials.
    """
    ledger = place / _LEDGER if place.is_dir() else place
    if not ledger.is_file():
        raise ArtifactError(f"{ledger}: must be a ledger of submissions; there is none. Name its folder.")
    entries = load_ledger(ledger)
    if refresh:
        for slug in list_waiting(entries):
            find_credentials()
            with CompetitionClient(slug) as client:
                entries = note_scores(ledger, slug, client.list_submissions())
    print_table(f"submissions in {ledger}", _COLUMNS, [_build_row(entry) for entry in entries], wrap_last=True)
    waiting = sum(entry.status in (UPLOADING, PENDING) for entry in entries)
    if waiting:
        say(f"{waiting} of {len(entries)} have no score yet")
    _draw(ledger, entries)
    return waiting


def _draw(ledger: Path, entries: Sequence[LedgerEntry]) -> None:
    points = [
        (f"{row.competition}: {row.validation_metric}", row.file, row.validation_value, row.public_value)
        for row in entries
        if row.validation_value is not None and row.public_value is not None
    ]
    if not points:
        say("no submission has both a validation score and a public one, so that no picture is drawn")
        return
    from productrec.plots.figure import save
    from productrec.plots.leaderboard import draw_leaderboard

    picture = ledger.with_suffix(".png")
    save(draw_leaderboard(points), picture)
    say(f"validation against leaderboard: {picture}")


def _build_row(entry: LedgerEntry) -> list[str]:
    scores = (entry.validation_value, entry.public_value, entry.private_value)
    status = f"{entry.status}: {entry.error}" if entry.error else entry.status or "not uploaded"
    when = (entry.uploaded_at or entry.written_at)[:16].replace("T", " ")
    told = ["" if score is None else f"{score:.5f}" for score in scores]
    return [entry.file, when, entry.validation_metric, *told, entry.reference, status, entry.message]


def find_competition(source: Path) -> str:
    """The contract that a source's recipe names."""
    if source.suffix.lower() == ".csv" and not source.is_dir():
        if not source.is_file():
            raise SubmissionError(f"{source}: must be a finished CSV; no such file. Name another.")
        raise RecipeError(f"{source}: is a CSV, which names no contract; name it with --competition.")
    recipe = load_recipe(source) if source.is_file() else find_recipe(source)
    if recipe is None:
        raise RecipeError(f"{source}: lies in no run folder; name the contract with --competition.")
    return recipe.competition
