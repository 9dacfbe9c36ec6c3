"""The sample submission: its file, the form of CSV that it shows, the contract that follows, and what will not fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from productrec.competitions.contract import Contract
from productrec.delimited import read_delimited
from productrec.errors import DataError, SubmissionError, describe_offenders

_LABEL_SEPARATORS = (" ", "|", ";", ",")
_MOST_ROWS = 2000  # looked at for the number of labels
_CONFIDENCE = re.compile(r"0|1|0?\.\d+|1\.0*")
_USUAL_NAME = "sample_submission.csv"
_SAMPLE = re.compile(r"sample[ _-]?sub(mission)?s?\.(csv|tsv)$", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A sample submission as it lies on disk: its header, what parts its fields, its ids and its predictions by row.

    ``predictions`` is empty where there are not exactly two columns.
    """

    path: Path
    columns: list[str]
    separator: str
    ids: list[str]
    predictions: list[str]


@dataclass(frozen=True)
class LabelForm:
    """How many labels a row holds, at least and at most, what stands between them, and whether a confidence follows."""

    least: int
    most: int
    separator: str
    confidence: bool = False


def find_sample(source: Path, given: str | None = None) -> Path | None:
    """The sample submission among a source's files: ``given``, else the one that is named like one.

    Args:
        source: folder.
        given: its file name in the source, or a path of its own.

    Raises:
        DataError: ``given`` is no file, or several files are named like one.
    """
    if given is not None:
        chosen = next((path for path in (source / given, Path(given)) if path.is_file()), None)
        if chosen is None:
            tables = sorted(path.name for path in source.glob("*.csv"))
            raise DataError(
                f"{source / given}: must be the sample submission; no such file. "
                f"The CSV files of the source: {describe_offenders(tables)}. Name one of them with --sample, or none."
            )
        return chosen
    if (source / _USUAL_NAME).is_file():
        return source / _USUAL_NAME
    named = sorted(path for path in source.iterdir() if _SAMPLE.match(path.name) and path.is_file())
    if len(named) > 1:
        names = ", ".join(path.name for path in named)
        raise DataError(f"{source}: must hold one sample submission; got {names}. Name one with --sample.")
    return named[0] if named else None


def read_sample(path: Path) -> Sample:
    """Read a sample submission; ids are those of its first column, to the letter.

    Raises:
        SubmissionError: it cannot be read, or has no rows.
    """
    table = read_delimited(path, error=SubmissionError)
    if not table.rows:
        raise SubmissionError(
            f"{path}: must hold the test images' ids; got only a header. Download it again, "
            "or leave it out with --sample none."
        )
    has_two = len(table.columns) == 2
    return Sample(
        path=path,
        columns=table.columns,
        separator=table.separator,
        ids=table.get_column(table.columns[0]),
        predictions=[row[1] if len(row) > 1 else "" for row in table.rows] if has_two else [],
    )


def find_label_form(predictions: Sequence[str], known: Collection[str] = ()) -> LabelForm:
    """How the labels of a row are written, told by rows of which most are placeholders.

    Args:
        predictions: what stands in the sample's second column.
        known: names and ids of the classes, which may hold spaces.
    """
    known = set(known)
    texts = {text for text in predictions[:_MOST_ROWS] if text.strip()}
    if not texts or texts <= known:
        return LabelForm(1, 1, " ")
    split = {mark: [text.split(mark) for text in texts] for mark in _LABEL_SEPARATORS}
    for mark, rows in split.items():
        seconds = {row[1] for row in rows if len(row) == 2}
        if all(len(row) == 2 and _CONFIDENCE.fullmatch(row[1]) for row in rows) and any("." in one for one in seconds):
            return LabelForm(1, 1, mark, confidence=True)
    several = [mark for mark, rows in split.items() if any(len(row) > 1 for row in rows)]
    # A separator whose parts are classes is the one; else the first that every row holds equally often; else any.
    sure = [mark for mark in several if all(part in known for row in split[mark] for part in row)]
    even = [mark for mark in several if len({len(row) for row in split[mark]}) == 1 and all(map(all, split[mark]))]
    for mark in (*sure, *even, *several):
        counts = [len(row) for row in split[mark]]
        return LabelForm(min(counts), max(counts), mark)
    return LabelForm(1, 1, " ")


def adapt_contract(contract: Contract, sample: Sample, *, names: Sequence[str], ids: Sequence[str]) -> Contract:
    """The contract with headers, separators and number of labels of the sample, where it takes them from one.

    Args:
        contract: returned as it is unless it has ``adapts_to_sample``.
        sample: of `read_sample`; one that has not two columns changes nothing.
        names: of the classes.
        ids: of the classes, as texts; they are what a label is where the sample writes them rather than names.
    """
    if not contract.adapts_to_sample or len(sample.columns) != 2:
        return contract
    form = find_label_form(sample.predictions, {*names, *ids})
    several = form.most > 1
    labels = _list_labels(sample, form)
    changes = {
        "id_column": sample.columns[0],
        "prediction_column": sample.columns[1],
        "column_separator": sample.separator,
        "labels_per_image": form.most,
        "label_separator": form.separator if several or form.confidence else contract.label_separator,
        "confidence": form.confidence,
    }
    if labels and labels <= set(ids) and not labels <= set(names):
        changes["label_as"] = "id"
    return contract.model_copy(update=changes)


def find_misfits(
    contract: Contract,
    sample: Sample,
    *,
    names: Sequence[str],
    class_ids: Sequence[str],
    test_ids: Sequence[str] | None = None,
) -> list[str]:
    """What of a sample submission the CSV of a contract could not agree with, a sentence each; empty where all fits.

    Args:
        contract: adapted to the sample, where it adapts.
        sample: of `read_sample`.
        names: of the classes.
        class_ids: of the classes, as texts.
        test_ids: of the images that are predicted; None where they are not known.
    """
    where = sample.path.name
    if len(sample.columns) != 2:
        return [
            f"{where} has {len(sample.columns)} columns ({_shorten(sample.columns)}); productrec writes two, an id and "
            "its labels."
        ]
    misfits = []
    header = [contract.id_column, contract.prediction_column]
    if sample.columns != header:
        misfits.append(f"the header of {where} is {','.join(sample.columns)}; the contract writes {','.join(header)}.")
    if sample.separator != contract.column_separator:
        misfits.append(f"the fields of {where} stand between {sample.separator!r}, not {contract.column_separator!r}.")
    if contract.answers == "classes":  # a cell of matches holds as many ids as there are
        misfits += _find_label_misfits(contract, sample, names, class_ids)
    if len(set(sample.ids)) < len(sample.ids):
        misfits.append(f"ids stand more than once in {where}.")
    if test_ids is not None:
        known = set(sample.ids)
        extra = [image_id for image_id in test_ids if image_id not in known]
        if extra:
            misfits.append(f"test images that {where} does not list: {describe_offenders(extra)}.")
        tests = set(test_ids)
        missing = [image_id for image_id in sample.ids if image_id not in tests]
        if missing:
            misfits.append(f"ids of {where} are not test images: {describe_offenders(missing)}.")
    return misfits


def build_contract(sample: Sample, *, name: str, labels_per_image: int | None = None) -> Contract:
    """A contract that a sample submission shows; its metric is a guess.

    Args:
        sample: of `read_sample`.
        name: of the contract.
        labels_per_image: where the sample's rows do not tell it.

    Raises:
        SubmissionError: the sample is of no form that a contract can say.
    """
    form = find_label_form(sample.predictions)
    if labels_per_image is not None:
        form = LabelForm(labels_per_image, labels_per_image, form.separator if labels_per_image > 1 else " ")
    if len(sample.columns) != 2:
        raise SubmissionError(
            f"{sample.path}: must have two columns, ids and labels; got {len(sample.columns)} "
            f"({_shorten(sample.columns)}). productrec writes no other CSV."
        )
    if form.least != form.most:
        raise SubmissionError(
            f"{sample.path}: every row must hold as many labels; got from {form.least} to {form.most} with "
            f"{form.separator!r} between them. If that is part of a name, say how many with --labels."
        )
    several = form.most > 1
    return Contract(
        name=re.sub(r"[^A-Za-z0-9._+-]", "-", name).strip("-.") or "mine",
        title=name,
        sample_submission=sample.path.name,
        trainable_splits=("train", "val"),
        metric="global_average_precision" if form.confidence else "top_k_error" if several else "top_1_accuracy",
        metric_k=form.most,
        id_column=sample.columns[0],
        prediction_column=sample.columns[1],
        column_separator=sample.separator,
        labels_per_image=form.most,
        label_separator=form.separator,
        confidence=form.confidence,
        allows_empty=0 < sum(not text for text in sample.predictions) < len(sample.predictions),
        label_as="name",
    )


def _find_label_misfits(
    contract: Contract, sample: Sample, names: Sequence[str], class_ids: Sequence[str]
) -> list[str]:
    """See `find_misfits`, of the labels that rows hold."""
    where = sample.path.name
    misfits = []
    form = find_label_form(sample.predictions, {*names, *class_ids})
    if form.least != form.most:
        misfits.append(
            f"rows of {where} hold from {form.least} to {form.most} labels; productrec writes the same number in each."
        )
    elif form.most > 1 and (form.most, form.separator) != (contract.labels_per_image, contract.label_separator):
        misfits.append(
            f"rows of {where} hold {form.most} labels with {form.separator!r} between them; the contract writes "
            f"{contract.labels_per_image}, with {contract.label_separator!r}."
        )
    if form.confidence != contract.confidence and any(text.strip() for text in sample.predictions):
        kinds = ("a label and its confidence", "labels alone")
        shows, writes = kinds if form.confidence else kinds[::-1]
        misfits.append(f"rows of {where} hold {shows}; the contract writes {writes}.")
    written, other = (names, class_ids) if contract.label_as == "name" else (class_ids, names)
    shown = _list_labels(sample, form)
    if shown and shown <= set(other) and not shown & set(written):
        kinds = ("names", "id") if contract.label_as == "name" else ("ids", "name")
        misfits.append(f"labels of {where} are not the classes' {kinds[0]}; label_as must be {kinds[1]}.")
    if len(names) and contract.labels_per_image > len(names):
        misfits.append(f"a row holds {contract.labels_per_image} labels, but there are only {len(names)} classes.")
    joined = [label for label in written if contract.splits_cells and contract.label_separator in label]
    if joined:
        misfits.append(f"classes hold the separator {contract.label_separator!r}: {describe_offenders(joined)}.")
    return misfits


def _list_labels(sample: Sample, form: LabelForm) -> set[str]:
    texts = {text for text in sample.predictions[:_MOST_ROWS] if text.strip()}
    if form.confidence:
        return {text.split(form.separator)[0] for text in texts}
    return {label for text in texts for label in (text.split(form.separator) if form.most > 1 else [text])}


def _shorten(columns: Sequence[str], most: int = 5) -> str:
    return ", ".join(columns[:most]) + (", ..." if len(columns) > most else "")
