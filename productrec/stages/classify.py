"""Classify: head and neighbours of one run become class probabilities, fused as validation says is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from productrec.artifacts import is_fresh
from productrec.assembly.table_state import digest_rows
from productrec.class_order import ClassOrder
from productrec.competitions.contract import Contract, load_contract
from productrec.console import warn
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable, load_table
from productrec.errors import ArtifactError
from productrec.metrics.classification import compute_label_ranks
from productrec.recipe import Recipe
from productrec.recognition.fusion import PARTS, Evidence, Fusion, compute_parts, fit_fusion
from productrec.recognition.probabilities import KIND, write_probabilities
from productrec.recognition.scores import Scores, score_ranks
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.retrieval.neighbours import load_neighbours
from productrec.training.run.checkpoint import load_checkpoint

_BLOCK_ROWS = 4096
_NO_LABEL = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Classified:
    """Scores by way to predict on validation images, and on test images whose labels the table holds."""

    validation: dict[str, Scores]
    test: dict[str, Scores]


@dataclass(frozen=True)
class SplitEvidence:
    """The images of a split that were embedded, what is known of them, and the fingerprints of what says so."""

    ids: list[str]
    evidence: Evidence
    inputs: dict[str, str]


def run_classify(run: Path, recipe: Recipe, *, views: str) -> Classified:
    """Write the class probabilities of validation and test images, ``RUN/predictions/VIEWS/SPLIT``.

    k, power and head weight are fitted on validation for the competition's metric, where there are validation images
    that the run was not trained on; else they keep their defaults, with a warning. An image that cannot be read gets
    the share of each class among the training images.

    Args:
        run: the run folder, with embedding and neighbour sets.
        recipe: grids, contract, table.
        views: preset of views.

    Returns:
        Scores of head, nearest, vote and fused; empty without such images.

    Raises:
        ArtifactError: sets of different networks or images.
    """
    table, contract = load_table(recipe.table, root=recipe.data.images), load_contract(recipe.competition)
    trained = load_checkpoint(run / "checkpoints" / recipe.predict.checkpoint)
    class_ids = sorted(trained.match_classes(table))
    if len(class_ids) == 1:
        only = table.get_class_names(class_ids)[0]
        warn(f"{run.name}: knows one class alone, {only!r}: every image is given it, and accuracy says nothing.")
    validation = _load_evidence(run, table, views, "val", class_ids)
    scores: dict[str, Scores] = {}
    fusion = Fusion()
    if validation is None or "val" in trained.recipe["train"]["splits"]:
        warn(f"{run.name}: no validation images it was not trained on; fusing by default: {fusion.describe()}")
    elif not np.isin(labels := _get_labels(table, validation.ids), class_ids).any():
        warn(f"{run.name}: its head knows no class of the validation images; fusing by default: {fusion.describe()}")
    else:
        fusion = fit_fusion(
            validation.evidence,
            ClassOrder(class_ids).positions_of(labels),
            measure=build_measure(contract),
            k_grid=recipe.predict.k_grid,
            power_grid=recipe.predict.power_grid,
            head_weight_grid=recipe.predict.head_weight_grid,
        )
        scores = _score(validation.evidence, labels, class_ids, fusion, contract)
    prior = _compute_prior(table, class_ids, recipe.predict.gallery_splits)
    test = _load_evidence(run, table, views, "test", class_ids)
    for split, known in (("val", validation), ("test", test)):
        if len(table.select([split], usable=False)):
            _write(run, recipe, table, split, views, known, class_ids, fusion, prior, scores)
    return Classified(scores, _score_test(test, table, class_ids, fusion, contract))


def _score(
    evidence: Evidence, labels: np.ndarray, class_ids: list[int], fusion: Fusion, contract: Contract
) -> dict[str, Scores]:
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    for start in range(0, len(labels), _BLOCK_ROWS):
        stop = start + _BLOCK_ROWS
        parts = compute_parts(evidence.take(start, stop), fusion)
        for name in PARTS:
            ranks[name].append(compute_label_ranks(getattr(parts, name), np.array(class_ids), labels[start:stop]))
    return {name: score_ranks(np.concatenate(ranks[name]), metric_k=contract.metric_k) for name in PARTS}


def _score_test(
    test: SplitEvidence | None,
    table: ImageTable,
    class_ids: list[int],
    fusion: Fusion,
    contract: Contract,
) -> dict[str, Scores]:
    """Scores on the test images whose labels are known, which nothing was fitted on; none where the head knows none."""
    if test is None:
        return {}
    evidence, labels = test.evidence, _get_labels(table, test.ids)
    known = np.flatnonzero(labels != _NO_LABEL)
    if not np.isin(labels[known], class_ids).any():
        return {}
    chosen = Evidence(evidence.logits[known], evidence.classes[known], evidence.similarities[known])
    return _score(chosen, labels[known], class_ids, fusion, contract)


def build_measure(contract: Contract) -> Callable[[np.ndarray], tuple[float, ...]]:
    """What a fit makes small: the competition's error, then, between equals, the top-1 error."""
    return lambda ranks: (float((ranks >= contract.metric_k).mean()), float((ranks >= 1).mean()))


def _load_evidence(run: Path, table: ImageTable, views: str, split: str, class_ids: list[int]) -> SplitEvidence | None:
    folder = run / "embeddings" / views / split
    if not len(table.select([split])):  # what lies in the folder is of an earlier state of the table
        return None
    queries = load_embedding_set(folder)
    neighbours = load_neighbours(run / "neighbours" / views / split)
    if queries.ids != neighbours.ids or queries.class_ids != class_ids or queries.logits is None:
        raise ArtifactError(
            f"{folder}: embedding and neighbour sets must be of the same images and classes; make them again."
        )
    if not queries.ids:
        return None
    classes = ClassOrder(class_ids).positions_of(neighbours.labels)
    inputs = {"queries": queries.fingerprint, "neighbours": neighbours.fingerprint}
    return SplitEvidence(queries.ids, Evidence(queries.logits, classes, neighbours.similarities), inputs)


def _get_labels(table: ImageTable, ids: list[str]) -> np.ndarray:
    labels = dict(zip(table.images["image_id"], table.images["label"], strict=True))
    # A validation image without a label counts as one whose class is unknown.
    values = [labels[image_id] for image_id in ids]
    return np.array([_NO_LABEL if value is None or pd.isna(value) else int(value) for value in values], dtype=np.int64)


def _compute_prior(table: ImageTable, class_ids: list[int], splits: tuple[str, ...]) -> np.ndarray:
    positions = ClassOrder(class_ids).positions_of(table.select(splits)["label"].to_numpy(dtype=np.int64))
    counts = np.bincount(positions[positions >= 0], minlength=len(class_ids)).astype(np.float64)
    smoothed = counts + 1e-9
    prior: np.ndarray = smoothed / smoothed.sum()
    return prior


def _write(
    run: Path,
    recipe: Recipe,
    table: ImageTable,
    split: str,
    views: str,
    known: SplitEvidence | None,
    class_ids: list[int],
    fusion: Fusion,
    prior: np.ndarray,
    scores: dict[str, Scores],
) -> None:
    """Write the fusion's class probabilities of a split, and those of its parts where they are kept."""
    ids = table.select([split], usable=False)["image_id"].tolist()
    known_ids = known.ids if known else []
    fallback = sorted(set(ids) - set(known_ids))
    inputs = {"table": table.fingerprint} | (known.inputs if known else {})
    folders = {"fused": run / "predictions" / views / split}
    if recipe.predict.keep_parts:
        folders |= {part: run / "predictions" / views / "parts" / part / split for part in PARTS if part != "fused"}
    written: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        for part, folder in folders.items():
            settings = {"part": part, "fusion": fusion.describe(), "views": views, "split": split}
            if is_fresh(folder, kind=KIND, inputs=inputs, settings=settings):
                continue
            writing = write_probabilities(
                folder,
                ids=ids,
                class_ids=class_ids,
                names=table.get_class_names(class_ids),
                fallback=fallback,
                made={"run": str(run), **settings, "validation": asdict(scores[part]) if scores else None},
                inputs=inputs,
                settings=settings,
                keys=get_class_keys(table, class_ids),
                table=recipe.table,
                rows=digest_rows(table, split),
            )
            written[part] = stack.enter_context(writing)
        if written:
            _fill(written, ids, known, fusion, prior)
    if fallback and split == "test":
        warn(f"{len(fallback)} {split} images cannot be read (first: {fallback[0]}); they get the class prior.")


def _fill(
    written: dict[str, np.ndarray], ids: Sequence[str], known: SplitEvidence | None, fusion: Fusion, prior: np.ndarray
) -> None:
    """Fill the class probabilities (N, C) of each part: block by block, and the prior where nothing is known."""
    known_ids = known.ids if known else []
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    rows = np.array([row_of[image_id] for image_id in known_ids], dtype=np.int64)
    unread = np.setdiff1d(np.arange(len(ids)), rows)
    for values in written.values():
        values[unread] = prior
    if known is None:
        return
    for start in range(0, len(rows), _BLOCK_ROWS):
        parts = compute_parts(known.evidence.take(start, start + _BLOCK_ROWS), fusion)
        for part, values in written.items():
            values[rows[start : start + _BLOCK_ROWS]] = getattr(parts, part)
