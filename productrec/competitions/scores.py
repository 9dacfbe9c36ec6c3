"""From a submission to its score: waiting for it, and what the service says written into the ledger."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from productrec.competitions.client import CompetitionClient, NotFound, Sent, Unanswered
from productrec.competitions.ledger import COMPLETE, ERROR, PENDING, UPLOADING, LedgerEntry, change_ledger, load_ledger
from productrec.console import warn
from productrec.errors import Interrupted, UploadError

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _GROWTH = 1.0, 30.0, 1.5


def wait_for_score(
    client: CompetitionClient,
    reference: int,
    *,
    ledger: Path,
    minutes: float,
) -> Sent | None:
    """Ask for a submission, ever more slowly, until it is scored; the score goes into the ledger.

    Args:
        client: of the competition.
        reference: of the submission.
        ledger: that has a row with this reference.
        minutes: how long to wait; 0: not at all.

    Returns:
        The scored submission; None where it is still pending.

    Raises:
        UploadError: the service could not score it, or refuses to say.
        Interrupted: Ctrl-C.
    """
    waited, next_pause = 0.0, _FIRST_PAUSE_SECONDS
    has_warned = False
    began = time.monotonic()
    try:
        while max(waited, time.monotonic() - began) < minutes * 60:
            time.sleep(next_pause)
            waited += next_pause
            next_pause = min(next_pause * _GROWTH, _LONGEST_PAUSE_SECONDS)
            try:
                sent = client.get_submission(reference)
            except Unanswered as error:  # it is there; only this question went wrong
                if not has_warned:
                    warn(f"{error} Asking on.")
                has_warned = True
                continue
            except NotFound:
                if waited > _LONGEST_PAUSE_SECONDS:  # a fresh one is not always found at once
                    raise
                continue
            if sent.status == PENDING:
                continue
            note_scores(ledger, client.slug, [sent])
            if sent.status == ERROR:
                raise UploadError(
                    f"{client.slug}: submission {reference} must be scored; the service could not: "
                    f"{_shorten(sent.error) or 'it gives no reason'}. Mend the CSV and submit it again."
                )
            return sent
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped waiting; submission {reference} is uploaded and in {ledger}. "
            f"`productrec submit --history {ledger} --refresh` asks for its score."
        ) from None
    return None


def note_scores(ledger: Path, slug: str, sent: Sequence[Sent]) -> list[LedgerEntry]:
    """Write into the ledger what the service says of submissions; the rows as they are now.

    A row whose upload never got its answer is matched by file name and message with a submission that no row claims.
    """
    by_reference = {str(one.reference): one for one in sent}
    claimed = {row.reference for row in load_ledger(ledger) if row.slug == slug and row.reference}

    def change(row: LedgerEntry) -> LedgerEntry:
        if row.slug != slug:
            return row
        if row.status == UPLOADING and not row.reference:
            found = next(
                (
                    one
                    for one in sent
                    if (one.file, one.message) == (row.file, row.message) and str(one.reference) not in claimed
                ),
                None,
            )
        else:
            found = by_reference.get(row.reference)
        if found is None:
            return row
        claimed.add(str(found.reference))
        public, private = parse_score(found.public), parse_score(found.private)
        return replace(
            row,
            reference=str(found.reference),
            status=found.status,
            public_value=row.public_value if public is None else public,
            private_value=row.private_value if private is None else private,
            error=_shorten(found.error) if found.status == ERROR else "",
        )

    return change_ledger(ledger, change)


def list_waiting(entries: Sequence[LedgerEntry]) -> list[str]:
    """Slugs of competitions whose service may know more than the ledger: no score yet, or no private one."""
    waiting = (
        row.slug
        for row in entries
        if row.slug and (row.status in (UPLOADING, PENDING) or (row.status == COMPLETE and row.private_value is None))
    )
    return list(dict.fromkeys(waiting))


def parse_score(text: str) -> float | None:
    """A score as a number; None where there is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shorten(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300]
