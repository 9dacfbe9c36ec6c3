"""What a source says before any image is looked at: rows, classes, sample submission; for ingest and its looks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from productrec.artifacts import load_manifest
from productrec.assembly.files import read_rows, unpack_source
from productrec.competitions.contract import Contract
from productrec.competitions.sample import Sample, adapt_contract, find_label_form, find_misfits, read_sample
from productrec.console import warn
from productrec.data.curation.differences import Differences, compare_tables
from productrec.data.sources.class_numbers import keep_class_numbers
from productrec.data.sources.rows import SourceRows, find_image_root, find_sample
from productrec.data.table import KIND, ImageTable, check_table, identify_classes
from productrec.errors import ArtifactError
from productrec.recipe.data import DataSettings

NO_SAMPLE = "none"


@dataclass(frozen=True)
class Understood:
    """A source's images (files and states still to be found) and classes, and how they were understood.

    ``contract`` has the sample's form, where it adapts; ``misfits`` are what the CSV of that contract could not agree
    with; ``free_class_id`` is above every class id the table has ever had.
    """

    folder: Path
    layout: str
    images: pd.DataFrame
    classes: pd.DataFrame
    sample: Path | None
    contract: Contract
    free_class_id: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)


def understand_source(
    source: Path, layout: str, out: Path, *, data: DataSettings, contract: Contract, sample: str | None
) -> Understood:
    """Read an unpacked source; classes that the table at ``out`` knows by name keep their numbers.

    Args:
        source: folder.
        layout: of it.
        out: folder of the table.
        data: columns, margins.
        contract: what the competition wants.
        sample: file name or path of the sample submission; None for the usual one, `NO_SAMPLE` for none.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table; there is no such sample.
        SubmissionError: the sample cannot be read.
    """
    path = _find_sample(source, contract, sample)
    rows = read_rows(source, layout, data, path)
    read = None if path is None else read_sample(path)
    if read is not None:
        _take_test_ids(rows, read, given=sample is not None)
    free_class_id = _keep_numbers(rows, out)
    images, classes = rows.build_frames()
    check_table(images, classes, str(source))
    notes, misfits = list(rows.notes), []
    if read is not None:
        names = [str(name) for name in classes["name"]]
        # Numbers that a reader gave to names mean nothing to whoever scores the CSV.
        ids = [] if rows.numbered else [str(class_id) for class_id in classes["id"]]
        contract = adapt_contract(contract, read, names=names, ids=ids)
        tests = images.loc[images["split"] == "test", "image_id"].tolist()
        misfits = find_misfits(contract, read, names=names, class_ids=ids, test_ids=tests)
        notes.append(_describe_sample(read, [*names, *ids]))
    return Understood(
        folder=source,
        layout=layout,
        images=images,
        classes=classes,
        sample=path,
        contract=contract,
        free_class_id=max([free_class_id, *(int(class_id) + 1 for class_id in classes["id"])]),
        notes=notes,
        warnings=list(rows.warnings),
        misfits=misfits,
    )


@contextmanager
def unpack_to_look(source: Path, out: Path, data: DataSettings) -> Iterator[tuple[Path, str]]:
    """The folder and layout of a source; what must be unpacked for it is removed at the end, unless ingest left it."""
    kept = out.parent / f"{out.name}.unpacked" / "manifest.json"
    if kept.is_file() and kept.stat().st_mtime_ns > _find_newest(source):
        yield unpack_source(source, out, data)
        return
    there = next(folder for folder in out.absolute().parents if folder.is_dir())  # as large as the table's own disk
    with tempfile.TemporaryDirectory(prefix=".productrec-look-", dir=there) as folder:
        yield unpack_source(source, Path(folder) / out.name, data)


def compare_to_table(table: ImageTable, images: pd.DataFrame, classes: pd.DataFrame) -> Differences:
    """What changed from a table to a source as it is now; val that the table held out itself counts as train."""
    return compare_tables(
        (table.images, table.classes), (images, classes), splits=bool((images["split"] == "val").any())
    )


def _find_newest(source: Path) -> int:
    """When a source's archive, or the latest of the files right in its folder, was written, in ns."""
    files = [source] if source.is_file() else source.iterdir() if source.is_dir() else []
    return max((path.stat().st_mtime_ns for path in files if path.is_file()), default=0)


def find_root(understood: Understood, out: Path, data: DataSettings) -> Path:
    """The folder that image paths are relative to."""
    return out.parent / f"{out.name}.images" if data.download else find_image_root(understood.folder, data.images)


def describe_misfits(understood: Understood) -> str:
    """One line of what will not fit at submit, and what to do."""
    sample, contract = understood.sample, understood.contract
    assert sample is not None
    mend = "Mend the source. Or"
    if not contract.adapts_to_sample:
        mend = f"`productrec competitions new --from {sample}` writes a contract that fits, for competition. Or"
    return (
        f"{sample}: the contract {contract.name} cannot write a CSV that agrees with it: "
        f"{' '.join(understood.misfits)} {mend} leave the sample out with submit.sample=none (--sample none)."
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
        warn(f"{out}: its classes cannot be read ({str(error).splitlines()[0][:120]}); names are numbered anew.")
        return 0
    known = {identity: number for number, identity in identify_classes(classes).items()}
    free = max([int(noted), *(number + 1 for number in known.values())])
    return free if keep_class_numbers(rows, known, free) else 0


def _describe_sample(sample: Sample, known: list[str]) -> str:
    form = find_label_form(sample.predictions, known)
    labels = f"{form.most} label{'s' * (form.most > 1)}"
    if form.least != form.most:
        labels = f"from {form.least} to {form.most} labels"
    return (
        f"{sample.path.name}: sample submission, ids in {sample.columns[0]}, {labels} a row in "
        f"{', '.join(sample.columns[1:4]) or 'no column'}, {len(sample.ids):,} rows"
    )
