"""The submission CSV of matches: in each row the ids of an image's matches, written and checked before use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from productrec.competitions.contract import Contract
from productrec.competitions.writer import Submission, load_sample_ids, write_checked
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
    lines = ((name, separator.join(matches[name])) for name in order)
    return write_checked(out, lines, contract=contract, ids=order, labels=None)


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
