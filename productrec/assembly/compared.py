"""Two runs made comparable: their predictions of one split, and what both answered to the images that both know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.evidence import NO_LABEL, get_labels
from productrec.assembly.out_of_fold import find_out_of_fold_folder
from productrec.class_order import ClassOrder
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError, DataError, RecipeError, describe_offenders
from productrec.metrics.answers import NO_ANSWERS, Answers, join, summarise
from productrec.recipe import Recipe, load_recipe
from productrec.recognition.probabilities import ClassProbabilities, find_table_folder, load_probabilities

SPLITS = {"val": "validation images", "train": "training images, each out of fold", "test": "test images"}
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Target:
    """What is compared: a run's or an ensemble's folder, and, where one is named, the views of its predictions."""

    named: Path
    folder: Path
    views: str | None
    recipe: Recipe

    def list_views(self, split: str) -> dict[str, Path]:
        """The predictions of a split, by views; of training images those out of fold."""
        folders = [self.folder]
        if split == "train":
            models = sorted((self.folder / "out_of_fold").glob("*"))  # of a folder of folds
            folders += models if len(models) == 1 else []
            fitted = [
                find_out_of_fold_folder(self.folder, self.recipe, path.parent.name)
                for path in self.folder.glob("classifier/*/manifest.json")
            ]
            folders += [folder.parents[1] for folder in fitted if folder is not None]
        found = {
            path.parents[1].name: path.parent
            for folder in reversed(folders)
            for path in sorted(folder.glob(f"predictions/*/{split}/manifest.json"))
        }
        return found if self.views is None else {key: path for key, path in found.items() if key == self.views}


def find_target(named: Path) -> Target:
    """The run or ensemble that a folder is, or whose predictions ``RUN/predictions/VIEWS`` it holds.

    Raises:
        ArtifactError: it is nothing of these.
    """
    folder = named.absolute()
    views = None
    if folder.parent.name == "predictions" and not (folder / "recipe.yaml").is_file():
        folder, views = folder.parents[1], folder.name
    kept = next((above for above in (folder, *folder.parents[:2]) if (above / "recipe.yaml").is_file()), None)
    if kept is None:
        raise ArtifactError(
            f"{named}: must be the folder of a run or of an ensemble, or its predictions, RUN/predictions/VIEWS; it "
            "has no recipe.yaml. Name one that `productrec predict` was run on."
        )
    return Target(named, folder, views, load_recipe(kept / "recipe.yaml"))


def choose_predictions(first: Target, second: Target, *, split: str | None, views: str | None) -> tuple[Path, Path]:
    """The folders of predictions that are compared: of one split, and through the same views where no views are named.

    Args:
        first, second: what is compared.
        split: None for validation images, or else training images out of fold.
        views: None for the first recipe's, else the plain view, else any that both have.

    Raises:
        ArtifactError: one has none, with the command that makes them, or they have no split or no views in common.
    """
    wanted = [split] if split is not None else ["val", "train"]
    known = [{name: target.list_views(name) for name in wanted} for target in (first, second)]
    for target, own in zip((first, second), known, strict=True):
        if not any(own.values()):
            raise ArtifactError(_tell_absent(target, wanted))
    shared = [name for name in wanted if all(own[name] for own in known)]
    if not shared:
        told = [next(SPLITS[name] for name in wanted if own[name]) for own in known]
        raise ArtifactError(
            f"compare: both must have predictions of one split; {first.named} has those of {told[0]}, {second.named} "
            f"those of {told[1]}. Run `productrec predict` on both, on a table with validation images."
        )
    one, other = (own[shared[0]] for own in known)
    if first.views is not None and second.views is not None:
        return one[first.views], other[second.views]
    common = sorted(one.keys() & other.keys())
    wish = [views] if views is not None else [first.recipe.predict.tta, "plain", *common]
    chosen = next((name for name in wish if name in common), None)
    if chosen is None:
        named = views or next(iter(one))
        lacking = second if named in one else first
        raise ArtifactError(
            f"compare: both must have predictions through the same views; {first.named} has {', '.join(sorted(one))}, "
            f"{second.named} has {', '.join(sorted(other))}. Run `productrec predict {lacking.named} --views {named}`, "
            "or name both folders RUN/predictions/VIEWS."
        )
    return one[chosen], other[chosen]


def _tell_absent(target: Target, wanted: Sequence[str]) -> str:
    lacks = "validation images, nor of training images out of fold" if len(wanted) > 1 else SPLITS[wanted[0]]
    through = "" if target.views is None else f" through {target.views}"
    if wanted == ["train"]:
        return (
            f"{target.named}: has no predictions of {lacks}{through}. Run `productrec run RECIPE --folds 5`, on a "
            "table with folds."
        )
    return f"{target.named}: has no predictions of {lacks}{through}. Run `productrec predict {target.named}`."


@dataclass(frozen=True)
class Side:
    """One of the two: its name, its predictions, and the table that they are of, in the folder ``where``."""

    name: str
    target: Target
    probabilities: ClassProbabilities
    table: ImageTable
    where: Path


def load_sides(first: Target, second: Target, *, split: str | None, views: str | None) -> tuple[Side, Side]:
    """Both with the predictions of `choose_predictions`, and with names that tell them apart.

    Raises:
        ArtifactError: as there; or predictions are damaged, keep no class keys, or their table is gone.
        RecipeError: both are the same predictions.
    """
    folders = choose_predictions(first, second, split=split, views=views)
    if folders[0].resolve() == folders[1].resolve():
        raise RecipeError(f"compare: must be two; {first.named} and {second.named} have the same predictions.")
    sides = []
    for name, target, folder in zip(_name_apart((first, second), folders), (first, second), folders, strict=True):
        probabilities = load_probabilities(folder)
        where = find_table_folder(probabilities, target.recipe.table)
        if where is None:
            raise ArtifactError(
                f"{folder}: its image table must be on this machine, for the true classes; {target.recipe.table} is "
                "not. Run the command where it lies."
            )
        if not probabilities.keys:
            raise ArtifactError(f"{folder}: is of an older version, without keys of classes. Run `productrec predict`.")
        sides.append(Side(name, target, probabilities, load_table(where), where))
    return sides[0], sides[1]


def _name_apart(targets: Sequence[Target], folders: Sequence[Path]) -> tuple[str, str]:
    one, other = targets
    if one.folder.resolve() == other.folder.resolve():
        return folders[0].parent.name, folders[1].parent.name  # the views
    if one.folder.name != other.folder.name:
        return one.folder.name, other.folder.name
    return str(one.named), str(other.named)


@dataclass(frozen=True)
class Aligned:
    """What both answered to the N images that both answered and whose class is known, by the first one's order.

    ``ids``: (N,); ``truths``: (N,) keys of their classes; ``answers``: of both, each by its own order of classes;
    ``named``: (N,) keys of the classes that each answers; ``names``: of classes, by key; ``notes``: what was not
    compared, or not in the same way, in sentences.
    """

    ids: list[str]
    truths: list[str]
    answers: tuple[Answers, Answers]
    named: tuple[list[str], list[str]]
    names: dict[str, str]
    notes: list[str]


def align_sides(first: Side, second: Side) -> Aligned:
    """Take of both what can be compared: images by id, classes by key.

    Raises:
        DataError: there is no image that both answered and whose class is known.
    """
    truths = [_find_truths(side) for side in (first, second)]
    both = [image_id for image_id in first.probabilities.ids if image_id in truths[1]]
    read = [image_id for image_id in both if truths[0].get(image_id) and truths[1][image_id]]
    ids = [image_id for image_id in read if truths[0][image_id] == truths[1][image_id]]
    if not ids:
        raise DataError(
            f"compare: {first.name} and {second.name} must have answered some of the same images, of known classes; "
            f"they have {len(both):,} images in common, {len(read):,} of them with a class, none of one class in both "
            "tables. Compare runs of one competition."
        )
    labels = [truths[0][image_id] or "" for image_id in ids]
    answers, named = zip(*(_answer(side.probabilities, ids, labels) for side in (first, second)), strict=True)
    names: dict[str, str] = {}
    for side in (second, first):
        all_ids = side.table.classes["id"].tolist()
        names |= zip(get_class_keys(side.table, all_ids), side.table.get_class_names(all_ids), strict=True)
    return Aligned(ids, labels, answers, named, names, _tell_notes(first, second, len(both), read, ids))


def _find_truths(side: Side) -> dict[str, str | None]:
    """By id of an image that was read and that is in the table: the key of its class, None without a label."""
    unread, present = set(side.probabilities.fallback), set(side.table.images["image_id"])
    ids = [image_id for image_id in side.probabilities.ids if image_id not in unread and image_id in present]
    labels = get_labels(side.table, ids).tolist()
    known = sorted({label for label in labels if label != NO_LABEL})
    keys = dict(zip(known, get_class_keys(side.table, known), strict=True))
    return {image_id: keys.get(label) for image_id, label in zip(ids, labels, strict=True)}


def _answer(probabilities: ClassProbabilities, ids: Sequence[str], truths: Sequence[str]) -> tuple[Answers, list[str]]:
    row_of = {image_id: row for row, image_id in enumerate(probabilities.ids)}
    rows = np.array([row_of[image_id] for image_id in ids], dtype=np.int64)
    positions = ClassOrder(probabilities.keys).positions_of(np.array(truths))
    parts = [NO_ANSWERS]
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        parts.append(summarise(np.asarray(probabilities.values[rows[block]]), positions[block]))
    answers = join(parts)
    return answers, [probabilities.keys[best] for best in answers.best.tolist()]


def _tell_notes(first: Side, second: Side, both: int, read: Sequence[str], ids: Sequence[str]) -> list[str]:
    notes = []
    for side, other in ((first, second), (second, first)):
        alone = len(side.probabilities.ids) - both
        if alone:
            notes.append(f"{alone:,} images of {side.name} are left out, which {other.name} did not answer or read.")
    if both > len(read):
        notes.append(f"{both - len(read):,} images without a known class are left out.")
    if len(read) > len(ids):
        moved = sorted(set(read) - set(ids))
        notes.append(f"{describe_offenders(moved)} images have another class in each table, and are left out.")
    if first.table.fingerprint != second.table.fingerprint:
        notes.append(f"The image tables differ ({first.where}, {second.where}): images are told by their ids.")
    if first.probabilities.keys != second.probabilities.keys:
        own, others = set(first.probabilities.keys), set(second.probabilities.keys)
        notes.append(
            f"The classes differ ({len(own):,} of {first.name}, {len(others):,} of {second.name}, "
            f"{len(own & others):,} of both): classes are told by their keys, and an image of a class that one does "
            "not know counts as wrong."
        )
    for side in (first, second):
        if side.probabilities.table_fingerprint != side.table.fingerprint:
            notes.append(f"The table of {side.name} has changed since it predicted: true classes are those of now.")
    return notes
