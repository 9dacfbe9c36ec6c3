"""Submit matches: the CSV of matches that a competition accepts, and a row of the ledger."""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import compute_digest, load_manifest
from productrec.competitions.contract import Contract
from productrec.competitions.ledger import LedgerEntry, append_to_ledger, load_ledger
from productrec.competitions.matches_writer import write_matches
from productrec.competitions.writer import Submission
from productrec.console import say
from productrec.errors import ArtifactError
from productrec.recognition.saved_matches import KIND, load_matches


def find_matches(source: Path) -> Path:
    """The matches of the test images at or under ``source``, the newest where there are several.

    Raises:
        ArtifactError: there are none.
    """
    if (source / "manifest.json").exists() and load_manifest(source).kind == KIND:
        return source
    found = [path.parent for path in source.glob("matches/*/test/manifest.json")]
    newest = max(found, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns, default=None)
    if newest is None:
        raise ArtifactError(f"{source}: holds no matches of test images. Run `productrec predict {source}` first.")
    return newest


def submit_matches(
    folder: Path, out: Path, *, contract: Contract, sample: Path | None, table_fingerprint: str | None
) -> Submission:
    """Write the CSV of matches and remember it in ``ledger.csv`` beside it (once, if it is unchanged).

    Args:
        folder: of the matches.
        out: CSV to write; an older one of that name is replaced only by one that has passed every check.
        contract: what the competition wants.
        sample: sample submission to agree with, or None.
        table_fingerprint: of the image table as it is now; None where it is not on this machine.

    Raises:
        ArtifactError: the image table has changed since the images were matched.
        SubmissionError: they do not fit the contract or the sample.
    """
    matches = load_matches(folder)
    if table_fingerprint is not None and matches.inputs.get("table") != table_fingerprint:
        raise ArtifactError(f"{folder}: the image table has changed since. Run `productrec predict` again.")
    submission = write_matches(out, contract=contract, matches=matches.name_matches(), sample=sample)
    ledger = out.parent / "ledger.csv"
    if not any(entry.sha256 == submission.sha256 and entry.file == out.name for entry in load_ledger(ledger)):
        entry = LedgerEntry(
            file=out.name,
            sha256=submission.sha256,
            competition=contract.name,
            source=str(folder),
            recipe_digest=compute_digest(matches.fitted),
            validation_metric=contract.metric if matches.fitted.get("f1") is not None else "",
            validation_value=matches.fitted.get("f1"),
        )
        append_to_ledger(ledger, entry)
    checked = f"agrees with {sample}" if sample else "checked against the contract; there is no sample to compare with"
    say(f"submission {out}: {submission.rows:,} rows for {contract.title}, from {folder}; {checked}")
    return submission
