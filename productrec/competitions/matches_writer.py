"""The submission CSV of matches: in each row the ids of an image's matches, written and checked before use."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from productrec.artifacts import compute_file_digest, write_file
from productrec.competitions.contract import Contract
from productrec.competitions.writer import Submission, load_sample_ids
from productrec.errors import SubmissionError, describe_offenders


def write_matches(
    out: Path, *, contract: Contract, matches: Mapping[str, Sequence[str]], sample: Path | None
) -> Submission:
    """Write the CSV of matches; it gets its name only after `check_matches` has passed it.

    Args:
        out: the CSV's place; an older file there is replaced on success and untouched otherwise.
        contract: what the competition wants.
        matches: by image id the ids that it matches, its own among them.
        sample: the sample submission, whose ids and order the CSV then has; None: the order of ``matches``.

    Raises:
        SubmissionError: ids, lists, sample and contract do not fit each other.
        StorageError: the disk refused.
    """
    separator = contract.label_separator
    unfit = [repr(name) for name in matches if not name or separator in name or "\n" in name or "\r" in name]
    if unfit:
        raise SubmissionError(
            f"{out}: image ids must be text of one line without the separator {separator!r}; "
            f"got {describe_offenders(unfit)}. Set another label_separator in the contract."
        )
    order = list(matches)
    if sample is not None:
        if sample.exists() and out.exists() and out.samefile(sample):
            raise SubmissionError(f"{out}: must differ from the sample submission; got its name. Choose another name.")
        order = load_sample_ids(sample, contract)
        _compare_with_sample(order, matches, sample, out)
    with write_file(out) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n", delimiter=contract.column_separator)
            writer.writerow((contract.id_column, contract.prediction_column))
            writer.writerows((name, separator.join(matches[name])) for name in order)
        check_matches(temporary, contract=contract, ids_expected=order, where=out)
        sha256 = compute_file_digest(temporary)
    return Submission(path=out, rows=len(order), sha256=sha256)


def check_matches(path: Path, *, contract: Contract, ids_expected: Iterable[str], where: Path | None = None) -> None:
    """Read a CSV of matches as a competition's server would and refuse it where the server would, or should.

    Args:
        path: the CSV.
        contract: what the competition wants.
        ids_expected: every image id that must be there, once; in any order.
        where: its name in a message; None for its own.

    Raises:
        SubmissionError: not UTF-8 CSV, another header, an id missing, extra or repeated, or a row whose list lacks the
            image's own id, is too long, or holds an id twice or one of no test image.
    """
    where = where or path
    expected = dict.fromkeys(ids_expected)
    seen: dict[str, None] = {}
    repeated, lonely, long, twice, foreign = list[str](), list[str](), list[str](), list[str](), list[str]()
    for name, cell in _read_cells(path, where, contract):
        if name in seen:
            repeated.append(name)
        seen[name] = None
        listed = cell.split(contract.label_separator)
        if name not in listed:
            lonely.append(name)
        if len(listed) > contract.most_matches:
            long.append(f"{name}: {len(listed)}")
        if len(set(listed)) < len(listed):
            twice.append(name)
        foreign += [f"{name}: {other!r}" for other in listed if other not in expected]
    findings = [
        ("ids must each be there once", "missing", [name for name in expected if name not in seen]),
        ("ids must be those of the test images", "extra", [name for name in seen if name not in expected]),
        ("ids must be unique", "repeated", repeated),
        ("a list must hold only ids of test images", "others", foreign),
        ("a list must hold the image's own id", "lists without it", lonely),
        (f"a list must hold at most {contract.most_matches} ids", "more", long),
        ("ids within a list must differ", "repeated", twice),
    ]
    for wanted, kind, offenders in findings:
        if offenders:
            raise SubmissionError(
                f"{where}: {wanted}; got {kind} {describe_offenders(offenders)}. Write the submission again."
            )


def _read_cells(path: Path, where: Path, contract: Contract) -> list[tuple[str, str]]:
    """(id, list) of each row below the right header; blank lines are passed over."""
    header = [contract.id_column, contract.prediction_column]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True, delimiter=contract.column_separator) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SubmissionError(f"{where}: must be a CSV file in UTF-8; got {reason}. Name another file.") from None
    if not rows or rows[0] != header:
        got = ",".join(rows[0])[:200] if rows else "an empty file"
        raise SubmissionError(f"{where}: header must be {','.join(header)}; got {got}. Choose the contract that fits.")
    wrong = [",".join(row)[:80] for row in rows[1:] if len(row) != 2]
    if wrong:
        raise SubmissionError(
            f"{where}: rows must have 2 fields; got others in {describe_offenders(wrong)}. Quote fields that hold a "
            "separator."
        )
    return [(row[0], row[1]) for row in rows[1:]]


def _compare_with_sample(order: Sequence[str], matches: Mapping[str, Sequence[str]], sample: Path, out: Path) -> None:
    wanted = set(order)
    missing, extra = [name for name in order if name not in matches], [name for name in matches if name not in wanted]
    if missing or extra:
        kinds = (("missing", missing), ("extra", extra))
        got = " and ".join(f"{kind} {describe_offenders(offenders)}" for kind, offenders in kinds if offenders)
        raise SubmissionError(
            f"{out}: images must be exactly those of {sample.name}; got {got}. "
            "Match the whole test split, with ids as the source writes them."
        )
