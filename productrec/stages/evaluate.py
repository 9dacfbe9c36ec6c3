"""Evaluate: exact retrieval and classification figures of embeddings, with intervals, as benchmarks define them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from productrec.artifacts import is_fresh, load_manifest, write_artifact, write_text
from productrec.assembly.fused_figures import find_classifier, judge_fused
from productrec.class_order import ClassOrder
from productrec.competitions.contract import load_contract
from productrec.console import print_table, say, warn
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError, DataError
from productrec.metrics.answers import summarise_logits
from productrec.metrics.calibration import build_reliability
from productrec.metrics.category_tree import CategoryTree, compute_mistake_severity
from productrec.metrics.classification import compute_balanced_accuracy, compute_macro_f1
from productrec.metrics.competition import CompetitionMetric
from productrec.metrics.intervals import compute_intervals
from productrec.metrics.retrieval import RECALL_CUTOFFS, compute_retrieval
from productrec.recipe import Recipe
from productrec.recognition.open_set_figures import tell_open_set
from productrec.retrieval.embedding_set import EmbeddingSet, join_embedding_sets, load_embedding_set

KIND = "evaluation"
Protocol = Literal["auto", "self", "roles", "gallery"]
PROTOCOLS: dict[str, str] = {
    "self": "every image asks all others",
    "roles": "queries ask the gallery",
    "gallery": "the split asks the gallery splits",
}
_UNSEEN = np.iinfo(np.int64).min  # class of an image without a label


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


def run_evaluate(
    run: Path,
    recipe: Recipe,
    *,
    split: str = "val",
    views: str = "plain",
    protocol: Protocol = "auto",
    wanted: Wanted,
    keep: bool = True,
) -> Evaluation:
    """Evaluate an embedded split of a run.

    Args:
        run: the run folder, whose split (and gallery, where it is asked) is embedded.
        recipe: gallery splits and image table.
        split: whose images ask.
        views: preset of their views.
        protocol: who asks whom; ``auto`` for :func:`choose_protocol`.
        wanted: figures.
        keep: write them to ``RUN/evaluations/VIEWS/SPLIT/evaluation.json``, over what is there, and the open-set curve
            of the run's classifier beside it, ``open_set.csv``.

    Raises:
        ArtifactError: an embedding set is missing, or of another state of the table.
        DataError: the split has no labels, or nobody has anything to find.
    """
    table = load_table(recipe.table, root=recipe.data.images)
    chosen = choose_protocol(table, split, recipe.predict.gallery_splits) if protocol == "auto" else protocol
    asked = load_embedding_set(run / "embeddings" / views / split)
    gallery = list_gallery(recipe, split, views) if chosen == "gallery" else {}
    sets = {other: load_embedding_set(run / "embeddings" / seen / other) for other, seen in gallery.items()}
    again = f"productrec evaluate {run} --split {split} --views {views}"
    for embedded, seen in {split: views, **gallery}.items():
        _check_current(run / "embeddings" / seen / embedded, table, again)
    inputs = {"table": table.fingerprint, split: asked.fingerprint}
    inputs |= {f"gallery {name}": embedded.fingerprint for name, embedded in sets.items()}
    metric = load_contract(recipe.competition).scored_by
    settings = asdict(wanted) | {"protocol": chosen, "competition": metric.key}
    classifier = find_classifier(run, recipe, split, views) if wanted.fused else {}
    inputs |= classifier
    folder = run / "evaluations" / views / split
    if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
        return _load(folder)
    material = replace(_gather(table, asked, list(sets.values()), split, chosen), metric=metric)
    evaluation = evaluate_material(material, chosen, wanted)
    fused = judge_fused(run, recipe, table, split=split, views=views, draws=wanted.draws) if classifier else None
    if fused is not None:
        open_set = None if fused.open_set is None else fused.open_set.describe()
        evaluation = replace(evaluation, open_set=open_set, calibration=fused.reliability.describe())
    if not keep:
        return evaluation
    with write_artifact(folder, kind=KIND, inputs=inputs, settings=settings) as temporary:
        # In the order of computing, which sorted keys would lose.
        write_text(temporary / "evaluation.json", json.dumps(asdict(evaluation), indent=2) + "\n")
        if fused is not None and fused.open_set is not None:
            lines = [",".join(map(repr, row)) for row in fused.open_set.list_curve()]
            write_text(temporary / "open_set.csv", "\n".join(["threshold,true_accepts,false_accepts", *lines]) + "\n")
    return evaluation


def choose_protocol(table: ImageTable, split: str, gallery_splits: Sequence[str]) -> Protocol:
    """Who asks whom.

    In-Shop's roles where a split has them; the gallery where it holds one of the split's classes; else, as in SOP, CUB
    and Cars196, every image all others of the split.
    """
    rows = table.select([split])
    roles = set(rows["role"].dropna())
    if {"query", "gallery"} <= roles:
        return "roles"
    others = table.select([other for other in gallery_splits if other != split])
    shared = set(rows["label"].dropna()) & set(others["label"].dropna())
    return "gallery" if shared else "self"


def list_gallery(recipe: Recipe, split: str, views: str) -> dict[str, str]:
    """Splits that a split's images search, and the views of each; never itself, where each image would find itself.

    Raises:
        DataError: the recipe names no other split.
    """
    others = [other for other in recipe.predict.gallery_splits if other != split]
    if not others:
        raise DataError(
            f"evaluation: the gallery of {split} must be another split; got predict.gallery_splits of {split} alone. "
            "Name another with predict.gallery_splits, or let every image ask all others with --protocol self."
        )
    return dict.fromkeys(others, "plain" if views == "plain" else recipe.predict.gallery_tta)


def has_foreign_classes(run: Path, recipe: Recipe, split: str) -> bool:
    """Whether the head knows not one class of an embedded split, so that retrieval alone can judge it."""
    folder = run / "embeddings" / "plain" / split
    if not folder.exists():
        return False
    rows = load_table(recipe.table, root=recipe.data.images).select([split])
    labels = set(rows["label"].dropna().astype(int))
    return bool(labels) and not labels & set(load_embedding_set(folder).class_ids)


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


def report(evaluation: Evaluation, title: str) -> None:
    """Print the figures in %, mistake severity in levels of the tree."""
    rows = []
    for name, value in evaluation.figures.items():
        scale, digits = (1, 3) if name.endswith("severity") else (100, 2)
        ends = evaluation.intervals.get(name)
        shown = "" if ends is None else f"{scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f}"
        rows.append((name, f"{scale * value:.{digits}f}", shown))
    print_table(f"{title}: {evaluation.protocol}", ("", "%", "95 % interval"), rows)
    say(
        f"{evaluation.queries:,} queries, {evaluation.queries_without_positives:,} of them without a positive, "
        f"{evaluation.gallery_rows:,} gallery rows"
    )
    if evaluation.calibration is not None:
        say(f"the classifier's confidence: {build_reliability(evaluation.calibration).tell()}")
    if evaluation.open_set is not None:
        say(f"unknown products: {tell_open_set(evaluation.open_set)}")


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


def _gather(table: ImageTable, asked: EmbeddingSet, sets: list[EmbeddingSet], split: str, protocol: str) -> Material:
    images = table.images.set_index("image_id")
    labels, roles = images["label"], images["role"]

    def find_labels(embedded: EmbeddingSet) -> np.ndarray:
        return np.asarray(labels.loc[embedded.ids].fillna(_UNSEEN).to_numpy(dtype=np.int64))

    own = find_labels(asked)
    known = own != _UNSEEN
    if not known.any():
        raise DataError(f"{table.root}: no {split} image has a label, so there is nothing to compare with.")
    if not known.all():
        warn(f"{int((~known).sum()):,} {split} images have no label and are left out")
    paths = table.classes["path"].tolist()
    tree = CategoryTree(table.classes["id"].tolist(), [path if isinstance(path, str) else None for path in paths])
    embeddings = np.asarray(asked.embeddings)
    logits = asked.logits if set(own[known]) & set(asked.class_ids) else None
    if protocol == "roles":
        role = roles.loc[asked.ids].to_numpy(dtype=object)
        is_query, is_gallery = known & (role == "query"), known & (role == "gallery")
        if not is_query.any() or not is_gallery.any():
            raise DataError(f"{table.root}: {split} must have queries and a gallery for this protocol. Choose another.")
        gallery, gallery_labels = embeddings[is_gallery], own[is_gallery]
        chosen = is_query
    elif protocol == "gallery":
        if any(embedded.weights_digest != asked.weights_digest for embedded in sets):
            raise ArtifactError("evaluation: queries and gallery must come from one network. Embed them again.")
        joined = join_embedding_sets(sets, keep_logits=False)
        gallery, gallery_labels = np.asarray(joined.embeddings), find_labels(joined)
        chosen = known
    else:
        gallery, gallery_labels, chosen = None, None, known
    rows = slice(None) if chosen.all() else chosen  # a memory map stays one
    return Material(
        embeddings[rows],
        own[rows],
        gallery,
        gallery_labels,
        None if logits is None else np.asarray(logits)[rows],
        asked.class_ids,
        tree,
    )


def _check_current(folder: Path, table: ImageTable, again: str) -> None:
    if load_manifest(folder).inputs.get("table") != table.fingerprint:
        raise ArtifactError(
            f"{folder}: the image table has changed since these images were embedded. Embed them again: run `{again}`."
        )


def _load(folder: Path) -> Evaluation:
    kept: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    kept["intervals"] = {name: (low, high) for name, (low, high) in kept["intervals"].items()}
    return Evaluation(**kept)
