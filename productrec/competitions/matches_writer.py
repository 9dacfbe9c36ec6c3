"""The submission CSV of matches: in each row the ids of an image's matches, written and checked before use."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from productrec.artifacts import compute_file_digest, write_file
from productrec.competitions.checker import check_csv
from productrec.competitions.contract import Contract
from productrec.competitions.writer import Submission, load_sample_ids
from productrec.errors import SubmissionError, describe_offenders


def write_matches(
    out: Path, *, contract: Contract, matches: Mapping[str, Sequence[str]], sample: Path | None
) -> Submission:
    """Write the CSV of matches; it gets its name only after `check_csv` has passed it.

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
        report = check_csv(temporary, contract=contract, ids=order, labels=None)
        if not report.is_sound:
            raise SubmissionError(
                f"{out}: must be what {contract.title} accepts; got {report.summarise()}. Match the images again."
            )
        sha256 = compute_file_digest(temporary)
    return Submission(path=out, rows=len(order), sha256=sha256)


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
