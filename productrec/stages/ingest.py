"""Ingest: a competition's files become an image table; every id stays, whatever its image's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from productrec.artifacts import compute_digest, compute_file_digest, is_fresh, load_manifest
from productrec.console import say, show_progress, warn
from productrec.data.format_csv import read_csv
from productrec.data.format_fgvc import read_fgvc_json
from productrec.data.format_folders import read_folders
from productrec.data.formats import SAMPLE_NAME, SourceRows, detect_format, find_image_root, find_paths
from productrec.data.inspection import inspect_images
from productrec.data.table import KIND, check_table, find_findings, hold_out_validation, save_table
from productrec.errors import ArtifactError
from productrec.runtime import count_cores
from productrec.settings import DataSettings

SOURCE_FILES = (
    "train.json",
    "val.json",
    "test.json",
    "product_tree.json",
    "classes.csv",
    "train.csv",
    "val.csv",
    "test.csv",
    SAMPLE_NAME,
)


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
        source: folder of the competition's files.
        out: folder of the table.
        data: format, columns, image folder, held-out share.
        sample: file name of the sample submission, where it is not the usual one.
        seed: decides which training images are held out where the source has no val.
        replace: make the table anew whatever stands there.

    Raises:
        DataError: the source cannot be understood, or breaks a promise of the table.
        ArtifactError: ``out`` holds the table of another source and ``replace`` is false.
    """
    layout = detect_format(source) if data.format == "auto" else data.format
    root = find_image_root(source, data.images)
    sample_path = source / (sample or SAMPLE_NAME)
    inputs = {
        name: compute_file_digest(source / name)
        for name in (*SOURCE_FILES, sample_path.name)
        if (source / name).is_file()
    }
    rows = _read(source, layout, data)
    images, classes = rows.build_frames()
    inputs["rows"] = compute_digest([rows.image_id, rows.label, rows.split])
    check_table(images, classes, str(source))
    if not (images["split"] == "val").any() and data.validation_fraction > 0:
        images = hold_out_validation(images, data.validation_fraction, seed)
    images["path"] = find_paths(images, root)
    inputs["files"] = _fingerprint_files(images, root)
    settings = {"format": layout, "images": str(root.resolve()), "verify": data.verify}
    settings |= {"validation_fraction": data.validation_fraction, "seed": seed}
    if not replace and is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        return _load_summary(out, skipped=True)
    _check_same_source(out, inputs["rows"], replace=replace)
    with show_progress("reading images", len(images)) as bar:
        paths = [None if pd.isna(path) else str(root / path) for path in images["path"]]
        states = inspect_images(paths, workers=count_cores(), verify=data.verify, on_progress=bar.advance)
    images["status"] = pd.Series([state.status for state in states], dtype="str")
    images["width"] = pd.Series([state.width for state in states], dtype="Int64")
    images["height"] = pd.Series([state.height for state in states], dtype="Int64")
    images["digest"] = pd.Series([state.digest for state in states], dtype="str")
    sample_found = sample_path if sample_path.is_file() else None
    save_table(out, images, classes, root=root, sample=sample_found, inputs=inputs, settings=settings)
    return _load_summary(out, skipped=False)


def report(ingested: Ingested) -> None:
    """Tell a person what the table holds."""
    splits = ", ".join(f"{count:,} {split}" for split, count in ingested.by_split.items())
    states = ", ".join(f"{count:,} {status}" for status, count in ingested.by_status.items())
    done = "unchanged" if ingested.skipped else "written"
    say(f"image table {ingested.folder} {done}: {splits}; {ingested.classes:,} classes; images {states}")
    for finding in ingested.findings:
        warn(finding)


def _read(source: Path, layout: str, data: DataSettings) -> SourceRows:
    if layout == "fgvc_json":
        return read_fgvc_json(source)
    if layout == "csv":
        return read_csv(source, id_column=data.id_column, label_column=data.label_column)
    return read_folders(source)


def _fingerprint_files(images: pd.DataFrame, root: Path) -> str:
    """Digest of the image files' names, sizes and times: a million files are told apart without reading them."""
    entries = []
    for path in images["path"]:
        if not pd.isna(path):
            state = (root / path).lstat()
            entries.append((path, state.st_size, state.st_mtime_ns))
    return compute_digest(entries)


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
    images = pd.read_parquet(folder / "images.parquet")
    order = {"train": 0, "val": 1, "test": 2}
    by_split = dict(sorted(images["split"].value_counts().items(), key=lambda item: order[str(item[0])]))
    return Ingested(
        folder=folder,
        by_split={str(split): int(count) for split, count in by_split.items()},
        by_status={str(status): int(count) for status, count in images["status"].value_counts().items()},
        classes=int(load_manifest(folder, kind=KIND).notes["classes"]),
        findings=find_findings(images),
        skipped=skipped,
    )
