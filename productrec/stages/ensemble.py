"""Ensemble: the class probabilities of several runs become one, after checking that they speak of the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from productrec.artifacts import is_fresh
from productrec.data.table import ImageTable
from productrec.ensembling.blend import blend_probabilities, check_same_order, resolve_weights
from productrec.recognition.probabilities import KIND, ClassProbabilities, load_probabilities, write_probabilities
from productrec.recognition.scores import Scores, compute_scores


def run_ensemble(
    members: Mapping[str, Path], out: Path, table: ImageTable, *, metric_k: int, weights: Sequence[float] | None = None
) -> Scores | None:
    """Blend the members' predictions split by split into ``OUT/SPLIT``.

    Args:
        members: name and prediction folder (holding ``val`` and ``test``) of each.
        out: folder of the ensemble's predictions.
        table: image table, for the validation labels.
        metric_k: the competition's own k.
        weights: one a member; equal where None.

    Returns:
        Validation scores, or None where a member has no validation probabilities.

    Raises:
        ArtifactError: image ids or class orders differ, or the weights do not fit.
    """
    names = list(members)
    shares = resolve_weights(names, weights)
    scores: Scores | None = None
    for split in ("val", "test"):
        folders = [folder / split for folder in members.values()]
        if not all(folder.exists() for folder in folders):
            continue
        parts = [load_probabilities(folder) for folder in folders]
        check_same_order(names, [part.ids for part in parts], "image ids")
        check_same_order(names, [part.class_ids for part in parts], "class order")
        blended = _blend(names, parts, shares, out / split, split, scores)
        if split == "val":
            scores = _score(blended, table, metric_k)
    return scores


def _blend(
    names: list[str], parts: list[ClassProbabilities], shares: np.ndarray, out: Path, split: str, scores: Scores | None
) -> ClassProbabilities:
    inputs = {name: part.fingerprint for name, part in zip(names, parts, strict=True)}
    settings = {"weights": dict(zip(names, shares.tolist(), strict=True)), "split": split}
    if not is_fresh(out, kind=KIND, inputs=inputs, settings=settings):
        with write_probabilities(
            out,
            ids=parts[0].ids,
            class_ids=parts[0].class_ids,
            names=parts[0].names,
            fallback=sorted({image_id for part in parts for image_id in part.fallback}),
            made={"ensemble": settings["weights"], "validation": asdict(scores) if scores else None},
            inputs=inputs,
            settings=settings,
        ) as values:
            blend_probabilities([part.values for part in parts], shares, values)
    return load_probabilities(out)


def _score(blended: ClassProbabilities, table: ImageTable, metric_k: int) -> Scores | None:
    rows = table.images.set_index("image_id").loc[blended.ids]
    readable = ((rows["status"] == "ok") & rows["label"].notna()).to_numpy(dtype=bool)
    if not readable.any():
        return None
    labels = rows.loc[readable, "label"].to_numpy(dtype=np.int64)
    return compute_scores(blended.values[readable], blended.class_ids, labels, metric_k=metric_k)
