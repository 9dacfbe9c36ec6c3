"""Figures of embeddings: what asks, what is asked, and every figure of retrieval and classification, with intervals."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from productrec.class_order import ClassOrder
from productrec.errors import DataError
from productrec.metrics.answers import summarise_logits
from productrec.metrics.category_tree import CategoryTree, compute_mistake_severity
from productrec.metrics.classification import compute_balanced_accuracy, compute_macro_f1
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.intervals import compute_intervals
from productrec.metrics.retrieval import RECALL_CUTOFFS, compute_retrieval

Protocol = Literal["auto", "self", "roles", "gallery"]
PROTOCOLS: dict[str, str] = {
    "self": "every image asks all others",
    "roles": "queries ask the gallery",
    "gallery": "the split asks the gallery splits",
}


@dataclass(frozen=True)
class Wanted:
    """What to compute: K of Recall@K and of MAP@K, draws of the bootstrap (0 for no intervals), k-means or not.

    ``fused``: also how the run's classifier does with unknown products, and what its confidence is worth.
    """

    cutoffs: tuple[int, ...] = RECALL_CUTOFFS
    precision_cutoffs: tuple[int, ...] = (10,)
    draws: int = 1000
    clustering: bool = True
    seed: int = 0
    fused: bool = True


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, and the low and high end of their intervals where there are some.

    ``open_set`` and ``calibration``: as `OpenSetFigures` and `Reliability` describe themselves, of the run's
    classifier; None where it has none for these images.
    """

    protocol: str
    queries: int
    gallery_rows: int
    queries_without_positives: int
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    open_set: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None


@dataclass(frozen=True)
class Material:
    """Embeddings (Q, D) that ask, those (M, D) that are asked (None where each asks all others), and their labels.

    ``logits``: (Q, C) of the head in the order of ``class_ids``, None where it knows no class of the queries;
    ``metric``: a competition's, that the head is judged by too.
    """

    queries: np.ndarray
    labels: np.ndarray
    gallery: np.ndarray | None = None
    gallery_labels: np.ndarray | None = None
    logits: np.ndarray | None = None
    class_ids: Sequence[int] = ()
    tree: CategoryTree | None = None
    metric: CompetitionMetric | None = None


def load_material(path: Path, labels: Path | None = None) -> Material:
    """Embeddings from a ``.npz`` (``embeddings``, ``labels``, and ``is_query`` or ``gallery``, ``gallery_labels``), or
    from a ``.npy`` with the labels in another.

    Raises:
        DataError: an array is missing, is_query does not fit, or the file cannot be read.
    """
    arrays = _read_arrays(path, "embeddings")
    if labels is not None:
        arrays |= {"labels": _read_arrays(labels, "labels").get("labels", np.empty(0))}
    if not {"embeddings", "labels"} <= set(arrays):
        raise DataError(
            f"{path}: must hold the arrays embeddings and labels; got {', '.join(sorted(arrays))}. "
            "Name a .npy of labels with --labels."
        )
    rows, known = arrays["embeddings"], arrays["labels"]
    if "is_query" not in arrays:
        return Material(rows, known, arrays.get("gallery"), arrays.get("gallery_labels"))
    is_query = arrays["is_query"]
    if is_query.shape != rows.shape[:1] or known.shape != rows.shape[:1] or not np.isin(is_query, (0, 1)).all():
        raise DataError(
            f"{path}: labels and is_query must be {len(rows)} values, one a row, is_query of booleans or of 0 and 1; "
            f"got shapes {known.shape} and {is_query.shape}, is_query of {is_query.dtype}."
        )
    asks = is_query.astype(bool)
    return Material(rows[asks], known[asks], rows[~asks], known[~asks])


def _read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name, or that of a ``.npy`` by the name given."""
    try:
        if path.suffix == ".npy":
            return {name: np.lib.format.open_memmap(path, mode="r")}
        with path.open("rb") as file:
            loaded = np.load(file)
            return {name: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as NumPy arrays ({error}). Write it again with numpy.save or numpy.savez."
        ) from None


def evaluate_material(material: Material, protocol: str, wanted: Wanted) -> Evaluation:
    """Compute the figures and, by bootstrap over the queries, their intervals.

    Raises:
        DataError: no query has anything to find, or embeddings are unsound.
    """
    labels, gallery_labels = material.labels, material.gallery_labels
    retrieval = compute_retrieval(
        material.queries,
        labels,
        material.gallery,
        gallery_labels,
        cutoffs=wanted.cutoffs,
        precision_cutoffs=wanted.precision_cutoffs,
    )
    if retrieval.without_positives == len(labels):
        raise DataError(
            f"evaluation: at least one query must have an image of its class to find; none of {len(labels):,} has "
            f"where {PROTOCOLS[protocol]}. Choose another protocol or split."
        )
    measures: list[Callable[[np.ndarray | None], dict[str, float]]] = [retrieval.measure]
    named = (labels if gallery_labels is None else gallery_labels)[retrieval.nearest]
    measures.append(_build_class_measure("nearest_", labels, named, material.tree))
    if material.logits is not None:
        measures.append(_build_head_measure(material))

    def measure(times: np.ndarray | None) -> dict[str, float]:
        return {name: value for compute in measures for name, value in compute(times).items()}

    figures = measure(None)
    intervals = {}
    if wanted.draws:
        intervals = compute_intervals(measure, len(labels), draws=wanted.draws, seed=wanted.seed)
    classes = len(np.unique(labels))
    if wanted.clustering and 1 < classes < len(labels):
        from productrec.metrics.clustering import cluster_embeddings, compute_clustering

        clusters = cluster_embeddings(np.asarray(material.queries, dtype=np.float32), classes, seed=wanted.seed)
        figures |= compute_clustering(labels, clusters)
    known = {name: value for name, value in figures.items() if value == value}  # without mistakes there is no severity
    ends = {name: intervals[name] for name in known if name in intervals}
    return Evaluation(
        PROTOCOLS[protocol], len(labels), retrieval.gallery_rows, retrieval.without_positives, known, ends
    )


def _build_class_measure(
    prefix: str, labels: np.ndarray, predicted: np.ndarray, tree: CategoryTree | None
) -> Callable[[np.ndarray | None], dict[str, float]]:
    severities = None if tree is None or tree.is_flat else tree.compute_severities(labels, predicted)

    def measure(times: np.ndarray | None) -> dict[str, float]:
        figures = {
            f"{prefix}macro_f1": compute_macro_f1(labels, predicted, times),
            f"{prefix}balanced_accuracy": compute_balanced_accuracy(labels, predicted, times),
        }
        if severities is not None:
            figures[f"{prefix}mistake_severity"] = compute_mistake_severity(severities, times)
        return figures

    return measure


def _build_head_measure(material: Material) -> Callable[[np.ndarray | None], dict[str, float]]:
    assert material.logits is not None
    class_ids = np.asarray(material.class_ids)
    answers = summarise_logits(material.logits, ClassOrder(class_ids).positions_of(material.labels))
    judged = [CompetitionMetric("top_k_error", k) for k in (1, 3, 5) if k < len(class_ids)]
    if material.metric is not None and material.metric not in judged:
        judged.append(material.metric)
    by_class = _build_class_measure("head_", material.labels, class_ids[answers.best], material.tree)

    def measure(times: np.ndarray | None) -> dict[str, float]:
        return {f"head_{metric.key}": metric.measure(answers, times) for metric in judged} | by_class(times)

    return measure
