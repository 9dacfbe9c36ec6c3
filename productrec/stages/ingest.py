"""Ingest: a competition's files become an image table; every id stays, whatever its image's state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import compute_digest, compute_file_digest, is_fresh, load_manifest
from productrec.console import say, show_progress, warn
from productrec.data.curation.apply import (
    apply_duplicates,
    assign_table_folds,
    describe_duplicates,
    hold_out_classes,
    hold_out_grouped,
    list_duplicates,
)
from productrec.data.curation.duplicates import compute_fingerprints, find_duplicates
from productrec.data.curation.findings import apply_findings, check_findings, describe_applied, read_findings
from productrec.data.images import FileImages, PackedRows, get_boxes
from productrec.data.packed import PackedImages
from productrec.data.sources.formats import SAMPLE_NAME, FileFinder, find_image_root, find_paths
from productrec.data.table import KIND, check_table, find_findings, hold_out_validation, save_table
from productrec.errors import ArtifactError
from productrec.runtime import count_cores
from productrec.settings import DataSettings
from productrec.stages.ingest_parts import (
    fetch_files,
    fingerprint_files,
    inspect_files,
    join_paths,
    list_source_files,
    pack_files,
    read_rows,
    unpack_source,
)

_EXPLAINED_ROWS = 3


@dataclass(frozen=True)
class Ingested:
    """What ingest did: the table's folder, its counts by split and by state, and whether there was nothing to do."""

    folder: Path
    by_split: dict[str, int]
    by_status: dict[str, int]
    classes: int
    findings: list[str]
    skipped: bool


def run_ingest(
    source: Path, out: Path, *, data: DataSettings, sample: str | None = None, seed: int = 0, replace: bool = False
) -> Ingested:
    """Read ``source`` into the image table ``out``; a table made from the same files is left as it is.

    Args:
        source: folder of the competition's files, or a zip or tar of it; archives, shards and saved datasets are
            unpacked beside ``out``.
        out: folder of the table.
        data: format, columns, image folder, held-out share.
        sample: file name of the sample submission, where it is not the usual one.
        seed: decides which training images are held out where the source has no val.
        replace: make the table anew whatever stands there.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table.
        ArtifactError: ``out`` holds the table of another source and ``replace`` is false.
    """
    source, layout = unpack_source(source, out, data)
    root = out.parent / f"{out.name}.images" if data.download else find_image_root(source, data.images)
    sample_path = source / (sample or SAMPLE_NAME)
    inputs = {path.relative_to(source).as_posix(): compute_file_digest(path) for path in list_source_files(source)}
    rows = read_rows(source, layout, data)
    images, classes = rows.build_frames()
    inputs["rows"] = compute_digest([rows.image_id, rows.label, rows.split])
    check_table(images, classes, str(source))
    said_of = None if data.findings is None else read_findings(data.findings)
    if said_of is not None:  # before anything is fetched or looked at
        check_findings(images, said_of, classes["id"].tolist())
        inputs["findings"] = compute_digest(said_of.to_csv())
    reasons: dict[str, str] = {}
    if data.download:
        images["path"], reasons = fetch_files(images, root, data)
    else:
        images["path"] = find_paths(images, root)
    inputs["files"] = fingerprint_files(images, root)
    settings = {"format": layout, "images": str(root.resolve()), "verify": data.verify}
    settings |= {"validation_fraction": data.validation_fraction, "seed": seed}
    chosen = {"download": data.download, "dedup": data.dedup, "folds": data.folds, "pack": data.pack}
    chosen["hold_out"] = data.hold_out == "classes"
    settings |= {name: value for name, value in chosen.items() if value not in (False, "off", 0)}
    if data.pack:
        settings["max_side_px"] = data.max_side_px
    packed = out.parent / f"{out.name}.packed" if data.pack else None
    is_complete = packed is None or packed.exists()
    if not replace and is_complete and is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        return _load_summary(out, skipped=True)
    _check_same_source(out, inputs["rows"], replace=replace)
    states = pack_files(images, root, packed, inputs, data) if packed else inspect_files(images, root, data)
    images["status"] = pd.Series([state.status for state in states], dtype="str")
    images["width"] = pd.Series([state.width for state in states], dtype="Int64")
    images["height"] = pd.Series([state.height for state in states], dtype="Int64")
    said = [reasons.get(image_id) for image_id in images["image_id"]]
    images["reason"] = pd.Series([one or state.reason for one, state in zip(said, states, strict=True)], dtype="str")
    images["digest"] = pd.Series([state.digest for state in states], dtype="str")
    if said_of is not None:
        images = apply_findings(images, said_of, classes["id"].tolist())
    images, duplicates, findings = _curate(images, root, packed, data, seed)
    if said_of is not None:
        findings.append(describe_applied(said_of))
    sample_found = sample_path if sample_path.is_file() else None
    save_table(
        out,
        images,
        classes,
        root=root,
        sample=sample_found,
        inputs=inputs,
        settings=settings,
        packed=packed,
        duplicates=duplicates,
        findings=findings,
    )
    return _load_summary(out, skipped=False)


def report(ingested: Ingested) -> None:
    """Tell a person what the table holds."""
    splits = ", ".join(f"{count:,} {split}" for split, count in ingested.by_split.items())
    states = ", ".join(f"{count:,} {status}" for status, count in ingested.by_status.items())
    done = "unchanged" if ingested.skipped else "written"
    say(f"image table {ingested.folder} {done}: {splits}; {ingested.classes:,} classes; images {states}")
    for finding in ingested.findings:
        warn(finding)


def explain_source(source: Path, out: Path, *, data: DataSettings) -> None:
    """Say what is understood of a source: its layout, and what its first rows would be; archives are unpacked.

    Raises:
        DataError: the source cannot be understood.
    """
    source, layout = unpack_source(source, out, data)
    rows = read_rows(source, layout, data)
    finder = FileFinder(find_image_root(source, data.images))
    counts = Counter(rows.split)
    say(f"{source}: layout {layout}")
    for split in counts:
        first = [place for place, other in enumerate(rows.split) if other == split][:_EXPLAINED_ROWS]
        for place in first:
            image_id, label = rows.image_id[place], rows.label[place]
            path = finder.find(rows.path[place] or image_id, split)
            known: dict[str, object] = {"file": path or "not there", "title": rows.title[place], "box": rows.box[place]}
            known |= {"label": label, "url": rows.url[place]}
            texts = [f"{name} {value}" for name, value in known.items() if value is not None]
            say(f"  {split} {image_id}: {', '.join(texts)}")
    shown = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    classes = len({label for label in rows.label if label is not None})
    say(f"{len(rows.image_id):,} rows ({shown}), {classes:,} classes with images; nothing was written.")


def _curate(
    images: pd.DataFrame, root: Path, packed: Path | None, data: DataSettings, seed: int
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
        hold_out = hold_out_grouped if images["group"].notna().any() else hold_out_validation
        if data.hold_out == "classes":
            hold_out = hold_out_classes
        images = hold_out(images, data.validation_fraction, seed)
    if data.folds:
        images, more = assign_table_folds(images, data.folds, seed)
        findings += more
    return images, duplicates, findings


def _check_same_source(out: Path, rows: str, *, replace: bool) -> None:
    """Refuse to write over a table of other ids and labels; the same ones at another place are the same source."""
    if replace or not (out / "manifest.json").exists():
        return
    earlier = load_manifest(out, kind=KIND)
    if earlier.inputs.get("rows") != rows:
        raise ArtifactError(
            f"{out}: holds the image table of another source (images of {earlier.settings.get('images')}). "
            "Choose another folder with --out, or pass --replace to write over it."
        )


def _load_summary(folder: Path, *, skipped: bool) -> Ingested:
    images = pd.read_parquet(folder / "images.parquet", columns=["image_id", "split", "label", "status"])
    order = {"train": 0, "val": 1, "test": 2}
    by_split = dict(sorted(images["split"].value_counts().items(), key=lambda item: order[str(item[0])]))
    return Ingested(
        folder=folder,
        by_split={str(split): int(count) for split, count in by_split.items()},
        by_status={str(status): int(count) for status, count in images["status"].value_counts().items()},
        classes=int(load_manifest(folder, kind=KIND).notes["classes"]),
        findings=[*find_findings(images), *load_manifest(folder, kind=KIND).notes.get("findings", [])],
        skipped=skipped,
    )
