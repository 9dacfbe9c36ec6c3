"""Looks at a source that write nothing: what ingest would understand of it, and what changed since a table was made."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from productrec.artifacts import load_manifest
from productrec.assembly.image_files import inspect_files
from productrec.assembly.source_contents import (
    SourceContents,
    compare_to_table,
    describe_misfits,
    find_root,
    read_contents,
)
from productrec.assembly.source_folder import unpack_to_look
from productrec.competitions.contract import Contract, load_contract
from productrec.console import say, warn
from productrec.data.curation.differences import Differences, compare_tables
from productrec.data.curation.findings import apply_findings, read_findings
from productrec.data.download.terms import get_file_name
from productrec.data.sources.files import find_paths
from productrec.data.table import KIND, ImageTable, find_findings, load_table
from productrec.errors import ArtifactError, SubmissionError
from productrec.recipe.data import DataSettings

_EXPLAINED_ROWS = 3


def explain_source(
    source: Path,
    out: Path,
    *,
    data: DataSettings,
    contract: Contract | None = None,
    sample: str | None = None,
    must_fit: bool = False,
) -> None:
    """Say what is understood of a source and what its first rows would be; what ingest would refuse is refused.

    Args:
        source: folder or archive, which is unpacked to a folder that is removed again.
        out: folder of the table that would be made.
        data: format, columns, image folder.
        contract: what the competition wants; None for the plain one.
        sample: file name or path of the sample submission; None for the usual one.
        must_fit: refuse a sample that the contract cannot agree with.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table.
        SubmissionError: the sample cannot be read, or does not fit and must.
    """
    with unpack_to_look(source, out, data) as (folder, format_name):
        contract = contract or load_contract("plain")
        contents = read_contents(folder, format_name, out, data=data, contract=contract, sample=sample)
        images = contents.images
        paths = None if data.download else find_paths(images, find_root(contents, out, data))
    say(f"{source}: format {format_name}")
    for note in contents.notes:
        say(f"  {note}")
    for warning in contents.warnings:
        warn(warning)
    _show_rows(contents, paths)
    counts = images["split"].value_counts(sort=False).items()
    shown = ", ".join(f"{int(count):,} {split}" for split, count in counts)
    say(f"{len(images):,} rows ({shown}), {images['label'].nunique():,} classes with images; nothing was written.")
    if paths is not None:
        images = images.assign(path=paths, status=["ok" if isinstance(path, str) else "missing" for path in paths])
        for finding in find_findings(images):
            warn(finding)
    if contents.misfits:
        if must_fit:
            raise SubmissionError(describe_misfits(contents))
        warn(describe_misfits(contents))


def compare_source(
    source: Path, out: Path, *, data: DataSettings, contract: Contract | None = None, sample: str | None = None
) -> Differences:
    """What changed from the table ``out`` to a source as it is now, or to another image table; every file is read.

    Args:
        source: folder or archive of the competition's files, or the folder of an image table.
        out: folder of the earlier table.
        data: as the table was ingested with; findings are applied where they are given.
        contract: what the competition wants; None for the plain one.
        sample: file name or path of the sample submission; None for the usual one.

    Raises:
        ArtifactError: there is no table at ``out``.
        DataError: the source cannot be contents.
    """
    before = load_table(out)
    if _is_table(source):
        later = load_table(source)
        return compare_tables((before.images, before.classes), (later.images, later.classes))
    with unpack_to_look(source, out, data) as (folder, format_name):
        contract = contract or load_contract("plain")
        contents = read_contents(folder, format_name, out, data=data, contract=contract, sample=sample)
        images, root = contents.images, find_root(contents, out, data)
        if data.download:  # what has been fetched
            names = [get_file_name(image_id) for image_id in images["image_id"]]
            images["path"] = pd.Series([name if (root / name).is_file() else None for name in names], dtype="str")
        else:
            images["path"] = find_paths(images, root)
        states = inspect_files(images, root, data)
    images["status"] = pd.Series([state.status for state in states], dtype="str")
    images["digest"] = pd.Series([state.digest for state in states], dtype="str")
    if data.findings is not None:
        images = apply_findings(images, read_findings(data.findings), contents.classes["id"].tolist())
    _tell_blind_spots(before)
    return compare_to_table(before, images, contents.classes)


def report_differences(differences: Differences, out: Path, source: Path) -> None:
    """Print what changed, a line a subject, on standard output."""
    if differences.is_empty:
        print(f"from {out} to {source}: no difference")
        return
    print(f"from {out} to {source}:")
    for line in differences.describe(most=20):
        print(f"  {line}")


def _is_table(folder: Path) -> bool:
    try:
        return load_manifest(folder).kind == KIND
    except ArtifactError:
        return False


def _tell_blind_spots(table: ImageTable) -> None:
    if table.images["digest"].isna().all():
        warn("the table was ingested with --no-verify and knows no file's content: changed pictures are not seen.")


def _show_rows(contents: SourceContents, paths: pd.Series | None) -> None:
    images = contents.images
    names = dict(zip(contents.classes["id"].tolist(), contents.classes["name"].tolist(), strict=True))
    for split in images["split"].unique():
        for row in images[images["split"] == split].head(_EXPLAINED_ROWS).itertuples():
            known: dict[str, object] = {} if paths is None else {"file": paths[row.Index]}
            known |= {"title": row.title, "box": row.box, "url": row.url}
            texts = [f"{name} {value}" for name, value in known.items() if isinstance(value, str)]
            if paths is not None and not isinstance(paths[row.Index], str):
                texts.insert(0, "file not there")
            if not pd.isna(row.label):
                name = names[int(row.label)]
                texts.append(f"label {name}" + ("" if name == str(row.label) else f" (class {row.label})"))
            say(f"  {split} {row.image_id}: {', '.join(texts)}")
