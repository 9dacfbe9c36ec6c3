"""The image table: one row for every image id of the source, whatever its image's state."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from productrec.artifacts import MANIFEST_NAME, Manifest, check_files, load_manifest, write_artifact
from productrec.data.boxes import is_box
from productrec.delimited import guard_cell
from productrec.errors import ArtifactError, DataError, describe_offenders

KIND = "image table"
SPLITS = ("train", "val", "test")
DISTRACTORS = "distractors"  # the split of images that are known to be of none of the classes; they have no label
IMAGE_COLUMNS = {
    "image_id": "str",
    "path": "str",
    "label": "Int64",
    "split": "str",
    "fold": "Int64",
    "group": "str",
    "title": "str",
    "box": "str",
    "role": "str",
    "weight": "Float64",
    "width": "Int64",
    "height": "Int64",
    "digest": "str",
    "url": "str",
    "status": "str",
    "reason": "str",
}
CLASS_COLUMNS = {"id": "Int64", "name": "str", "path": "str", "description": "str"}
# Formats of tables that were written before their manifests noted `numbered`. History alone: no format joins these.
_NUMBERED_BEFORE = ("folders", "csv", "table", "webdataset", "huggingface", "in_shop")


@dataclass(frozen=True)
class ImageTable:
    """Images and classes of one source.

    ``images`` has the columns of `IMAGE_COLUMNS` (``path`` relative to ``root``, ``status`` ok, broken or missing,
    ``title`` one title a line, for an image may have several captions: `data.titles` joins and splits them);
    ``classes`` those of `CLASS_COLUMNS`; ``sample`` is the source's sample submission, ``packed`` the folder of the
    packed store that holds its pictures, where it has one; ``numbered``: class ids are numbers
    that were given to names, not the source's own, see `data.class_keys`.
    """

    images: pd.DataFrame
    classes: pd.DataFrame
    root: Path
    sample: Path | None
    fingerprint: str
    packed: Path | None = None
    numbered: bool = False

    def select(self, splits: Collection[str], *, usable: bool = True) -> pd.DataFrame:
        """Rows of ``splits`` in the table's order; only those whose image can be read unless ``usable`` is false."""
        wanted = self.images["split"].isin(list(splits))
        if usable:
            wanted &= self.images["status"] == "ok"
        return self.images[wanted]

    def get_paths(self, rows: pd.DataFrame) -> list[str]:
        """Absolute image paths of ``rows``."""
        root = os.path.join(self.root, "")
        return [root + path for path in rows["path"].tolist()]

    def get_class_names(self, class_ids: Collection[int]) -> list[str]:
        """Names of classes, in the order given; the id itself where a class has no name."""
        names = dict(zip(self.classes["id"].tolist(), self.classes["name"].tolist(), strict=True))
        return [str(names.get(class_id) or class_id) for class_id in class_ids]


def build_frame(columns: Mapping[str, str], rows: Mapping[str, Any]) -> pd.DataFrame:
    """A frame with exactly ``columns`` and their types; a column that ``rows`` lacks is empty."""
    length = len(next(iter(rows.values())))
    frame = pd.DataFrame(index=range(length))
    for name, kind in columns.items():
        values = rows.get(name)
        if values is None:
            values = [None] * length
        frame[name] = pd.Series(list(values) if not isinstance(values, pd.Series) else values.to_numpy(), dtype=kind)
    return frame


def check_table(images: pd.DataFrame, classes: pd.DataFrame, where: str) -> None:
    """Refuse a table that breaks its promises: unique ids, known splits and labels, something to learn from.

    Raises:
        DataError: with the count and the first few offenders.
    """
    repeated = images.loc[images["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise DataError(
            f"{where}: image ids must be unique over all splits; {describe_offenders(repeated)} stand more than once. "
            "Remove the repeated entries from the source files."
        )
    # Neither a CSV's line nor a ledger's holds them; submit would meet them only after all training.
    for what, texts in (("image ids", images["image_id"]), ("class names", classes["name"].dropna())):
        torn = [ascii(text) for text in texts if not text or "\n" in text or "\r" in text]
        if torn:
            raise DataError(
                f"{where}: {what} must be text of one line, not empty; {describe_offenders(torn)} are not. "
                "Rename them in the source."
            )
    boxed = images.loc[images["box"].notna(), ["image_id", "box"]]
    wrong = [image_id for image_id, box in zip(boxed["image_id"], boxed["box"], strict=True) if not is_box(box)]
    if wrong:
        raise DataError(f"{where}: a box must be four numbers, x,y,width,height; {describe_offenders(wrong)} are not.")
    heavy = images.loc[images["weight"].notna() & ~images["weight"].between(0.0, 1.0), "image_id"]
    if len(heavy):
        raise DataError(f"{where}: weights must be from 0 to 1; those of {describe_offenders(heavy)} are not.")
    unlabelled = images[(images["split"] == "train") & images["label"].isna() & images["title"].isna()]
    # A catalogue without one label is a table too; nothing can be trained on it yet.
    if len(unlabelled) and images["label"].notna().any():
        raise DataError(
            f"{where}: every training image must have a label or a title; "
            f"{describe_offenders(unlabelled['image_id'])} have neither."
        )
    unknown = sorted(set(images["label"].dropna().tolist()) - set(classes["id"].tolist()))
    if unknown:
        raise DataError(f"{where}: labels must be among the classes; got {describe_offenders(unknown)} that are not.")
    if not len(images):
        raise DataError(f"{where}: no images are listed. Check the source folder and its format.")


def find_findings(images: pd.DataFrame) -> list[str]:
    """What a person should know of a valid table: unreadable images, labels without training images, single images."""
    findings = []
    for status in ("missing", "broken"):
        ids = images.loc[images["status"] == status, "image_id"]
        if len(ids):
            what = "have no file" if status == "missing" else "cannot be decoded"
            findings.append(
                f"{describe_offenders(ids)} of {len(images)} images {what}; they stay in the table as {status!r}."
            )
    is_titled = images["label"].isna() & images["title"].notna()
    if images["label"].notna().any():
        titled = images.loc[is_titled & images["split"].isin(["train", "val"]), "image_id"]
        if len(titled):
            findings.append(
                f"{describe_offenders(titled)} images have a title and no label; no class learns from them."
            )
    elif is_titled.any():
        findings.append("no image has a label: images and titles can be learned together, classes cannot.")
    else:
        findings.append("no image has a label: there is nothing to train on, only a catalogue to look up.")
    usable = images[images["status"] == "ok"]
    trained = usable.loc[usable["split"] == "train", "label"].value_counts()
    for split in ("val", "test"):
        labels = set(usable.loc[usable["split"] == split, "label"].dropna().tolist())
        unseen = sorted(labels - set(trained.index.tolist()))
        if unseen:
            findings.append(
                f"{describe_offenders(unseen)} labels stand in {split} without one readable training image; "
                "they cannot be predicted and count as errors."
            )
    single = sorted(trained.index[trained == 1].tolist())
    if single:
        findings.append(
            f"{describe_offenders(single)} classes have a single training image; it is its own only positive."
        )
    return findings


def save_table(
    folder: Path,
    images: pd.DataFrame,
    classes: pd.DataFrame,
    *,
    root: Path,
    source: Path | None = None,
    sample: Path | None,
    inputs: dict[str, str],
    settings: dict[str, Any],
    numbered: bool = False,
    packed: Path | None = None,
    duplicates: pd.DataFrame | None = None,
    findings: Sequence[str] = (),
    free_class_id: int | None = None,
) -> None:
    """Write the table as an artefact; its root is kept as it is and relative to ``folder``, so that either can move.

    ``source``: what it was read from, kept in the same way; ``numbered``: class ids are numbers that were given to
    names; ``free_class_id``: above every class id the table has ever had.
    """
    notes: dict[str, Any] = {
        "root": str(root.resolve()),
        "relative_root": os.path.relpath(root.resolve(), folder.resolve()),
    }
    if source is not None:
        notes["source"] = str(source.resolve())
        notes["relative_source"] = os.path.relpath(source.resolve(), folder.resolve())
    if packed is not None:
        notes["packed"] = os.path.relpath(packed.resolve(), folder.resolve())
    if findings:
        notes["findings"] = list(findings)
    notes["images"] = len(images)
    notes["classes"] = len(classes)
    notes["numbered"] = numbered
    if free_class_id is not None:
        notes["free_class_id"] = free_class_id
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings, notes=notes) as temporary:
        # Half of snappy's size and time to read: the table is read by every stage, and digested first.
        images.to_parquet(temporary / "images.parquet", index=False, compression="zstd")
        classes.to_parquet(temporary / "classes.parquet", index=False)
        if duplicates is not None:
            duplicates = duplicates.assign(image_id=duplicates["image_id"].map(guard_cell))
            duplicates.to_csv(temporary / "duplicates.csv", index=False)
        if sample is not None:
            (temporary / "sample_submission.csv").write_bytes(sample.read_bytes())


def _find_root(folder: Path, notes: dict[str, Any]) -> Path:
    if not {"root", "relative_root"} <= notes.keys():
        raise ArtifactError(f"{folder}: the image table was written by an older version. Ingest the source again.")
    known = Path(notes["root"])
    return known if known.is_dir() else (folder / str(notes["relative_root"])).resolve()


def find_source(folder: Path) -> Path | None:
    """What a table was read from, where it is still there; None else, and of a table of an earlier version."""
    notes = _load_manifest(folder).notes
    known = [Path(notes["source"]), folder / str(notes["relative_source"])] if "source" in notes else []
    return next((path for path in known if path.exists()), None)


def _is_numbered(manifest: Manifest) -> bool:
    if "numbered" in manifest.notes:
        return bool(manifest.notes["numbered"])
    return manifest.settings.get("format") in _NUMBERED_BEFORE


def _load_manifest(folder: Path) -> Manifest:
    try:
        return load_manifest(folder, kind=KIND)
    except ArtifactError:
        if (folder / MANIFEST_NAME).exists():
            raise
        beside = sorted(str(path.parent) for path in folder.parent.glob("*/images.parquet"))
        others = f"There are {', '.join(beside)}: name one with data.table=FOLDER. Or make" if beside else "Make"
        raise ArtifactError(
            f"{folder}: no {KIND} here. {others} it with `productrec ingest SOURCE --out {folder}`."
        ) from None


def load_table(folder: Path, *, root: Path | None = None) -> ImageTable:
    """Read an image table; ``root`` names the image folder where it has moved.

    Raises:
        ArtifactError: no table there (those beside it are named), or a damaged one.
    """
    manifest = _load_manifest(folder)
    check_files(folder, manifest)
    sample = folder / "sample_submission.csv"
    images = pd.read_parquet(folder / "images.parquet")
    for name, dtype in IMAGE_COLUMNS.items():
        if name not in images.columns:  # of an older version, which had nothing to say there
            images[name] = pd.Series([None] * len(images), dtype=dtype)
    return ImageTable(
        images=images,
        classes=pd.read_parquet(folder / "classes.parquet"),
        root=_find_root(folder, manifest.notes) if root is None else root.resolve(),
        sample=sample if sample.exists() else None,
        fingerprint=manifest.fingerprint,
        packed=(folder / str(manifest.notes["packed"])).resolve() if "packed" in manifest.notes else None,
        numbered=_is_numbered(manifest),
    )
