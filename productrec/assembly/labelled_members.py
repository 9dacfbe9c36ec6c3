"""The labelled images that an ensemble is fitted on: training images out of fold, or validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.evidence import FITTED_ON, NO_LABEL, get_labels, number_groups
from productrec.assembly.out_of_fold import find_out_of_fold_folder
from productrec.assembly.table_state import check_current
from productrec.class_order import ClassOrder
from productrec.console import warn
from productrec.data.table import ImageTable
from productrec.ensembling.blend import check_same_order
from productrec.ensembling.choosing import draw_fitted
from productrec.errors import ArtifactError
from productrec.recipe import load_recipe
from productrec.recognition.probabilities import ClassProbabilities, load_probabilities


@dataclass(frozen=True)
class LabelledMembers:
    """What an ensemble's members say of labelled images.

    ``on``: ``out of fold`` or ``val``; ``parts``: V arrays (N, C), in memory; ``labels``: (N,) class positions, -1 for
    a class that no member knows; ``groups``: (N,) a number for each image's group; ``inputs``: fingerprints.
    """

    on: str
    parts: list[np.ndarray]
    labels: np.ndarray
    groups: list[int]
    inputs: dict[str, str]


def load_labelled(members: Mapping[str, Path], table: ImageTable, class_ids: Sequence[int]) -> LabelledMembers | None:
    """Training images out of fold, where every member has been trained in folds; else validation images.

    As many as memory holds of all members, `FITTED_ON` at most, by chance; without those that cannot be read.

    Args:
        members: by name the prediction folder of each, holding ``val`` where there are validation images.
        table: with the labels.
        class_ids: (C,) order of the members' classes.

    Returns:
        None where there are no such images, or none of them is of a known class. What is of an earlier state of the
        table is passed over, with a warning.

    Raises:
        ArtifactError: members speak of other images, or of another state of the table.
    """
    found = [_find_out_of_fold(folder) for folder in members.values()]
    known = [load_probabilities(folder) for folder in found if folder is not None]
    if len(known) == len(members) and all(_is_of(one, table, class_ids) for one in known):
        return _gather("out of fold", list(members), known, table)
    folders = [folder / "val" for folder in members.values()]
    if not all(folder.exists() for folder in folders) or not len(table.select(["val"], usable=False)):
        return None
    return _gather("val", list(members), [load_probabilities(folder) for folder in folders], table)


def _is_of(known: ClassProbabilities, table: ImageTable, class_ids: Sequence[int]) -> bool:
    """Whether predictions out of fold are of the classes in question, and of the table as it is now; else a warning."""
    try:
        check_current(known, table)
    except ArtifactError as error:
        warn(f"the blend is not fitted out of fold. {error}")
        return False
    return known.class_ids == list(class_ids)


def _find_out_of_fold(folder: Path) -> Path | None:
    """Predictions out of fold of the model that predictions ``RUN/predictions/VIEWS`` are of."""
    run, views = folder.absolute().parents[1], folder.name
    if not (run / "recipe.yaml").is_file():
        return None
    classifier = find_out_of_fold_folder(run, load_recipe(run / "recipe.yaml"), views)
    predictions = None if classifier is None else classifier.parents[1] / "predictions" / views / "train"
    return predictions if predictions is not None and predictions.exists() else None


def _gather(on: str, names: list[str], known: list[ClassProbabilities], table: ImageTable) -> LabelledMembers | None:
    check_same_order(names, [one.ids for one in known], "image ids")
    check_same_order(names, [one.class_ids for one in known], "class order")
    for one in known:
        check_current(one, table)
    ids, order = known[0].ids, ClassOrder(known[0].class_ids)
    unread = {image_id for one in known for image_id in one.fallback}
    labels = get_labels(table, ids)
    seen = np.flatnonzero((labels != NO_LABEL) & ~np.isin(ids, list(unread)))
    if not len(seen) or not (order.positions_of(labels[seen]) >= 0).any():
        return None
    rows = seen[draw_fitted(len(seen), len(known), len(order.ids), most=FITTED_ON)]
    return LabelledMembers(
        on,
        [np.asarray(one.values[rows], dtype=np.float32) for one in known],
        order.positions_of(labels[rows]),
        number_groups(table, [ids[row] for row in rows]).tolist(),
        {f"{on} {name}": one.fingerprint for name, one in zip(names, known, strict=True)},
    )
