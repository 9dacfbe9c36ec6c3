"""Several runs' embeddings of one image table, checked to be of the same images and classes, as one joint space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.evidence import draw_rows, get_labels, load_gallery, number_categories
from productrec.class_order import ClassOrder
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.ensembling.blend import check_same_order
from productrec.ensembling.concatenation import check_members
from productrec.ensembling.joint_fitting import answer_by_vote
from productrec.ensembling.joint_prototypes import JointPrototypes
from productrec.ensembling.joint_search import Candidates, JointGallery, JointRule
from productrec.errors import ArtifactError
from productrec.metrics.answers import Answers, join
from productrec.recipe import Recipe
from productrec.recognition.classifier import Evidence
from productrec.retrieval.embedding_set import EmbeddingSet, load_embedding_set
from productrec.training.run.checkpoint import load_checkpoint

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class JointSplit:
    """Images of a split as V models embed them: ``ids`` (N,), ``queries`` V sets, ``inputs`` their fingerprints."""

    ids: list[str]
    queries: list[EmbeddingSet]
    inputs: dict[str, str]

    def take(self, rows: slice | np.ndarray) -> list[np.ndarray]:
        """V arrays (B, D_m) of some images."""
        return [np.asarray(one.embeddings[rows], dtype=np.float32) for one in self.queries]


@dataclass(frozen=True)
class JointSpace:
    """A gallery as V models embed it.

    ``names``: of the runs; ``rule``: how similarities become one; ``table``: whose images they are; ``class_ids``: (C,)
    ascending, with their ``keys``; ``labels``: (M,) class positions of the gallery; ``neighbours``: that are fetched;
    ``gallery``: V sets; ``is_trained_on_validation``: whether a run was trained on validation images, so that nothing
    can be fitted on them; ``inputs``: fingerprints of all that.
    """

    names: list[str]
    rule: JointRule
    table: ImageTable
    class_ids: list[int]
    keys: list[str]
    categories: list[int] | None
    labels: np.ndarray
    neighbours: int
    gallery: list[EmbeddingSet]
    search: JointGallery
    prototypes: JointPrototypes
    is_trained_on_validation: bool
    inputs: dict[str, str]

    def see(self, split: JointSplit, rows: slice | np.ndarray, shares: np.ndarray) -> Evidence:
        """The evidence of some images by some shares (V,), without logits: a joint space has no head."""
        queries = split.take(rows)
        found = self.search.search(queries, shares, self.rule, self.neighbours)
        near = self.prototypes.compare(queries, shares, self.rule)
        return Evidence(np.zeros_like(near), self.labels[found.rows], found.similarities, near, self.categories)

    def find_candidates(self, split: JointSplit, rows: np.ndarray) -> list[Candidates]:
        """What some images may be near to, in blocks, for weights to be searched on."""
        starts = range(0, len(rows), _BLOCK_ROWS)
        blocks = (split.take(rows[start : start + _BLOCK_ROWS]) for start in starts)
        return [self.search.find_candidates(block, self.neighbours) for block in blocks]

    def answer(self, blocks: Sequence[Candidates], labels: np.ndarray, shares: np.ndarray) -> Answers:
        """Answers by the nearest of candidates, to images of class positions ``labels`` (N,), by some shares."""
        seen, start = [], 0
        for block in blocks:
            found = block.rank(shares, self.rule, min(self.neighbours, block.rows.shape[1]))
            classes = np.where(found.rows >= 0, self.labels[np.maximum(found.rows, 0)], -1)
            own = labels[start : start + len(classes)]
            seen.append(answer_by_vote(classes, found.similarities, own, len(self.class_ids)))
            start += len(classes)
        return join(seen)


def load_joint_space(runs: Mapping[Path, Recipe], rule: JointRule) -> JointSpace:
    """The gallery of several runs.

    Args:
        runs: run folders with their recipes; the first one's neighbours are fetched.
        rule: of `join_similarities`.

    Raises:
        ArtifactError: runs are not of one image table, gallery or list of classes, or an embedding set is missing,
            damaged, or holds a row that is not finite or is zero; by name.
    """
    names = name_runs(runs)
    tables = [load_table(recipe.table, root=recipe.data.images) for recipe in runs.values()]
    table = tables[0]
    for name, other in zip(names, tables, strict=True):
        if other.fingerprint != table.fingerprint:
            raise ArtifactError(
                f"joint space: runs must be of one image table; {names[0]} is of {table.root} and {name} of "
                f"{other.root}, which holds others. Combine runs of one table, or blend their class probabilities."
            )
    trained = [load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint) for run, recipe in runs.items()]
    classes = [sorted(checkpoint.match_classes(table)) for checkpoint in trained]
    keys = [get_class_keys(table, class_ids) for class_ids in classes]
    check_same_order(names, keys, "class keys")
    first = next(iter(runs.values()))
    for name, recipe in zip(names, runs.values(), strict=True):
        if "val" in recipe.predict.gallery_splits:
            raise ArtifactError(
                f"{name}: val must not be in the gallery of its own queries, each image would find itself. Leave it "
                "out of predict.gallery_splits."
            )
    gallery = [load_gallery(run, recipe, recipe.predict.tta) for run, recipe in runs.items()]
    check_members([f"{name} (gallery)" for name in names], *_list_rows(gallery))
    categories = number_categories(table, classes[0])
    labels = ClassOrder(classes[0]).positions_of(get_labels(table, gallery[0].ids))
    rows = [one.embeddings for one in gallery]
    return JointSpace(
        names,
        rule,
        table,
        classes[0],
        keys[0],
        categories,
        labels,
        first.predict.neighbours,
        gallery,
        JointGallery(rows),
        JointPrototypes(rows, labels, len(classes[0]), categories=categories),
        any("val" in checkpoint.recipe["train"]["splits"] for checkpoint in trained),
        {"table": table.fingerprint}
        | {f"gallery of {name}": one.fingerprint for name, one in zip(names, gallery, strict=True)},
    )


def load_joint_split(space: JointSpace, runs: Mapping[Path, Recipe], split: str) -> JointSplit | None:
    """The images of a split, each through its run's views; None where the table has no readable ones.

    Raises:
        ArtifactError: a set is missing, damaged, or of other images, weights or views than expected, by name.
    """
    if not len(space.table.select([split])):
        return None
    sets = [load_embedding_set(run / "embeddings" / recipe.predict.tta / split) for run, recipe in runs.items()]
    check_members([f"{name} ({split})" for name in space.names], *_list_rows(sets))
    for name, queries, gallery in zip(space.names, sets, space.gallery, strict=True):
        if queries.weights_digest != gallery.weights_digest:
            raise ArtifactError(
                f"{name}: {split} images must be embedded by the network that embedded its gallery; got weights "
                f"{queries.weights_digest[:12]} and {gallery.weights_digest[:12]}. Run `productrec predict` again."
            )
    inputs = {f"{split} of {name}": one.fingerprint for name, one in zip(space.names, sets, strict=True)}
    return JointSplit(sets[0].ids, sets, inputs) if sets[0].ids else None


def name_runs(runs: Mapping[Path, Recipe]) -> list[str]:
    """What runs are called: their folders' names.

    Raises:
        ArtifactError: there are fewer than two, or two have one name.
    """
    names = [folder.name for folder in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ArtifactError(
            f"joint space: must be of two runs or more, whose folders have different names; got {', '.join(names)}."
        )
    return names


def find_labelled(space: JointSpace, split: JointSplit) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images that a joint space is fitted on, at most as many as `draw_rows`, and their class positions."""
    rows = draw_rows(len(split.ids))
    return rows, ClassOrder(space.class_ids).positions_of(get_labels(space.table, split.ids))[rows]


def _list_rows(sets: Sequence[EmbeddingSet]) -> tuple[list[list[str]], list[np.ndarray]]:
    return [one.ids for one in sets], [one.embeddings for one in sets]
