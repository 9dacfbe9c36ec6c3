"""What a report is made of: answers, names, examples and pictures of a table, as far as they are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import load_manifest
from productrec.assembly.evidence import NO_LABEL, get_labels
from productrec.assembly.table_state import check_current
from productrec.data.images import open_images
from productrec.data.table import ImageTable, load_table
from productrec.delimited import unguard_cell
from productrec.errors import ArtifactError, DataError
from productrec.recipe import Recipe
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.scores import Scores
from productrec.reporting.answered import Answered, summarise_answers
from productrec.reporting.class_names import ClassNames
from productrec.reporting.pictures import Pictures
from productrec.reporting.thumbnails import Thumbnails

EXAMPLES = 8  # kept of a class, so that some may be left out


@dataclass
class Material:
    """What a report is made of.

    ``table``: None where it is not at hand; ``answered``: by split; ``views``: preset that the answers looked through;
    ``names``: of classes; ``paths``: of classes in the category tree; ``examples``: image ids by class, of the gallery;
    ``pictures``: of all images; ``missing``: what is not at hand, and how to have it, in words;
    ``fair``: by split, scores by what was fitted on other images than those it answered, where these were kept.
    """

    table: ImageTable | None
    answered: dict[str, Answered]
    views: str
    names: ClassNames
    paths: dict[int, str]
    pictures: Pictures
    examples: dict[int, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    fair: dict[str, Scores] = field(default_factory=dict)

    @property
    def judged(self) -> Answered | None:
        """The answers that can be held against labels: those to validation images, else to test images; or None."""
        return next((part for part in self.answered.values() if part.is_labelled.any()), None)

    def get_examples(self, class_id: int) -> Sequence[str]:
        """Image ids of a class, of the gallery."""
        return self.examples.get(class_id, [])


def gather_material(
    recipe: Recipe, predictions: Mapping[str, Path], thumbnails: Thumbnails, *, without: str = ""
) -> Material:
    """Read what a report shows of predictions and of their table.

    Args:
        recipe: image table and gallery splits.
        predictions: folders of them by split, those of the images to judge by first.
        thumbnails: of the page.
        without: why there are none, in words; empty where nobody made them yet.
    """
    missing: list[str] = []
    try:
        table = load_table(recipe.table, root=recipe.data.images)
    except ArtifactError as error:
        table = None
        missing.append(f"Labels, pictures and names of classes: {error}")
    names: dict[int, str] = {}
    answered: dict[str, Answered] = {}
    fair: dict[str, Scores] = {}
    views = recipe.predict.tta
    if not predictions:
        why = without or "there are no predictions. Run productrec predict."
        missing.append(f"Answers, mistakes and results by class: {why}")
    for split, folder in predictions.items():
        try:
            kept = load_probabilities(folder)
            if table is not None:
                check_current(kept, table)
        except ArtifactError as error:
            missing.append(f"Answers to {split} images: {error}")
            continue
        names |= dict(zip(kept.class_ids, kept.names, strict=True))
        views = str(kept.made.get("views") or views)
        labels = np.full(len(kept.ids), NO_LABEL) if table is None else get_labels(table, kept.ids)
        if split == "val" and kept.made.get("validation"):
            fair[split] = Scores(**kept.made["validation"])
        unread = np.isin(kept.ids, kept.fallback)
        if (count := int((unread & (labels != NO_LABEL)).sum())) > 0:
            missing.append(_tell_unread(count, split))
        is_judged = (labels != NO_LABEL) & ~unread
        answered[split] = summarise_answers(split, kept.ids, labels, is_judged, kept.class_ids, kept.values)
    if table is None:
        return Material(
            table, answered, views, ClassNames(names), {}, Pictures(thumbnails, None, {}), {}, missing, fair
        )
    names |= dict(zip(table.classes["id"].tolist(), map(_read_name, table.classes["name"]), strict=True))
    paths = zip(table.classes["id"].tolist(), table.classes["path"].tolist(), strict=True)
    pictures = _open_pictures(table, thumbnails, missing)
    return Material(
        table,
        answered,
        views,
        ClassNames(names),
        {class_id: path for class_id, path in paths if isinstance(path, str) and path},
        pictures,
        _list_examples(table, recipe.predict.gallery_splits),
        missing,
        fair,
    )


def _tell_unread(count: int, split: str) -> str:
    told = {"val": "validation", "train": "training"}.get(split, split)
    if count == 1:
        return f"1 labelled {told} image: it could not be read, so its answer is not judged."
    return f"{count:,} labelled {told} images: they could not be read, so their answers are not judged."


def _read_name(name: object) -> str:
    return name if isinstance(name, str) else ""


def _open_pictures(table: ImageTable, thumbnails: Thumbnails, missing: list[str]) -> Pictures:
    usable = table.images[table.images["status"] == "ok"]
    try:
        images = open_images(table, usable)
    except (ArtifactError, DataError) as error:
        missing.append(f"Pictures: {error}")
        return Pictures(thumbnails, None, {})
    return Pictures(thumbnails, images, {image_id: row for row, image_id in enumerate(usable["image_id"])})


def _list_examples(table: ImageTable, splits: Sequence[str]) -> dict[int, list[str]]:
    rows = table.select(splits)
    rows = rows[rows["label"].notna()]
    first = rows.groupby("label", sort=False).head(EXAMPLES)
    grouped: dict[int, list[str]] = {}
    for label, image_id in zip(first["label"].tolist(), first["image_id"].tolist(), strict=True):
        grouped.setdefault(int(label), []).append(image_id)
    return grouped


def read_findings_of(folder: Path, table: ImageTable) -> pd.DataFrame | None:
    """The findings of an audit as it wrote them; None where it wrote none there.

    Raises:
        ArtifactError: they are of an earlier state of the table.
    """
    path = folder / "findings.parquet"
    if not path.is_file():
        return None
    if load_manifest(folder).inputs.get("table") != table.fingerprint:
        raise ArtifactError(f"the audit in {folder} is of an earlier state of the table.")
    return pd.read_parquet(path)


def read_clusters(table: Path) -> pd.DataFrame | None:
    """The near-duplicates that ingesting a table found; None where nobody looked."""
    path = table / "duplicates.csv"
    if not path.is_file():
        return None
    clusters = pd.read_csv(
        path, dtype={"image_id": str, "split": str}, keep_default_na=False, na_values={"label": [""]}
    )
    return clusters.assign(image_id=clusters["image_id"].map(unguard_cell))
