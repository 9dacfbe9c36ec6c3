"""What a run knows of the images of a split: logits, neighbours and prototypes, joined from its artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from productrec.assembly.voters import load_voters
from productrec.class_order import ClassOrder
from productrec.competitions.contract import Contract
from productrec.data.table import DISTRACTORS, ImageTable
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.recognition.classifier import Classifier, Evidence
from productrec.recognition.distractors import compare_distractors
from productrec.recognition.objective import Objective
from productrec.recognition.open_set import Threshold, answer_open, choose_threshold
from productrec.recognition.prototypes import compare_prototypes
from productrec.recognition.unknown_label import choose_for_metric
from productrec.recognition.voters import VoterEvidence
from productrec.retrieval.embedding_set import JOINED, TEXT, EmbeddingSet, join_embedding_sets, load_embedding_set
from productrec.retrieval.neighbours import load_neighbours

NO_LABEL = int(np.iinfo(np.int64).min)
FITTED_ON = 20_000  # images at most
_NEVER = 30.0  # by how much the logit of a class that a head does not know is below its lowest


@dataclass(frozen=True)
class SplitEvidence:
    """The embedded images of a split and what is known of them, to be taken in blocks: all of it may fill the memory.

    ``ids``: (N,); ``queries``: their embeddings and logits, memory maps; ``rows``: (N, K) of the gallery, their
    neighbours, with ``classes`` and ``similarities`` (N, K); ``prototypes``: (C, D); ``categories``: (C,) or None;
    ``columns``: position of each of the logits' classes among the C, None where they are these; ``inputs``:
    fingerprints of what says so; ``distractors``: (M, D) embeddings of images of no class, None where there are none,
    and ``are_distractors``: whether the images are these themselves, each compared with the others; ``voters``: what
    further voters know of the N images.
    """

    ids: list[str]
    queries: EmbeddingSet
    rows: np.ndarray
    classes: np.ndarray
    similarities: np.ndarray
    prototypes: np.ndarray
    categories: Sequence[int] | None
    inputs: dict[str, str]
    columns: np.ndarray | None = None
    distractors: np.ndarray | None = None
    are_distractors: bool = False
    voters: Mapping[str, VoterEvidence] = field(default_factory=dict)

    def take(self, rows: slice | np.ndarray) -> Evidence:
        """The evidence of some images, in memory."""
        assert self.queries.logits is not None
        logits = np.asarray(self.queries.logits[rows])
        if self.columns is not None:
            logits = widen_logits(logits, self.columns, len(self.prototypes))
        embeddings = self.queries.embeddings[rows]
        far = None
        if self.distractors is not None:
            own = np.arange(len(self.ids))[rows] if self.are_distractors else None
            far = compare_distractors(embeddings, self.distractors, own)
        near = compare_prototypes(embeddings, self.prototypes)
        voters = {name: voter.take(rows) for name, voter in self.voters.items()}
        return Evidence(logits, self.classes[rows], self.similarities[rows], near, self.categories, far, voters)


def widen_logits(logits: np.ndarray, columns: np.ndarray, class_count: int) -> np.ndarray:
    """Logits (N, C) of all classes from those (N, K) that a head knows, at ``columns`` (K,); others far lower."""
    wide = np.repeat(logits.min(axis=1, keepdims=True) - _NEVER, class_count, axis=1)
    wide[:, columns] = logits
    return wide


def draw_rows(count: int) -> np.ndarray:
    """The rows of so many images that a classifier is fitted on: all, or `FITTED_ON` by a fixed seed, ascending."""
    return np.sort(np.random.default_rng(0).permutation(count)[:FITTED_ON])


def get_gallery_views(recipe: Recipe, views: str) -> str:
    """The preset of views through which the gallery is seen where queries are seen through ``views``."""
    return views if views in ("plain", TEXT, JOINED) else recipe.predict.gallery_tta


def load_gallery(run: Path, recipe: Recipe, views: str) -> EmbeddingSet:
    """The gallery's embeddings, split after split, as the index of ``views`` has them."""
    folder = run / "embeddings" / get_gallery_views(recipe, views)
    return join_embedding_sets(
        [load_embedding_set(folder / split) for split in recipe.predict.gallery_splits], keep_logits=False
    )


def load_evidence(
    run: Path,
    table: ImageTable,
    views: str,
    split: str,
    class_ids: Sequence[int],
    prototypes: np.ndarray,
    categories: Sequence[int] | None,
    distractors: np.ndarray | None = None,
    voters: Sequence[str] = (),
) -> SplitEvidence | None:
    """What is known of a split's images; None where there is none.

    Args:
        run: the run folder, with embedding and neighbour sets.
        table: whose images they are.
        views: preset of views.
        split: of the table.
        class_ids: (C,) that the head knows, ascending.
        prototypes: (C, D) of these classes.
        categories: (C,) of these classes, or None.
        distractors: (M, D) embeddings of images of no class; None for none.
        voters: names of further voters to load, where they have neighbours of the split.

    Raises:
        ArtifactError: the sets are of different images or classes.
    """
    folder = run / "embeddings" / views / split
    if not len(table.select([split])):  # what lies in the folder is of an earlier state of the table
        return None
    queries = load_embedding_set(folder)
    neighbours = load_neighbours(run / "neighbours" / views / split)
    odd = {
        "images (id order)": queries.ids != neighbours.ids,
        "classes (class order)": queries.class_ids != list(class_ids) or queries.logits is None,
        "distractors": split == DISTRACTORS and distractors is not None and len(distractors) != len(queries.ids),
    }
    if any(odd.values()):
        what = " and ".join(name for name, is_odd in odd.items() if is_odd)
        raise ArtifactError(f"{folder}: must be of the same {what} as its neighbours and the run; make the sets again.")
    if not queries.ids:
        return None
    further, voter_inputs = load_voters(run, voters, split, queries.ids, class_ids)
    return SplitEvidence(
        queries.ids,
        queries,
        neighbours.rows,
        ClassOrder(list(class_ids)).positions_of(neighbours.labels),
        neighbours.similarities,
        prototypes,
        categories,
        {"queries": queries.fingerprint, "neighbours": neighbours.fingerprint} | voter_inputs,
        distractors=distractors,
        are_distractors=split == DISTRACTORS,
        voters=further,
    )


def get_labels(table: ImageTable, ids: Sequence[str]) -> np.ndarray:
    """Class ids (N,) of images; `NO_LABEL` where the table holds none."""
    labels = dict(zip(table.images["image_id"], table.images["label"], strict=True))
    values = [labels[image_id] for image_id in ids]
    return np.array([NO_LABEL if value is None or pd.isna(value) else int(value) for value in values], dtype=np.int64)


def number_groups(table: ImageTable, ids: Sequence[str]) -> np.ndarray:
    """A number (N,) for each image's group; an image of none stands alone."""
    groups = dict(zip(table.images["image_id"], table.images["group"], strict=True))
    named = [group if isinstance(group := groups[image_id], str) else f"\0{image_id}" for image_id in ids]
    numbers: np.ndarray = np.unique(named, return_inverse=True)[1]
    return numbers


def compute_prior(table: ImageTable, class_ids: Sequence[int], splits: Sequence[str]) -> np.ndarray:
    """The share (C,) of each class among a table's images of some splits: what an unreadable image is given."""
    labels = table.select(splits)["label"].dropna().to_numpy(dtype=np.int64)
    positions = ClassOrder(list(class_ids)).positions_of(labels)
    counts = np.bincount(positions[positions >= 0], minlength=len(class_ids)).astype(np.float64)
    smoothed = counts + 1e-9
    prior: np.ndarray = smoothed / smoothed.sum()
    return prior


def number_categories(table: ImageTable, class_ids: Sequence[int]) -> list[int] | None:
    """A number for each class's category, that of its whole path in the tree; None where all classes are of one."""
    paths = dict(zip(table.classes["id"].tolist(), table.classes["path"].tolist(), strict=True))
    named = [path if isinstance(path := paths.get(class_id), str) else "" for class_id in class_ids]
    numbers = {path: number for number, path in enumerate(dict.fromkeys(named))}
    return [numbers[path] for path in named] if 1 < len(numbers) < len(named) else None


def get_grids(recipe: Recipe) -> dict[str, Any]:
    """What a fit tries, as a recipe says: arguments of `fit_classifier`."""
    settings = recipe.predict
    return {"k_grid": settings.k_grid, "power_grid": settings.power_grid, "parts": settings.parts}


def build_objective(contract: Contract) -> Objective:
    """What a fit makes small for a competition."""
    return Objective(contract.metric, contract.metric_k)


def load_distractors(run: Path, recipe: Recipe, table: ImageTable, views: str) -> EmbeddingSet | None:
    """A run's embeddings of the table's distractors, seen as the gallery is; None where it has none."""
    if not len(table.select([DISTRACTORS])):
        return None
    return load_embedding_set(run / "embeddings" / get_gallery_views(recipe, views) / DISTRACTORS)


def fit_unknown(
    evidence: Evidence,
    labels: np.ndarray,
    classifier: Classifier,
    contract: Contract,
    distractors: Evidence | None = None,
) -> Threshold | None:
    """From when on an answer is believed: for the contract's metric where that has a label for unknown products.

    Else, as `fit_threshold`, where 1 % of the unknown are believed. Unknown are the ``distractors``, where there are
    enough; else products that are hidden. None where too few can be. Further voters are not asked, so that a threshold
    is the same for photos without a title.
    """
    seen = answer_open(evidence, labels, classifier.ask(()), distractors)
    if seen is None:
        return None
    if contract.unknown_label is None:
        return choose_threshold(seen)
    class_count = evidence.logits.shape[1]
    chosen = choose_for_metric(seen, contract.scored_by, class_count, unknown_share=contract.unknown_share)
    return replace(chosen, label=contract.unknown_label)
