"""The submission CSV: the most probable labels of each image, written as the contract wants and checked before use.

Last step of the flow: class probabilities in, a file that the competition's server takes out. Ids are text from end
to end (``000123`` and ``NA`` stay as they are), so files are read and written with `csv`, never with inference.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from productrec.artifacts import compute_file_digest, write_file
from productrec.competitions.checker import check_csv
from productrec.competitions.contract import Contract
from productrec.errors import SubmissionError, describe_offenders

_ROUNDING = 1e-3  # above 1, of a probability in float16
_BITS: dict[int, np.dtype[Any]] = {2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


@dataclass(frozen=True)
class Submission:
    """A written and checked CSV: its place, its rows without the header, the SHA-256 of its bytes."""

    path: Path
    rows: int
    sha256: str


def choose_top_labels(
    probabilities: npt.NDArray[np.floating], count: int, *, block_rows: int = 512
) -> npt.NDArray[np.int64]:
    """Positions of the ``count`` most probable classes of each row, best first; equal ones by position.

    Works on the bits of the numbers as integers, which have the same order and compare about ten times as fast as
    float16 does; block by block, so that a memory map is never read whole.

    Args:
        probabilities: (N, C) float16, float32 or float64, finite; may be a memory map.
        count: how many classes, 1 to C.
        block_rows: rows held in memory at once.

    Returns:
        (N, count) positions in 0 to C - 1.

    Raises:
        SubmissionError: a number is not finite, or the shape, type or ``count`` does not fit.
    """
    if probabilities.ndim != 2 or probabilities.dtype.kind != "f" or probabilities.dtype.itemsize not in _BITS:
        raise SubmissionError(
            "submission: probabilities must be a float16, float32 or float64 table of (images, classes); "
            f"got {probabilities.dtype} of shape {probabilities.shape}. Make them again with the classify stage."
        )
    rows, classes = probabilities.shape
    if not 1 <= count <= classes:
        raise SubmissionError(
            f"submission: labels_per_image must be between 1 and the number of classes; got {count} and {classes}. "
            "Use a model that knows more classes, or a contract that wants fewer labels."
        )
    bits = _BITS[probabilities.dtype.itemsize]
    infinity = np.array(np.inf, dtype=probabilities.dtype.newbyteorder("=")).view(bits)
    lowest = np.iinfo(bits).min
    top = np.empty((rows, count), dtype=np.int64)
    broken: list[int] = []
    for start in range(0, rows, block_rows):
        keys = _to_ordered_bits(probabilities[start : start + block_rows], bits)
        # +inf and NaN lie at and beyond infinity's bits; the negative ones mirror that.
        bad = (keys.max(axis=1) >= infinity) | (keys.min(axis=1) <= ~infinity)
        broken.extend((start + np.flatnonzero(bad)).tolist())
        every = np.arange(len(keys))
        for rank in range(count):
            best = keys.argmax(axis=1)  # the first of equals, hence the lower position
            top[start : start + len(keys), rank] = best
            keys[every, best] = lowest
    if broken:
        raise SubmissionError(
            f"submission: probabilities must be finite; got NaN or infinity in rows {describe_offenders(broken)}. "
            "Find the stage that made them and run it again."
        )
    return top


def write_submission(
    out: Path,
    *,
    contract: Contract,
    ids: Sequence[str],
    probabilities: npt.NDArray[np.floating],
    class_labels: Sequence[str],
    sample: Path | None,
    doubted: Collection[str] | None = None,
) -> Submission:
    """Write the CSV of the most probable labels; it gets its name only after `check_csv` has passed it.

    Args:
        out: the CSV's place; an older file there is replaced on success and untouched otherwise.
        contract: what the competition wants.
        ids: (N,) image ids, unique.
        probabilities: (N, C) finite floats, rows as in ``ids``; may be a memory map.
        class_labels: (C,) what each class is called in the CSV: its id or its name, as ``contract.label_as`` says.
        sample: the sample submission, whose header, ids and order the CSV then has; None: the order of ``ids``.
        doubted: ids of images that are taken to be of no known class, for which the contract has a label: it leads
            their rows, and stands second in all others; None: it stands nowhere. Nor does it where a class is called
            so, which then speaks for itself.

    Raises:
        SubmissionError: ids, labels, probabilities, sample and contract do not fit each other.
        StorageError: the disk refused.
    """
    _check_texts(ids, what="image ids", where=out)
    _check_texts(class_labels, what="class labels", where=out)
    if probabilities.shape != (len(ids), len(class_labels)):
        raise SubmissionError(
            f"{out}: probabilities must have one row an id and one column a class ({len(ids)}, {len(class_labels)}); "
            f"got {probabilities.shape}. Take ids, classes and probabilities from the same artefact."
        )
    wanted = contract.labels_per_image
    joined = [label for label in class_labels if contract.splits_cells and contract.label_separator in label]
    if joined:
        raise SubmissionError(
            f"{out}: class labels must not hold the separator {contract.label_separator!r}; "
            f"got {describe_offenders(map(repr, joined))}. Set label_as to id, or another label_separator."
        )
    order: Sequence[str] = ids
    if sample is not None:
        if sample.exists() and out.exists() and out.samefile(sample):
            raise SubmissionError(f"{out}: must differ from the sample submission; got its name. Choose another name.")
        order = load_sample_ids(sample, contract)
        missing, extra = _compare_ids(order, ids)
        if missing or extra:
            kinds = (("missing", missing), ("extra", extra))
            got = " and ".join(f"{kind} {describe_offenders(offenders)}" for kind, offenders in kinds if offenders)
            raise SubmissionError(
                f"{out}: images must be exactly those of {sample.name}; got {got}. "
                "Predict the whole test split, with ids as the source writes them."
            )
    is_told = doubted is not None and not contract.confidence and contract.unknown_label not in class_labels
    unknown = contract.unknown_label if is_told else None
    top = choose_top_labels(probabilities, wanted if unknown is None else max(1, wanted - 1))
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    chosen = top[[row_of[image_id] for image_id in order]].tolist()
    away = set(doubted or ())

    def name_labels(image_id: str, positions: list[int]) -> list[str]:
        named = [class_labels[position] for position in positions]
        if unknown is not None:
            named.insert(0 if image_id in away else 1, unknown)
        return named[:wanted]

    lines = (
        (image_id, contract.label_separator.join(name_labels(image_id, positions)))
        for image_id, positions in zip(order, chosen, strict=True)
    )
    if contract.confidence:
        sure = _format_confidences(probabilities, top[:, 0], where=out)
        lines = ((image_id, f"{cell}{contract.label_separator}{sure[row_of[image_id]]}") for image_id, cell in lines)
    return write_checked(out, lines, contract=contract, ids=order, labels=class_labels)


def write_checked(
    out: Path,
    lines: Iterable[tuple[str, str]],
    *,
    contract: Contract,
    ids: Sequence[str],
    labels: Collection[str] | None,
) -> Submission:
    """Write ids with their cells below the contract's header; the file gets its name once `check_csv` has passed it.

    Raises:
        SubmissionError: it has not; an older file of that name is untouched.
        StorageError: the disk refused.
    """
    with write_file(out) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n", delimiter=contract.column_separator)
            writer.writerow((contract.id_column, contract.prediction_column))
            writer.writerows(lines)
        report = check_csv(temporary, contract=contract, ids=ids, labels=labels)
        if not report.is_sound:
            raise SubmissionError(
                f"{out}: must be what {contract.title} accepts; got {report.summarise()}. Write the submission again."
            )
        sha256 = compute_file_digest(temporary)
    return Submission(path=out, rows=len(ids), sha256=sha256)


def load_sample_ids(path: Path, contract: Contract) -> list[str]:
    """Image ids of a sample submission, in its order.

    Raises:
        SubmissionError: it cannot be read, has other columns, no rows, or an id twice.
    """
    ids = [image_id for image_id, _ in _read_rows(path, where=path, contract=contract, encoding="utf-8-sig")]
    if not ids:
        raise SubmissionError(f"{path}: must hold the test images' ids; got only a header. Download it again.")
    repeated = _find_repeated(ids)
    if repeated:
        raise SubmissionError(
            f"{path}: ids must be unique; got repeated {describe_offenders(repeated)}. Download the sample again."
        )
    return ids


def _format_confidences(
    probabilities: npt.NDArray[np.floating], chosen: npt.NDArray[np.int64], *, where: Path
) -> list[str]:
    """The probability of each row's chosen class, as the shortest decimals that no other number of its type has."""
    values = probabilities[np.arange(len(chosen)), chosen]
    outside = np.flatnonzero((values < 0) | (values > 1 + _ROUNDING))
    if len(outside):
        raise SubmissionError(
            f"{where}: probabilities must lie between 0 and 1 to be written as confidences; got others in rows "
            f"{describe_offenders(outside.tolist())}. Find the stage that made them and run it again."
        )
    return [np.format_float_positional(abs(min(value, value.dtype.type(1))), trim="0") for value in values]


def _to_ordered_bits(
    block: npt.NDArray[np.floating], bits: np.dtype[np.signedinteger]
) -> npt.NDArray[np.signedinteger]:
    """A fresh array of integers in the order of the floats; equal floats, -0.0 and 0.0 too, give equal integers."""
    fresh = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")
    keys: npt.NDArray[np.signedinteger] = fresh.view(bits)
    if keys.min(initial=0) < 0:  # a sign bit is set, which no probability should have: the slower, general way
        keys = (fresh + fresh.dtype.type(0)).view(bits)  # adding zero makes -0.0 into 0.0
        negative = keys < 0
        keys[negative] ^= np.iinfo(bits).max  # the larger the magnitude of a negative number, the lower it is
    return keys


def _read_rows(path: Path, *, where: Path, contract: Contract, encoding: str) -> Iterator[tuple[str, str]]:
    """Yield (id, prediction) of each row below the right header; blank lines are passed over, as servers do."""
    header = [contract.id_column, contract.prediction_column]
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=contract.column_separator)
            first = next(reader, None)
            if first != header:
                got = "an empty file" if first is None else ",".join(first)[:200]
                raise SubmissionError(
                    f"{where}: header must be {','.join(header)}; got {got}. Choose the contract that fits this file, "
                    "or have `productrec competitions new --from FILE` write one."
                )
            for fields in reader:
                if len(fields) == 2:
                    yield fields[0], fields[1]
                elif fields:
                    raise SubmissionError(
                        f"{where}: line {reader.line_num} must have 2 fields; got {len(fields)}. "
                        "Quote fields that hold a separator."
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SubmissionError(f"{where}: must be a CSV file in UTF-8; got {reason}. Name another file.") from None


def _compare_ids(expected: Iterable[str], got: Iterable[str]) -> tuple[list[str], list[str]]:
    """(missing, extra) ids, each in its own order."""
    expected, got = dict.fromkeys(expected), dict.fromkeys(got)
    return [name for name in expected if name not in got], [name for name in got if name not in expected]


def _find_repeated(texts: Iterable[str]) -> list[str]:
    return [text for text, times in Counter(texts).items() if times > 1]


def _check_texts(texts: Sequence[str], *, what: str, where: Path) -> None:
    """Refuse ids or labels that a CSV cannot carry to a server and back."""
    unfit = [repr(text) for text in texts if not _is_writable(text)]
    if unfit:
        raise SubmissionError(
            f"{where}: {what} must be text of one line, not empty, without NUL; got {describe_offenders(unfit)}. "
            "Keep them as the source writes them."
        )
    repeated = _find_repeated(texts)
    if repeated:
        raise SubmissionError(
            f"{where}: {what} must be unique; got repeated {describe_offenders(repeated)}. "
            "Leave one of each, or name them differently."
        )


def _is_writable(text: object) -> bool:
    if not isinstance(text, str) or not text.strip() or any(mark in text for mark in "\n\r\0"):
        return False
    try:
        text.encode()  # a file name that was not UTF-8 comes as lone surrogates, which no CSV can hold
    except UnicodeEncodeError:
        return False
    return True
