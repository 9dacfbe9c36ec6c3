"""The ledger of submissions: one CSV row a file, so that a public score can be traced to the recipe that earned it.

Written by the submit stage after `writer`; the public score is added once the competition has told it.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from productrec.artifacts import write_file
from productrec.errors import ArtifactError, SubmissionError, describe_offenders
from productrec.locking import hold_lock

_NUMBERS = ("validation_value", "public_value")
_PATIENCE_SECONDS = 60.0  # a row is written in milliseconds
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One submission; the fields are the ledger's columns, in order.

    ``written_at`` is UTC in ISO 8601; ``sha256`` of the CSV's bytes, lower-case hex; ``source`` says where the
    probabilities came from; ``validation_value`` and ``public_value`` are finite, or None while unknown. A line break
    in a text is stored as a space.

    Raises:
        SubmissionError: a field does not hold what it must.
    """

    written_at: str = field(default_factory=_now)
    file: str
    sha256: str
    competition: str
    source: str
    recipe_digest: str
    validation_metric: str = ""
    validation_value: float | None = None
    public_value: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        try:
            in_utc = not datetime.fromisoformat(self.written_at).utcoffset()
            aware = datetime.fromisoformat(self.written_at).tzinfo is not None
        except ValueError:
            in_utc = aware = False
        if not (in_utc and aware):
            raise SubmissionError(
                f"ledger entry: written_at must be a UTC time such as {_now()}; got {self.written_at!r}. Mend it."
            )
        if not _SHA256.fullmatch(self.sha256):
            raise SubmissionError(
                f"ledger entry: sha256 must be 64 lower-case hex digits; got {self.sha256!r}. Take it from the file."
            )
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise SubmissionError(f"ledger entry: {name} must be finite; got {value}. Leave it out if unknown.")


_COLUMNS = tuple(column.name for column in fields(LedgerEntry))


def append_to_ledger(path: Path, entry: LedgerEntry) -> None:
    """Add a row, atomically; a missing ledger is begun. Of several writers, one waits for the other.

    Raises:
        ArtifactError: the ledger is damaged, and left as it is; or another process held it for too long.
        StorageError: the disk refused; the ledger is as it was.
    """
    with _hold(path):
        _save(path, [*load_ledger(path), entry])


def load_ledger(path: Path) -> list[LedgerEntry]:
    """Every row, oldest first; none where there is no ledger yet.

    Raises:
        ArtifactError: it cannot be read, or its header or a row is not a ledger's.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(next(reader, ()))
            if header != _COLUMNS:
                raise _damaged(path, f"header must be {','.join(_COLUMNS)}; got {','.join(header)[:200] or 'nothing'}")
            entries = []
            for row in reader:
                if len(row) != len(_COLUMNS):
                    raise _damaged(path, f"line {reader.line_num} must have {len(_COLUMNS)} fields; got {len(row)}")
                try:
                    entries.append(_parse(row))
                except (SubmissionError, ValueError) as error:
                    raise _damaged(
                        path, f"line {reader.line_num} must be a ledger entry; got {str(error).rstrip('.')}"
                    ) from None
            return entries
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, f"ledger must be a CSV file in UTF-8; got {error}") from None


def set_public_value(path: Path, sha256: str, value: float) -> None:
    """Note the public score of the file with this SHA-256, in every row that has it; an earlier score is replaced.

    Raises:
        SubmissionError: no row has this SHA-256, or ``value`` is not finite.
        ArtifactError: the ledger is damaged, and left as it is; or another process held it for too long.
        StorageError: the disk refused; the ledger is as it was.
    """
    with _hold(path):
        entries = load_ledger(path)
        if not any(entry.sha256 == sha256 for entry in entries):
            known = describe_offenders(f"{entry.file} {entry.sha256}" for entry in reversed(entries))
            raise SubmissionError(
                f"{path}: sha256 must be that of a row; got {sha256!r}. The rows, latest first: {known}. Name one of "
                "them."
            )
        _save(path, [replace(entry, public_value=value) if entry.sha256 == sha256 else entry for entry in entries])


def _hold(path: Path) -> contextlib.AbstractContextManager[None]:
    return hold_lock(
        path.with_name(f".{path.name}.lock"),
        f"{path}: another process has held this ledger for {_PATIENCE_SECONDS:.0f} s. Run the command again when it "
        "has ended.",
        wait_seconds=_PATIENCE_SECONDS,
    )


def _save(path: Path, entries: Iterable[LedgerEntry]) -> None:
    # backslashreplace: a path whose name is not UTF-8 must not cost the row
    with (
        write_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([_format(getattr(entry, name)) for name in _COLUMNS] for entry in entries)


def _format(value: str | float | None) -> str:
    if value is None:
        return ""
    return " ".join(value.splitlines()) if isinstance(value, str) else repr(float(value))


def _parse(row: list[str]) -> LedgerEntry:
    texts = dict(zip(_COLUMNS, row, strict=True))
    numbers = {name: float(text) if (text := texts.pop(name)) else None for name in _NUMBERS}
    return LedgerEntry(**texts, **numbers)  # type: ignore[arg-type]


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: {what}. Mend the file by hand, or move it away to begin another; it is left as it is."
    )
