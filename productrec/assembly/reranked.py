"""A split's neighbours re-ranked: candidates that a classifier is fitted on, and answers block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from productrec.assembly.evidence import SplitEvidence, get_labels, load_gallery
from productrec.assembly.out_of_fold import draw_evidence
from productrec.class_order import ClassOrder
from productrec.console import warn
from productrec.data.table import ImageTable
from productrec.errors import ArtifactError
from productrec.recipe import Recipe
from productrec.recognition.classifier import RERANKED, Classifier, Evidence, compute_parts, compute_voters, fuse
from productrec.recognition.classifier_file import SavedClassifier
from productrec.recognition.open_set import Threshold, believe
from productrec.recognition.reranked import KeptReranking, Reranker, answer_reranked, build_reranker
from productrec.retrieval.reranking.declared import Reranking


def get_rerankings(recipe: Recipe) -> tuple[Reranking, ...]:
    """The methods that a fit tries."""
    return tuple(method for method in recipe.predict.reranking if isinstance(method, Reranking))


class Gallery(NamedTuple):
    """What was searched: ``embeddings`` (M, D), and ``labels`` (M,) class positions, -1 for none of the classes."""

    embeddings: np.ndarray
    labels: np.ndarray


class Answered(NamedTuple):
    """Answers for B images.

    ``parts``: class probabilities (B, C) by name, and those of further voters, with ``lacks`` (B,) bool, the images
    that do not have a voter, by its name; ``believed`` (B,) bool: whether each image is of a known class, as the first
    search tells; None without a threshold.
    """

    parts: dict[str, np.ndarray]
    believed: np.ndarray | None
    lacks: Mapping[str, np.ndarray] = MappingProxyType({})


def prepare_reranker(method: Reranking, split: SplitEvidence, gallery: Gallery, *, depth: int) -> Reranker:
    """A method ready for the gallery that a split's images were searched in; ``depth``: neighbours it starts from."""
    return build_reranker(method, gallery.embeddings, gallery.labels, split.prototypes, split.categories, depth=depth)


def take_reranked(split: SplitEvidence, reranker: Reranker, rows: slice | np.ndarray) -> Evidence:
    """The evidence of some images of a split, re-ranked."""
    return reranker.rerank(split.take(rows), split.queries.embeddings[rows], split.rows[rows])


def list_candidates(
    methods: Sequence[Reranking], searched: Sequence[tuple[SplitEvidence, Gallery]]
) -> Iterator[tuple[Reranking, Evidence]]:
    """Each method with the evidence that a classifier is fitted on, re-ranked; made one after another.

    A method that needs labels is left out, with a warning, where a gallery has none.

    Args:
        methods: to try.
        searched: splits, or folds, each with its gallery; see `draw_evidence`.
    """
    depth = min((split.rows.shape[1] for split, _ in searched), default=0)
    for method in methods:
        try:
            for _, gallery in searched:
                method.check_labels(gallery.labels if (gallery.labels >= 0).any() else None)
        except ArtifactError as error:
            warn(f"{error} It is not tried.")
            continue

        def take(number: int, rows: np.ndarray, method: Reranking = method) -> Evidence:
            split, gallery = searched[number]
            return take_reranked(split, prepare_reranker(method, split, gallery, depth=depth), rows)

        yield method, draw_evidence([split for split, _ in searched], take)[0]


def answer_block(
    split: SplitEvidence,
    rows: slice | np.ndarray,
    classifier: Classifier,
    kept: KeptReranking | None,
    reranker: Reranker | None,
    unknown: Threshold | None = None,
) -> Answered:
    """Answer for some images by each part, and by the re-ranking that was kept, if one was."""
    evidence = split.take(rows)
    parts = compute_parts(evidence, classifier)._asdict()
    believed = None
    if unknown is not None:  # fitted without further voters
        alone = fuse(parts, classifier, evidence.categories) if classifier.further else parts["fused"]
        believed = believe(evidence, alone, unknown)
    parts |= (said := compute_voters(evidence, classifier))
    if kept is not None and reranker is not None:
        seen = reranker.rerank(evidence, split.queries.embeddings[rows], split.rows[rows])
        parts[RERANKED] = answer_reranked(seen, kept)
    return Answered(parts, believed, {name: ~evidence.voters[name].has for name in said})


Answer = Callable[[SplitEvidence, slice | np.ndarray], Answered]


def prepare_answering(
    run: Path,
    recipe: Recipe,
    table: ImageTable,
    views: str,
    class_ids: list[int],
    saved: SavedClassifier,
    known: Sequence[SplitEvidence | None],
) -> Answer:
    """What answers for some images of a split, as its classifier was fitted; a gallery is re-ranked once for all.

    Args:
        run: the run folder, with embedding sets and index of these views.
        recipe: gallery splits and views.
        table: whose images they are.
        views: preset of views.
        class_ids: (C,) that the head knows, ascending.
        saved: the classifier.
        known: the splits that are asked about.
    """
    split, reranker = next((one for one in known if one is not None), None), None
    if saved.reranked is not None and split is not None:
        rows = load_gallery(run, recipe, views)
        gallery = Gallery(rows.embeddings, ClassOrder(class_ids).positions_of(get_labels(table, rows.ids)))
        reranker = prepare_reranker(saved.reranked.method, split, gallery, depth=saved.reranked.depth)
    return partial(
        answer_block, classifier=saved.classifier, kept=saved.reranked, reranker=reranker, unknown=saved.unknown
    )
