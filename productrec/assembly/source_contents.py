"""What a source says before any image is looked at: rows, classes, sample submission; for ingest and its looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from productrec.artifacts import load_manifest
from productrec.competitions.contract import Contract
from productrec.competitions.sample import (
    Sample,
    adapt_contract,
    find_label_form,
    find_misfits,
    find_sample,
    read_sample,
)
from productrec.console import warn
from productrec.data.class_keys import identify_classes
from productrec.data.curation.differences import Differences, compare_tables
from productrec.data.curation.distractors import find_distractors, set_apart
from productrec.data.sources.class_numbers import keep_class_numbers
from productrec.data.sources.files import find_image_root
from productrec.data.sources.format import ReadOptions
from productrec.data.sources.reading import read_source
from productrec.data.sources.rows import SourceRows
from productrec.data.table import DISTRACTORS, KIND, ImageTable, check_table
from productrec.errors import ArtifactError, describe_error
from productrec.recipe.data import DataSettings

NO_SAMPLE = "none"


@dataclass(frozen=True)
class SourceContents:
    """A source's images (files and states still to be found) and classes, and how they were contents.

    ``contract`` has the sample's form, where it adapts; ``misfits`` are what the CSV of that contract could not agree
    with; ``numbered``: class ids are numbers given to names; ``free_class_id`` is above every class id the table has
    ever had.
    """

    folder: Path
    format: str
    images: pd.DataFrame
    classes: pd.DataFrame
    sample: Path | None
    contract: Contract
    numbered: bool
    free_class_id: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def read_contents(
    source: Path, format_name: str, out: Path, *, data: DataSettings, contract: Contract, sample: str | None
) -> SourceContents:
    """Read an unpacked source; classes that the table at ``out`` knows by name keep their numbers.

    Args:
        source: folder.
        format_name: of it.
        out: folder of the table.
        data: columns, margins.
        contract: what the competition wants.
        sample: file name or path of the sample submission; None for the usual one, `NO_SAMPLE` for none.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table; there is no such sample.
        SubmissionError: the sample cannot be read.
    """
    path = _find_sample(source, contract, sample)
    options = ReadOptions(
        id_column=data.id_column,
        label_column=data.label_column,
        file_column=data.file_column,
        sample=path,
        box_margin=data.box_margin,
    )
    rows = read_source(source, format_name, options)
    read = None if path is None else read_sample(path)
    if read is not None:
        _take_test_ids(rows, read, given=sample is not None)
    free_class_id = _keep_numbers(rows, out)
    images, classes = rows.build_frames()
    free_class_id = max([free_class_id, *(int(class_id) + 1 for class_id in classes["id"])])
    notes, misfits = list(rows.notes), []
    apart = find_distractors(classes, data.distractors, contract.unknown_label, str(source), numbered=rows.numbered)
    if apart:
        images, classes = set_apart(images, classes, apart)
        count = int((images["split"] == DISTRACTORS).sum())
        notes.append(f"{count:,} images of {', '.join(apart.values())} are of no class: distractors, not trained on")
    check_table(images, classes, str(source))
    if read is not None:
        names = [str(name) for name in classes["name"]]
        # Numbers that a reader gave to names mean nothing to whoever scores the CSV.
        ids = [] if rows.numbered else [str(class_id) for class_id in classes["id"]]
        contract = adapt_contract(contract, read, names=names, ids=ids)
        tests = images.loc[images["split"] == "test", "image_id"].tolist()
        misfits = find_misfits(contract, read, names=names, class_ids=ids, test_ids=tests)
        notes.append(_describe_sample(read, [*names, *ids]))
    return SourceContents(
        folder=source,
        format=format_name,
        images=images,
        classes=classes,
        sample=path,
        contract=contract,
        numbered=rows.numbered,
        free_class_id=free_class_id,
        notes=notes,
        warnings=list(rows.warnings),
        misfits=misfits,
    )


def compare_to_table(table: ImageTable, images: pd.DataFrame, classes: pd.DataFrame) -> Differences:
    """What changed from a table to a source as it is now; val that the table held out itself counts as train."""
    return compare_tables(
        (table.images, table.classes), (images, classes), splits=bool((images["split"] == "val").any())
    )


def find_root(contents: SourceContents, out: Path, data: DataSettings) -> Path:
    """The folder that image paths are relative to."""
    return out.parent / f"{out.name}.images" if data.download else find_image_root(contents.folder, data.images)


def describe_misfits(contents: SourceContents) -> str:
    """One line of what will not fit at submit, and what to do."""
    sample, contract = contents.sample, contents.contract
    assert sample is not None
    mend = "Mend the source. Or"
    if not contract.adapts_to_sample:
        mend = f"`productrec competitions new --from {sample}` writes a contract that fits, for competition. Or"
    return (
        f"{sample}: the contract {contract.name} cannot write a CSV that agrees with it: "
        f"{' '.join(contents.misfits)} {mend} leave the sample out with submit.sample=none (--sample none)."
    )


def _find_sample(source: Path, contract: Contract, given: str | None) -> Path | None:
    if given == NO_SAMPLE:
        return None
    if given is None and contract.sample_submission and (source / contract.sample_submission).is_file():
        return source / contract.sample_submission
    return find_sample(source, given)


def _take_test_ids(rows: SourceRows, sample: Sample, *, given: bool) -> None:
    """Test rows for the sample's ids; ids that share nothing with the source's own test images are left alone."""
    tests = {image_id for image_id, split in zip(rows.image_id, rows.split, strict=True) if split == "test"}
    stems = {image_id.rpartition(".")[0] or image_id for image_id in tests} | tests
    if tests and not given and not any(image_id in stems for image_id in sample.ids):
        return
    before = len(rows.image_id)
    rows.add_test_ids(dict.fromkeys(sample.ids))
    added = len(rows.image_id) - before
    if added:
        rows.notes.append(f"{sample.path.name}: {added:,} ids that no other file lists became test images")


def _keep_numbers(rows: SourceRows, out: Path) -> int:
    """Let classes keep the numbers they have in the table at ``out``; the first number that none ever had."""
    if not rows.numbered or not (out / "manifest.json").exists():
        return 0
    try:
        noted = load_manifest(out, kind=KIND).notes.get("free_class_id", 0)
        classes = pd.read_parquet(out / "classes.parquet")
    except (ArtifactError, OSError, ValueError) as error:  # a damaged table, or another artefact
        warn(f"{out}: its classes cannot be read ({describe_error(error)}); names are numbered anew.")
        return 0
    known = {identity: number for number, identity in identify_classes(classes).items()}
    free = max([int(noted), *(number + 1 for number in known.values())])
    return free if keep_class_numbers(rows, known, free) else 0


def _describe_sample(sample: Sample, known: list[str]) -> str:
    form = find_label_form(sample.predictions, known)
    labels = f"{form.most} label{'s' * (form.most > 1)}{' with its confidence' * form.confidence}"
    if form.least != form.most:
        labels = f"from {form.least} to {form.most} labels"
    return (
        f"{sample.path.name}: sample submission, ids in {sample.columns[0]}, {labels} a row in "
        f"{', '.join(sample.columns[1:4]) or 'no column'}, {len(sample.ids):,} rows"
    )
