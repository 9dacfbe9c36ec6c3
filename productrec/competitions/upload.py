"""From a checked CSV to the competition: may it be sent, and sending it; both stand in the ledger."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from productrec.artifacts import compute_file_digest
from productrec.competitions.client import CompetitionClient, Limits, Sent, Unanswered
from productrec.competitions.ledger import (
    ERROR,
    FAILED,
    PENDING,
    UPLOADING,
    LedgerEntry,
    begin_upload,
    change_ledger,
    load_ledger,
)
from productrec.competitions.scores import note_scores
from productrec.console import say, warn
from productrec.errors import Interrupted, UploadError

_PAUSE_SECONDS = 1.0
_LOOKS = 3  # for a submission that the service has not named


@dataclass(frozen=True)
class Upload:
    """A file that may be sent: its digest, what the service listed before, and how many submissions are left.

    ``left`` is None where the service does not say.
    """

    path: Path
    sha256: str
    ledger: Path
    listed: Sequence[Sent]
    left: int | None


def prepare_upload(client: CompetitionClient, path: Path, *, force: bool = False) -> Upload:
    """Ask whether a file may be sent: first for the daily limit, then for the competition's kind and for duplicates.

    Args:
        client: of the competition.
        path: the CSV; the ledger lies beside it.
        force: send a file again that was sent already.

    Raises:
        UploadError: no submission is left, the competition takes no CSV, or the same file was sent already.
    """
    limits: Limits | None = None
    listed: list[Sent] | None = None
    with contextlib.suppress(UploadError):  # the next question tells whether more than the limits is refused
        limits = client.get_limits()
    facts = client.get_competition()
    page = f"kaggle.com/competitions/{client.slug}"
    if not facts.has_entered and (limits is None or limits == Limits(0, 0, 0, False)):
        raise UploadError(
            f"{client.slug}: your account must have joined the competition; it has not. Accept the rules at "
            f"{page}/rules and run the command again."
        )
    if facts.is_for_code:
        raise UploadError(
            f"{client.slug}: must take a CSV; it is a code competition, which runs a notebook of yours. "
            "Take what `productrec bundle RUN` writes there instead (docs/bundling.md)."
        )
    if facts.is_closed:
        raise UploadError(f"{client.slug}: must take submissions; it is closed to them. Look at {page}.")
    if limits is None:
        listed = client.list_submissions()
        today = sum(one.date[:10] == f"{datetime.now(UTC):%Y-%m-%d}" and one.status != ERROR for one in listed)
        limits = Limits(today, len(listed), facts.a_day - today, False) if facts.a_day else None
    if limits is not None and limits.left <= 0:
        used = f"{limits.today} of {facts.a_day}" if facts.a_day else str(limits.today)
        raise UploadError(
            f"{client.slug}: a submission must be left; all {limits.total} that are allowed in all were made. "
            "No more can be sent."
            if limits.is_total
            else f"{client.slug}: a submission must be left today; {used} were made. "
            f"It resets at 00:00 UTC, {_describe_time_to_midnight()} from now."
        )
    listed = client.list_submissions() if listed is None else listed
    upload = Upload(
        path, compute_file_digest(path), path.parent / "ledger.csv", listed, None if limits is None else limits.left
    )
    if any(row.status == UPLOADING for row in load_ledger(upload.ledger)):  # one that never got its answer
        note_scores(upload.ledger, client.slug, listed)
    duplicate = _find_duplicate(upload, client.slug)
    if duplicate is not None and not force:
        raise UploadError(
            f"{path}: must not have been sent to {client.slug} already; got {duplicate}. "
            "Send it again with --force, which takes another of today's submissions."
        )
    if duplicate is not None:
        warn(f"{path}: was sent to {client.slug} already, {duplicate}")
    return upload


def send(client: CompetitionClient, upload: Upload, *, competition: str, message: str) -> int:
    """Send the file and note it in the ledger, before and after.

    Args:
        client: of the competition.
        upload: of `prepare_upload`.
        competition: name of the contract, for a file that the ledger does not know.
        message: what the service lists beside it.

    Returns:
        The submission's reference.

    Raises:
        UploadError: it was refused, or nobody knows whether it arrived; the ledger says which.
        Interrupted: Ctrl-C; the ledger knows that the file was on its way.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = LedgerEntry(
        file=upload.path.name,
        sha256=upload.sha256,
        competition=competition,
        source=str(upload.path),
        recipe_digest="",
        slug=client.slug,
        uploaded_at=now,
        status=UPLOADING,
        message=message,
    )
    begin_upload(upload.ledger, entry)

    def note(status: str, reference: str = "") -> None:
        def change(row: LedgerEntry) -> LedgerEntry:
            is_it = (row.sha256, row.uploaded_at) == (entry.sha256, now)
            return replace(row, status=status, reference=reference) if is_it else row

        change_ledger(upload.ledger, change)

    say(f"{client.slug}: uploading {upload.path} ({upload.path.stat().st_size:,} bytes)")
    try:
        reference = _submit(client, upload, message)
    except Unanswered:
        raise  # it may have arrived: the row stays as it is
    except UploadError:
        note(FAILED)
        raise
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped while {upload.path} was uploaded; the ledger {upload.ledger} knows, and the next upload of this "
            "file asks the service first whether it arrived."
        ) from None
    note(PENDING, str(reference))
    say(f"{client.slug}: submission {reference} of {upload.path.name} is there")
    return reference


def _find_duplicate(upload: Upload, slug: str) -> str | None:
    """The submission that is the same file, in words: by digest in the ledger, else by name and size at the service."""
    rows = [row for row in load_ledger(upload.ledger) if row.slug == slug and row.reference]
    for row in reversed(rows):
        if row.sha256 == upload.sha256:
            return f"the same SHA-256 as submission {row.reference} of {row.uploaded_at} ({row.status})"
    others = {row.reference for row in rows}  # of the same name and size perhaps, and yet of other bytes
    size = upload.path.stat().st_size
    for one in upload.listed:
        if (one.file, one.bytes) == (upload.path.name, size) and str(one.reference) not in others:
            return f"submission {one.reference} of {one.date} with the same name and size ({one.status})"
    return None


def _submit(client: CompetitionClient, upload: Upload, message: str) -> int:
    """The reference of the submission; where the service does not tell it, that of one which it lists since."""
    try:
        reference, words = client.submit(upload.path, message)
    except Unanswered as error:
        with contextlib.suppress(UploadError):
            found = _find_new(client, upload, looks=1)
            if found is not None:
                return found.reference
        raise Unanswered(
            f"{error} Whether {upload.path.name} has arrived is not known; the next upload looks for it first."
        ) from None
    if reference:
        return reference
    found = _find_new(client, upload, looks=_LOOKS)
    if found is None:
        raise Unanswered(
            f"{client.slug}: must list the submission; it answered {words[:100]!r} and lists none. Look at "
            f"kaggle.com/competitions/{client.slug}/submissions."
        )
    return found.reference


def _find_new(client: CompetitionClient, upload: Upload, *, looks: int) -> Sent | None:
    """A submission of this file's name that was not listed before."""
    before = {one.reference for one in upload.listed}
    for look in range(looks):
        if look:
            time.sleep(_PAUSE_SECONDS)
        for one in client.list_submissions(most=20):
            if one.reference not in before and one.file == upload.path.name:
                return one
    return None


def _describe_time_to_midnight() -> str:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = math.ceil((midnight - now).total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60} min"
