"""The ledger of submissions: one CSV row a file, so that a public score can be traced to the recipe that earned it.

Written by the submit stage after `writer`; what an upload came to, and the scores, are added as they become known. A
file that is uploaded again gets another row.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from productrec.artifacts import write_file
from productrec.errors import ArtifactError, SubmissionError, describe_offenders
from productrec.locking import hold_lock

UPLOADING, FAILED, PENDING, COMPLETE, ERROR = "uploading", "failed", "pending", "complete", "error"
_NUMBERS = ("validation_value", "public_value", "private_value")
_TIMES = ("written_at", "uploaded_at")
_PATIENCE_SECONDS = 60.0  # a row is written in milliseconds
_OF_UPLOAD = ("slug", "uploaded_at", "reference", "status", "message", "error")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One submission; the fields are the ledger's columns, in order.

    ``written_at`` and ``uploaded_at`` are UTC in ISO 8601, the latter empty before an upload; ``sha256`` of the CSV's
    bytes, lower-case hex; ``source`` says where the probabilities came from, ``weights`` those of an ensemble's
    members; ``validation_value``, ``public_value`` and ``private_value`` are finite, or None while unknown. ``slug`` is
    the competition's name where it was uploaded, ``reference`` the submission's number there, ``status`` what became of
    it (`UPLOADING` until the server has answered), ``message`` what was said with it, ``error`` why it has no score. A
    line break in a text is stored as a space.

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
    weights: str = ""
    private_value: float | None = None
    slug: str = ""
    uploaded_at: str = ""
    reference: str = ""
    status: str = ""
    message: str = ""
    error: str = ""

    def __post_init__(self) -> None:
        for name in _TIMES:
            text = getattr(self, name)
            if not _is_utc(text) and (text or name == "written_at"):
                raise SubmissionError(
                    f"ledger entry: {name} must be a UTC time such as {_now()}; got {text!r}. Mend it."
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
_FIRST_COLUMNS = _COLUMNS[: _COLUMNS.index("note") + 1]  # all that ledgers had before there were uploads


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
            if header not in (_COLUMNS, _FIRST_COLUMNS):
                raise _damaged(path, f"header must be {','.join(_COLUMNS)}; got {','.join(header)[:200] or 'nothing'}")
            entries = []
            for row in reader:
                if len(row) != len(header):
                    raise _damaged(path, f"line {reader.line_num} must have {len(header)} fields; got {len(row)}")
                try:
                    entries.append(_parse(dict(zip(header, row, strict=True))))
                except (SubmissionError, ValueError) as error:
                    raise _damaged(
                        path, f"line {reader.line_num} must be a ledger entry; got {str(error).rstrip('.')}"
                    ) from None
            return entries
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, f"ledger must be a CSV file in UTF-8; got {error}") from None


def change_ledger(path: Path, change: Callable[[LedgerEntry], LedgerEntry]) -> list[LedgerEntry]:
    """Put ``change(entry)`` in the place of every row; the rows as they are now.

    Raises:
        ArtifactError: the ledger is damaged, and left as it is; or another process held it for too long.
        StorageError: the disk refused; the ledger is as it was.
    """
    with _hold(path):
        entries = load_ledger(path)
        changed = [change(entry) for entry in entries]
        if changed != entries:
            _save(path, changed)
    return changed


def begin_upload(path: Path, entry: LedgerEntry) -> None:
    """Note that a file is on its way: in its row where that has no upload yet, else in a row of its own.

    Args:
        path: of the ledger.
        entry: as it shall be; where the file has a row, all but what tells of an upload is that row's.
    """
    with _hold(path):
        entries = load_ledger(path)
        rows = [number for number, known in enumerate(entries) if known.sha256 == entry.sha256]
        free = [number for number in rows if not entries[number].reference]
        told = {name: getattr(entry, name) for name in _OF_UPLOAD}
        if free:
            entries[free[-1]] = replace(entries[free[-1]], **told)
        elif rows:
            entries.append(replace(entries[rows[-1]], public_value=None, private_value=None, **told))
        else:
            entries.append(entry)
        _save(path, entries)


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


def _is_utc(text: str) -> bool:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return time.tzinfo is not None and not time.utcoffset()


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


def _parse(texts: dict[str, str]) -> LedgerEntry:
    numbers = {name: float(text) if (text := texts.pop(name, "")) else None for name in _NUMBERS}
    return LedgerEntry(**texts, **numbers)  # type: ignore[arg-type]


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: {what}. Mend the file by hand, or move it away to begin another; it is left as it is."
    )
