"""Ingest: a competition's files become an image table; every id stays, whatever its image's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import (
    MANIFEST_NAME,
    check_replaceable,
    compute_digest,
    compute_file_digest,
    is_fresh,
    load_manifest,
)
from productrec.assembly.image_files import fetch_files, fingerprint_files, inspect_files, join_paths, pack_files
from productrec.assembly.source_contents import (
    SourceContents,
    compare_to_table,
    describe_misfits,
    find_root,
    read_contents,
)
from productrec.assembly.source_folder import unpack_source
from productrec.competitions.contract import Contract, load_contract
from productrec.console import say, show_progress, warn
from productrec.data.curation.deduplication import apply_duplicates, describe_duplicates, list_duplicates
from productrec.data.curation.duplicates import compute_fingerprints, find_duplicates
from productrec.data.curation.findings import apply_findings, check_findings, describe_applied, read_findings
from productrec.data.curation.folds import assign_table_folds
from productrec.data.curation.hold_out import hold_out_validation
from productrec.data.images import FileImages, PackedRows, get_boxes
from productrec.data.packed import PackedImages
from productrec.data.sources.files import find_paths
from productrec.data.sources.reading import list_source_files
from productrec.data.table import DISTRACTORS, KIND, SPLITS, ImageTable, find_findings, load_table, save_table
from productrec.errors import ArtifactError, SubmissionError
from productrec.recipe.data import DataSettings
from productrec.runtime import count_cores
from productrec.settings.fields import dump_changed, walk_settings


@dataclass(frozen=True)
class Ingested:
    """What ingest did: the table's folder, its counts by split and by state, and whether there was nothing to do.

    ``changes`` are those since the table that was written over.
    """

    folder: Path
    by_split: dict[str, int]
    by_status: dict[str, int]
    classes: int
    findings: list[str]
    skipped: bool
    changes: list[str]


def run_ingest(
    source: Path,
    out: Path,
    *,
    data: DataSettings,
    contract: Contract | None = None,
    sample: str | None = None,
    replace: bool = False,
    must_fit: bool = False,
) -> Ingested:
    """Read ``source`` into the image table ``out``; a table made from the same files is left as it is.

    Args:
        source: folder of the competition's files, or a zip or tar of it; archives, shards and saved datasets are
            unpacked beside ``out``.
        out: folder of the table.
        data: format, columns, image folder, held-out share.
        contract: what the competition wants, to tell now what would not fit at submit; None for the plain one.
        sample: file name or path of the sample submission, where it is not the usual one; ``none`` for none.
        replace: make the table anew whatever stands there; classes known by name keep their numbers.
        must_fit: refuse a sample submission that the contract cannot agree with.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table.
        ArtifactError: ``out`` holds the table of another source, or of other rows, and ``replace`` is false.
        SubmissionError: the sample cannot be read, or does not fit and must.
    """
    check_replaceable(out, kind=KIND)
    given = source
    source, format_name = unpack_source(source, out, data)
    contract = contract or load_contract("plain")
    contents = read_contents(source, format_name, out, data=data, contract=contract, sample=sample)
    if contents.misfits and must_fit:
        raise SubmissionError(describe_misfits(contents))
    images, classes = contents.images, contents.classes
    root = find_root(contents, out, data)
    inputs = {path.relative_to(source).as_posix(): compute_file_digest(path) for path in list_source_files(source)}
    labels = [None if label is pd.NA else label for label in images["label"].tolist()]
    inputs["rows"] = compute_digest([images["image_id"].tolist(), labels, images["split"].tolist()])
    if contents.sample is not None and not contents.sample.is_relative_to(source):
        inputs["sample"] = compute_file_digest(contents.sample)
    audited = None if data.findings is None else read_findings(data.findings)
    if audited is not None:  # before anything is fetched or looked at
        check_findings(images, audited, classes["id"].tolist())
        inputs["findings"] = compute_digest(audited.to_csv())
    reasons: dict[str, str] = {}
    if data.download:
        images["path"], reasons = fetch_files(images, root, data)
    else:
        images["path"] = find_paths(images, root)
    inputs["files"] = fingerprint_files(images, root)
    settings = dump_changed(data, "table") | {"format": format_name, "images": str(root.resolve())}
    if sample is not None:
        settings["sample"] = sample
    if not data.pack:
        settings.pop("max_side_px", None)
    packed = out.parent / f"{out.name}.packed" if data.pack else None
    is_complete = packed is None or packed.exists()
    if not replace and is_complete and is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        return _load_summary(out, skipped=True, contents=contents)
    earlier = _load_earlier(out)
    _warn_of_lost_findings(out, inputs.get("findings"), data.findings)
    is_other = (out / MANIFEST_NAME).exists() and load_manifest(out).inputs.get("rows") != inputs["rows"]
    if is_other and not replace:
        raise ArtifactError(_explain_other(out, root, earlier, contents))
    states = pack_files(images, root, packed, inputs, data) if packed else inspect_files(images, root, data)
    images["status"] = pd.Series([state.status for state in states], dtype="str")
    images["width"] = pd.Series([state.width for state in states], dtype="Int64")
    images["height"] = pd.Series([state.height for state in states], dtype="Int64")
    unfetched = [reasons.get(image_id) for image_id in images["image_id"]]
    images["reason"] = pd.Series(
        [reason or state.reason for reason, state in zip(unfetched, states, strict=True)], dtype="str"
    )
    images["digest"] = pd.Series([state.digest for state in states], dtype="str")
    if audited is not None:
        images = apply_findings(images, audited, classes["id"].tolist())
    changes = [] if earlier is None else compare_to_table(earlier, images, classes).describe()
    if earlier is not None:
        changes += _list_changed_settings(out, settings)
    images, duplicates, findings = _curate(images, root, packed, data)
    if audited is not None:
        findings.append(describe_applied(audited))
    save_table(
        out,
        images,
        classes,
        root=root,
        source=given,
        sample=contents.sample,
        inputs=inputs,
        settings=settings,
        numbered=contents.numbered,
        packed=packed,
        duplicates=duplicates,
        findings=findings,
        free_class_id=contents.free_class_id,
    )
    return _load_summary(out, skipped=False, contents=contents, changes=changes)


def _warn_of_lost_findings(out: Path, digest: str | None, given: Path | None) -> None:
    """Tell where a table had findings applied that the source, read afresh, may not have any more."""
    earlier = load_manifest(out).inputs.get("findings") if (out / MANIFEST_NAME).exists() else None
    if earlier is None or earlier == digest:
        return
    told = "none are applied now" if given is None else f"another file is applied now, {given}"
    warn(
        f"{out} had findings applied; {told}. The source is read afresh, so what was changed before comes back unless "
        "the new file holds those rows too. Put all rows into one file."
    )


def _list_changed_settings(out: Path, settings: dict[str, object]) -> list[str]:
    """What decides who is in which split, where it was other in the table that is written over."""
    before = load_manifest(out).settings
    known = {info.key: info.default for info in walk_settings(DataSettings) if info.decides == "table"}
    changed = [
        f"{name} {before.get(name, default)}, now {settings.get(name, default)}"
        for name, default in known.items()
        if name != "format" and before.get(name) != settings.get(name)
    ]
    mend = "runs of the table before no longer agree with it; data.table=FOLDER (--out) keeps both"
    return [f"settings: {', '.join(changed)}; {mend}"] if changed else []


def report(ingested: Ingested) -> None:
    """Tell a person what the table holds."""
    splits = ", ".join(f"{count:,} {split}" for split, count in ingested.by_split.items())
    states = ", ".join(f"{count:,} {status}" for status, count in ingested.by_status.items())
    done = "unchanged" if ingested.skipped else "written"
    say(f"image table {ingested.folder} {done}: {splits}; {ingested.classes:,} classes; images {states}")
    for change in ingested.changes:
        say(f"since the table before: {change}")
    for finding in ingested.findings:
        warn(finding)


def _curate(
    images: pd.DataFrame, root: Path, packed: Path | None, data: DataSettings
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
    """The table after near-duplicates, held-out images and folds; the duplicates to read; findings."""
    duplicates, findings = None, []
    if data.dedup != "off":
        files = FileImages([path or "" for path in join_paths(root, images)], get_boxes(images))
        pictures = files if packed is None else PackedRows(PackedImages(packed), np.arange(len(images)))
        with show_progress("looking for near-duplicates", len(images)) as bar:
            fingerprints = compute_fingerprints(pictures, workers=count_cores(), on_progress=bar.advance)
        report = find_duplicates(images, fingerprints, workers=count_cores())
        duplicates, findings = list_duplicates(report, images), describe_duplicates(report)
        images = apply_duplicates(images, report, data.dedup)
    if not (images["split"] == "val").any() and data.validation_fraction > 0:
        images = hold_out_validation(images, data.validation_fraction, data.seed, by=data.hold_out)
    if data.folds:
        images, more = assign_table_folds(images, data.folds, data.seed)
        findings += more
    return images, duplicates, findings


def _load_earlier(out: Path) -> ImageTable | None:
    """The table that is written over, where there is one that can be read."""
    try:
        return load_table(out)
    except (ArtifactError, OSError, ValueError):
        return None


def _explain_other(out: Path, root: Path, earlier: ImageTable | None, contents: SourceContents) -> str:
    """Why a table of other ids or labels is not written over, and how to go on."""
    go_on = (
        "To take it in, pass --replace (`productrec run` takes --replace-table), and train under another name; "
        "`productrec ingest SOURCE --diff` tells all that changed. Or choose another folder (--out, data.table)."
    )
    if earlier is None:
        return f"{out}: holds an image table of another source, or a damaged one. {go_on}"
    if root.resolve() != earlier.root.resolve():
        return (
            f"{out}: holds the image table of another source (images of {earlier.root}, not {root.resolve()}). {go_on}"
        )
    changes = "; ".join(compare_to_table(earlier, contents.images, contents.classes).describe())
    return f"{out}: its source has changed since it was ingested ({changes or 'the order of its rows'}). {go_on}"


def _load_summary(folder: Path, *, skipped: bool, contents: SourceContents, changes: Sequence[str] = ()) -> Ingested:
    images = pd.read_parquet(folder / "images.parquet", columns=["image_id", "split", "label", "title", "status"])
    order = {split: place for place, split in enumerate((*SPLITS, DISTRACTORS))}
    by_split = dict(sorted(images["split"].value_counts().items(), key=lambda item: order[str(item[0])]))
    warnings = list(contents.warnings)
    if contents.misfits:
        warnings.append(describe_misfits(contents))
    return Ingested(
        folder=folder,
        by_split={str(split): int(count) for split, count in by_split.items()},
        by_status={str(status): int(count) for status, count in images["status"].value_counts().items()},
        classes=int(load_manifest(folder, kind=KIND).notes["classes"]),
        findings=[*warnings, *find_findings(images), *load_manifest(folder, kind=KIND).notes.get("findings", [])],
        skipped=skipped,
        changes=list(changes),
    )
