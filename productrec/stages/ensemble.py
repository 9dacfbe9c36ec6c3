"""Ensemble: the class probabilities of several runs become one, after checking that they speak of the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.table_state import check_current, digest_rows
from productrec.data.table import ImageTable
from productrec.ensembling.blend import blend_probabilities, check_same_order, resolve_weights
from productrec.metrics.competition import CompetitionMetric
from productrec.recognition.probabilities import KIND, ClassProbabilities, load_probabilities, write_probabilities
from productrec.recognition.scores import Scores, compute_scores


@dataclass(frozen=True)
class Ensembled:
    """Scores of an ensemble on validation images, and on test images whose labels are known; None without such."""

    validation: Scores | None
    test: Scores | None


def run_ensemble(
    members: Mapping[str, Path],
    out: Path,
    table: ImageTable,
    *,
    metric: CompetitionMetric,
    weights: Sequence[float] | None = None,
) -> Ensembled:
    """Blend the members' predictions split by split into ``OUT/SPLIT``.

    Args:
        members: name and prediction folder (holding ``val`` and ``test``) of each.
        out: folder of the ensemble's predictions.
        table: image table, for the labels.
        metric: the competition's own.
        weights: one a member; equal where None.

    Returns:
        Scores, where all members have probabilities.

    Raises:
        ArtifactError: image ids or class orders differ, a member's predictions are of another state of the table, or
            the weights do not fit.
    """
    names = list(members)
    shares = resolve_weights(names, weights)
    scores: dict[str, Scores | None] = {"val": None, "test": None}
    by_split: dict[str, list[ClassProbabilities]] = {}
    for split in scores:
        folders = [folder / split for folder in members.values()]
        if not all(folder.exists() for folder in folders) or not len(table.select([split], usable=False)):
            continue
        parts = [load_probabilities(folder) for folder in folders]
        check_same_order(names, [part.ids for part in parts], "image ids")
        check_same_order(names, [part.class_ids for part in parts], "class order")
        for part in parts:
            check_current(part, table)
        by_split[split] = parts
    for split, parts in by_split.items():  # nothing is written where any of them is refused
        blended = _blend(names, parts, shares, out / split, split, table, scores["val"])
        scores[split] = _score(blended, table, metric)
    return Ensembled(scores["val"], scores["test"])


def _blend(
    names: list[str],
    parts: list[ClassProbabilities],
    shares: np.ndarray,
    out: Path,
    split: str,
    table: ImageTable,
    scores: Scores | None,
) -> ClassProbabilities:
    inputs = {f"member {name}": part.fingerprint for name, part in zip(names, parts, strict=True)}
    inputs["table"] = table.fingerprint
    settings = {"weights": dict(zip(names, shares.tolist(), strict=True)), "split": split}
    views = {part.made.get("views") for part in parts}
    if not is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        with write_probabilities(
            out,
            ids=parts[0].ids,
            class_ids=parts[0].class_ids,
            names=parts[0].names,
            fallback=sorted({image_id for part in parts for image_id in part.fallback}),
            made={
                "ensemble": settings["weights"],
                "views": views.pop() if len(views) == 1 else None,
                "validation": asdict(scores) if scores else None,
            },
            inputs=inputs,
            settings=settings,
            keys=parts[0].keys,
            table=parts[0].table,
            rows=digest_rows(table, split),
            doubted=_gather_doubted(parts, shares),
        ) as values:
            blend_probabilities([part.values for part in parts], shares, values)
    return load_probabilities(out)


def _gather_doubted(parts: list[ClassProbabilities], shares: np.ndarray) -> list[str] | None:
    """Ids that members of more than half of the weight doubt; None where a member cannot tell."""
    if any(part.doubted is None for part in parts):
        return None
    doubts: dict[str, float] = {}
    for part, share in zip(parts, shares.tolist(), strict=True):
        for image_id in part.doubted or ():
            doubts[image_id] = doubts.get(image_id, 0.0) + share
    half = float(shares.sum()) / 2
    return [image_id for image_id in parts[0].ids if doubts.get(image_id, 0.0) > half]


def _score(blended: ClassProbabilities, table: ImageTable, metric: CompetitionMetric) -> Scores | None:
    rows = table.images.set_index("image_id").loc[blended.ids]
    readable = ((rows["status"] == "ok") & rows["label"].notna()).to_numpy(dtype=bool)
    if not readable.any():
        return None
    labels = rows.loc[readable, "label"].to_numpy(dtype=np.int64)
    if not np.isin(labels, blended.class_ids).any():  # accuracies of 0 would say nothing
        return None
    return compute_scores(blended.values[readable], blended.class_ids, labels, metric=metric)
